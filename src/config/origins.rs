//! Whose pages may connect.

use std::net::Ipv6Addr;

use super::reader::Reader;

/// Origins as browsers send them: `scheme://host[:port]`, lower-case, without the scheme's own port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        const NAME: &str = "WEBSOCKET_CORS_ORIGIN";
        let text = reader.text(NAME).unwrap_or_default();
        let mut origins = Vec::new();
        let (mut wildcard, mut unusable) = (false, false);
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match normalise(item) {
                Some(origin) if !origins.contains(&origin) => origins.push(origin),
                Some(_) => {}
                None if item.contains('*') => wildcard = true,
                None => unusable = true,
            }
        }
        if wildcard {
            reader.problem(
                NAME,
                "must not contain *: any page that a user visits could connect; name each origin",
            );
        }
        if unusable {
            reader.problem(
                NAME,
                "must be comma-separated origins without a path, such as https://app.example.com or \
                 http://localhost:5173",
            );
        }
        Self(origins)
    }

    /// Whether this `Origin` header is one of them, as browsers write it: to the letter.
    pub fn allows(&self, origin: &str) -> bool {
        self.0.iter().any(|allowed| allowed == origin)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// None: not an origin. `null`, which any sandboxed page sends, is none either.
fn normalise(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));

    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.clone(), None),
        },
    };
    let is_host = host.starts_with('[')
        || !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !is_scheme || !is_host {
        return None;
    }
    let port = match port {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse::<u16>().ok()?),
        Some(_) => return None,
        None => None,
    };
    match (scheme.as_str(), port) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => Some(format!("{scheme}://{host}")),
        (_, Some(port)) => Some(format!("{scheme}://{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_form() {
        for (text, origin) in [
            ("http://localhost:5173", "http://localhost:5173"),
            ("HTTPS://App.Example.COM/", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80/", "http://app.example.com"),
            ("https://app.example.com:80", "https://app.example.com:80"),
            ("http://[::1]:5173", "http://[::1]:5173"),
            ("http://[0:0::1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(normalise(text).as_deref(), Some(origin), "{text}");
        }
        for text in [
            "null",
            "*",
            "https://*.example.com",
            "localhost:5173",
            "http://",
            "http://a/b",
            "http://a//",
            "http://a?x",
            "http://a#x",
            "http://user@a",
            "http://a:",
            "http://a:+80",
            "http://a:65536",
            "http://a:1:2",
            "http://[::1",
            "http://[::1]x",
            "http://[zz]",
            "http://a b",
            "http://bücher.example",
            "1http://a",
            "://a",
        ] {
            assert_eq!(normalise(text), None, "{text}");
        }
    }

    #[test]
    fn a_longer_origin_is_another() {
        let origins = Origins(vec!["https://app.example.com".into()]);
        assert!(origins.allows("https://app.example.com"));
        for other in [
            "https://APP.example.com",
            "HTTPS://app.example.com",
            "https://app.example.com:443",
            "https://app.example.com/",
            "https://app.example.com.",
            "https://app.example.com@evil.test",
            "https://evil@app.example.com",
            " https://app.example.com",
            "https://app.example.com.evil.test",
            "https://evil-app.example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "null",
            "",
        ] {
            assert!(!origins.allows(other), "{other}");
        }
    }
}
