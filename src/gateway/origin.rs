//! Whose pages may speak to the gateway: browsers tell by the header `Origin`, everybody else sends none.

use std::net::IpAddr;

use http::{HeaderMap, header};

use crate::config::{Origins, TrustedProxies};

/// Whether a request may pass: it has no `Origin`, a configured one, or its own.
pub(super) fn allows(headers: &HeaderMap, allowed: &Origins, proxies: &TrustedProxies, peer: IpAddr) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (first, more) = (origins.next(), origins.next());
    match (first, more) {
        (None, _) => true,
        (Some(origin), None) => origin.to_str().is_ok_and(|origin| {
            allowed.allows(origin) || own_origin(headers, proxies, peer).is_some_and(|own| origin == own)
        }),
        (Some(_), Some(_)) => false,
    }
}

/// Scheme and host as the browser sees them. Behind a proxy it says so, if it may be believed.
fn own_origin(headers: &HeaderMap, proxies: &TrustedProxies, peer: IpAddr) -> Option<String> {
    let believed = proxies.contains(peer);
    let forwarded = |name: &str| {
        // The proxy before us adds its word last.
        let value = headers.get_all(name).iter().next_back().filter(|_| believed)?;
        value.to_str().ok()?.rsplit(',').next().map(str::trim).filter(|value| !value.is_empty())
    };
    let host = forwarded("x-forwarded-host").or_else(|| headers.get(header::HOST)?.to_str().ok())?;
    let scheme = forwarded("x-forwarded-proto").unwrap_or("http");
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    Some(format!("{scheme}://{}", host.strip_suffix(port).unwrap_or(host)).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn check(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let settings = [
            ("WEBSOCKET_CORS_ORIGIN", "https://app.example.com"),
            ("TRUSTED_PROXIES", "10.0.0.0/8"),
            ("TASKCAST_DEV", "1"),
        ];
        let sources = Sources::new(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let config = crate::config::Config::read(&sources).unwrap();
        let peer = map.get("peer").map_or("192.0.2.1", |peer| peer.to_str().unwrap()).parse().unwrap();
        allows(&map, &config.origins, &config.server.trusted_proxies, peer)
    }

    #[test]
    fn configured_own_and_no_origins_pass() {
        assert!(check(&[]));
        assert!(check(&[("origin", "https://app.example.com")]));
        assert!(check(&[("origin", "http://gate.example.com:3000"), ("host", "gate.example.com:3000")]));
        assert!(check(&[("origin", "http://gate.example.com"), ("host", "gate.example.com:80")]));
    }

    #[test]
    fn others_do_not() {
        for origin in [
            "null",
            "",
            "https://app.example.com.evil.test",
            "https://evil.test/https://app.example.com",
            "http://app.example.com",
            "https://app.example.com:444",
            "https://gate.example.com:3000",
            "HTTP://gate.example.com:3000",
            "http://GATE.example.com:3000",
            "http://gate.example.com.:3000",
            "http://gate.example.com:3000/",
            "http://gate.example.com:03000",
            "http://gate.example.com:3000@evil.test",
            "http://evil@gate.example.com:3000",
            "https://app.example.com.",
            "https://app.example.com:443",
            "https://APP.example.com",
            "https://app.example.com ",
            "https://app.example.com,https://app.example.com",
            "*",
        ] {
            assert!(!check(&[("origin", origin), ("host", "gate.example.com:3000")]), "{origin}");
        }
        assert!(!check(&[("origin", "https://app.example.com"), ("origin", "https://evil.test")]));
    }

    #[test]
    fn forwarded_headers_count_only_from_a_trusted_proxy() {
        let headers = [
            ("origin", "https://gate.test"),
            ("host", "inner:3000"),
            ("x-forwarded-host", "gate.test"),
            ("x-forwarded-proto", "https"),
        ];
        assert!(!check(&headers));
        assert!(check(&[&headers[..], &[("peer", "10.1.2.3")]].concat()));
    }
}
