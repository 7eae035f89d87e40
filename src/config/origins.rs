//! The allowlist of origins whose pages may connect.

use std::net::Ipv6Addr;

use super::reader::Reader;

const SETTING: &str = "WEBSOCKET_CORS_ORIGIN";
const OPAQUE_ORIGIN: &str = "null";
const FILE_ORIGIN: &str = "file://";
const NULL_WARNING: &str = "WEBSOCKET_CORS_ORIGIN has null: every sandboxed frame, data: page and local file sends this Origin, \
                            whoever made it, so any of them can connect with a token that it has; name the app's own origin \
                            instead, such as capacitor://localhost or app://localhost, if the app can have one";
const FILE_WARNING: &str = "WEBSOCKET_CORS_ORIGIN has file://: every page that is opened from a disk sends this Origin, so any \
                            of them can connect with a token that it has; give the app an origin of its own, such as \
                            https://localhost or app://localhost, if it can have one";

/// A normalised origin, so that origins can be compared: lower-case, and without the scheme's default port. `ws`
/// becomes `http` and `wss` becomes `https`, because native clients take the scheme from the URL that they connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// The origins that the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

impl Origin {
    /// Parses an `Origin` header or an entry of the setting. `None` means that the text is not an origin.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case(OPAQUE_ORIGIN) {
            return Some(Self(OPAQUE_ORIGIN.to_owned()));
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme_of(scheme)?;
        let authority = authority.to_ascii_lowercase();
        if authority.is_empty() && scheme != "http" && scheme != "https" {
            return Some(Self(format!("{scheme}://")));
        }
        let (host, port) = host_and_port(&authority)?;
        match (scheme.as_str(), port) {
            ("http", Some(80)) | ("https", Some(443)) | (_, None) => Some(Self(format!("{scheme}://{host}"))),
            (_, Some(port)) => Some(Self(format!("{scheme}://{host}:{port}"))),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Origins {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let text = reader.text(SETTING).unwrap_or_default();
        let origins = Self::parse(text).unwrap_or_else(|problems| {
            problems.into_iter().for_each(|problem| reader.problem(SETTING, problem));
            Self::default()
        });
        for (origin, warning) in [(OPAQUE_ORIGIN, NULL_WARNING), (FILE_ORIGIN, FILE_WARNING)] {
            if origins.iter().any(|named| named == origin) {
                reader.warn(warning);
            }
        }
        origins
    }

    /// Reads a comma-separated list. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<&'static str>> {
        let mut origins = Vec::new();
        let (mut wildcard, mut unusable) = (false, false);
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match Origin::parse(without_slash(item)) {
                Some(origin) if !origins.contains(&origin) => origins.push(origin),
                Some(_) => {}
                None if item.contains('*') => wildcard = true,
                None => unusable = true,
            }
        }
        let problems = [
            wildcard
                .then_some("must not contain *: any page that a user visits could connect; name each origin"),
            unusable.then_some(
                "must be comma-separated origins without a path, such as https://app.example.com or \
                 http://localhost:5173",
            ),
        ];
        let problems: Vec<_> = problems.into_iter().flatten().collect();
        if problems.is_empty() { Ok(Self(origins)) } else { Err(problems) }
    }

    /// Returns true if this `Origin` header is one of the allowed origins.
    pub fn allows(&self, origin: &str) -> bool {
        Origin::parse(origin).is_some_and(|origin| self.contains(&origin))
    }

    pub fn contains(&self, origin: &Origin) -> bool {
        self.0.contains(origin)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Origin::as_str)
    }
}

/// Removes a final slash, because people copy `https://app.example.com/` from an address bar. The slashes of `file://`
/// stay.
fn without_slash(text: &str) -> &str {
    text.strip_suffix('/').filter(|rest| !rest.ends_with(":/")).unwrap_or(text)
}

fn scheme_of(text: &str) -> Option<String> {
    let scheme = text.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    match scheme.as_str() {
        "ws" => Some("http".to_owned()),
        "wss" => Some("https".to_owned()),
        _ => is_scheme.then_some(scheme),
    }
}

fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.to_owned(), None),
        },
    };
    let is_host = host.starts_with('[')
        || !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let port = match port {
        // The port has no sign and no leading zero.
        Some(text) => Some(text.parse::<u16>().ok().filter(|port| port.to_string() == text)?),
        None => None,
    };
    is_host.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<String> {
        Origins::parse(text).ok().map(|origins| origins.iter().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn origins_are_normalised() {
        for (text, origin) in [
            ("http://localhost:5173", "http://localhost:5173"),
            ("HTTPS://App.Example.COM/", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("wss://app.example.com:443/", "https://app.example.com"),
            ("ws://app.example.com:3000", "http://app.example.com:3000"),
            ("http://app.example.com:80/", "http://app.example.com"),
            ("https://app.example.com:80", "https://app.example.com:80"),
            ("http://[::1]:5173", "http://[::1]:5173"),
            ("http://[0:0::1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("ionic://localhost/", "ionic://localhost"),
            ("app://", "app://"),
            ("app://-", "app://-"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            ("file://", "file://"),
            ("file:///", "file://"),
            ("FILE://", "file://"),
            ("null", "null"),
            ("https://a, wss://a ,,null,Null", "https://a null"),
        ] {
            assert_eq!(named(text).as_deref(), Some(origin), "{text}");
        }
        for text in [
            "*",
            "https://*.example.com",
            "*://app.example.com",
            "localhost:5173",
            "http://",
            "https:///",
            "wss://",
            "http://a/b",
            "http://a//",
            "file:///index.html",
            "file:",
            "nil",
            "http://a?x",
            "http://a#x",
            "http://user@a",
            "http://a:",
            "http://a:+80",
            "http://a:080",
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
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[test]
    fn another_notation_of_an_allowed_origin_is_allowed() {
        let origins = Origins::parse("https://app.example.com").unwrap();
        for same in [
            "https://app.example.com",
            "wss://app.example.com",
            "https://APP.example.com",
            "WSS://app.example.com:443",
            "https://app.example.com:443",
        ] {
            assert!(origins.allows(same), "{same}");
        }
        for other in [
            "https://app.example.com/",
            "https://app.example.com.",
            "https://app.example.com@evil.test",
            "https://evil@app.example.com",
            " https://app.example.com",
            "https://app.example.com.evil.test",
            "https://evil-app.example.com",
            "http://app.example.com",
            "ws://app.example.com",
            "http://app.example.com:443",
            "https://app.example.com:0443",
            "https://app.example.com:8443",
            "null",
            "file://",
            "",
        ] {
            assert!(!origins.allows(other), "{other}");
        }
    }

    #[test]
    fn null_and_files_are_allowed_by_name_only() {
        for (text, allowed, refused) in [("null", "null", "file://"), ("file://", "file://", "null")] {
            let origins = Origins::parse(text).unwrap();
            assert!(origins.allows(allowed) && !origins.allows(refused), "{text}");
            assert!(!origins.allows("https://null") && !origins.allows("file://host") && !origins.allows(""));
        }
        assert!(Origins::parse("*").is_err() && Origins::parse("null,*").is_err());
    }
}
