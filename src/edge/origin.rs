//! Decides which web pages may use the gateway. A browser sends the page's origin in the header `Origin`. Other clients send none.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{cors::add_vary_origin, error_response};
use crate::{
    address::forwarded_origin,
    config::{Origin, Origins, TrustedProxies},
    metrics::{Metrics, RejectReason},
    rate_limited_log::rate_limited_log,
};

/// The log shows this many bytes of a refused `Origin`.
const MAX_SHOWN: usize = 100;

/// The IP address of the other end of the TCP connection. It may be a proxy's.
#[derive(Clone, Copy, Debug)]
pub struct PeerIp(pub IpAddr);

/// Which pages may use a route.
#[derive(Clone, Debug)]
pub struct OriginRule {
    pub origins: Origins,
    pub proxies: TrustedProxies,
    pub metrics: Arc<Metrics>,
}

/// Middleware that refuses requests of pages that may not use the gateway.
pub async fn check_origin(
    State(rule): State<OriginRule>,
    Extension(PeerIp(peer)): Extension<PeerIp>,
    request: Request,
    next: Next,
) -> Response {
    if allows(request.headers(), &rule.origins, &rule.proxies, peer) {
        return next.run(request).await;
    }
    let origin = request.headers().get(header::ORIGIN);
    rate_limited_log!(info, origin = shown(origin), "refused an Origin that is not in WEBSOCKET_CORS_ORIGIN");
    rule.metrics.clients.rejected.inc(RejectReason::ForbiddenOrigin);
    let mut response =
        error_response(StatusCode::FORBIDDEN, "forbidden_origin", "This Origin is not allowed");
    add_vary_origin(response.headers_mut());
    response
}

/// The refused `Origin` as the log shows it.
fn shown(origin: Option<&HeaderValue>) -> Option<&str> {
    let text = origin?.to_str().ok()?;
    // The text is ASCII, so it can be cut at any byte.
    Some(&text[..text.len().min(MAX_SHOWN)])
}

/// Returns whether a request is allowed: it has no `Origin`, a configured one, or the gateway's own.
fn allows(headers: &HeaderMap, allowed: &Origins, proxies: &TrustedProxies, peer: IpAddr) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (first, more) = (origins.next(), origins.next());
    match (first, more) {
        (None, _) => true,
        (Some(origin), None) => origin.to_str().ok().and_then(Origin::parse).is_some_and(|origin| {
            allowed.contains(&origin) || own_origin(headers, proxies, peer).is_some_and(|own| origin == own)
        }),
        (Some(_), Some(_)) => false,
    }
}

/// The origin of this gateway as the browser sees it, from the headers of trusted proxies or otherwise from the request itself.
fn own_origin(headers: &HeaderMap, proxies: &TrustedProxies, peer: IpAddr) -> Option<Origin> {
    let forwarded = forwarded_origin(peer, headers, proxies);
    let host = match &forwarded.host {
        Some(host) => host,
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    Origin::parse(&format!("{}://{host}", forwarded.scheme.unwrap_or("http")))
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
    fn a_configured_origin_the_own_origin_and_no_origin_are_allowed() {
        assert!(check(&[]));
        assert!(check(&[("origin", "https://app.example.com")]));
        assert!(check(&[("origin", "http://gate.example.com:3000"), ("host", "gate.example.com:3000")]));
        assert!(check(&[("origin", "http://gate.example.com"), ("host", "gate.example.com:80")]));
        for origin in [
            "https://app.example.com:443",
            "https://APP.example.com",
            "wss://app.example.com",
            "ws://gate.example.com:3000",
            "HTTP://gate.example.com:3000",
            "http://GATE.example.com:3000",
        ] {
            assert!(check(&[("origin", origin), ("host", "gate.example.com:3000")]), "{origin}");
        }
        assert!(check(&[("origin", "http://[::1]:3000"), ("host", "[0:0::1]:3000")]));
        assert!(check(&[("origin", "http://gate.example.com."), ("host", "gate.example.com.")]));
    }

    #[test]
    fn other_origins_are_refused() {
        for origin in [
            "null",
            "",
            "https://app.example.com.evil.test",
            "https://evil.test/https://app.example.com",
            "http://app.example.com",
            "https://app.example.com:444",
            "https://gate.example.com:3000",
            "wss://gate.example.com:3000",
            "ws://app.example.com",
            "http://gate.example.com.:3000",
            "http://gate.example.com",
            "file://",
            "gate.example.com:3000",
            "//gate.example.com:3000",
            "http://gate.example.com:3000/",
            "http://gate.example.com:03000",
            "http://gate.example.com:3000@evil.test",
            "http://evil@gate.example.com:3000",
            "https://app.example.com.",
            "https://app.example.com:80",
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

    /// A proxy may report the scheme of a WebSocket, and several proxies report a list.
    #[test]
    fn the_page_is_https_if_any_proxy_reports_https_or_wss() {
        let behind = |origin, more: &[(&'static str, &'static str)]| {
            check(&[&[("origin", origin), ("host", "gate.test"), ("peer", "10.1.2.3")], more].concat())
        };
        let proto = |value| [("x-forwarded-proto", value)];
        for value in ["https", "wss", "WSS", "https,http", "https, http", "wss,http,http", "http,https"] {
            for origin in ["https://gate.test", "wss://gate.test", "https://Gate.test:443"] {
                assert!(behind(origin, &proto(value)), "{origin} {value}");
            }
            for origin in
                ["http://gate.test", "ws://gate.test", "http://gate.test:443", "https://gate.test:80", "null"]
            {
                assert!(!behind(origin, &proto(value)), "a downgrade: {origin} {value}");
            }
        }
        for value in ["http", "ws", "", "http,ws"] {
            assert!(
                behind("http://gate.test", &proto(value)) && behind("ws://gate.test:80", &proto(value)),
                "{value}"
            );
            assert!(!behind("https://gate.test", &proto(value)), "{value}");
        }
        for line in [
            "proto=https",
            "for=192.0.2.9;proto=WSS;host=\"gate.test\"",
            "for=192.0.2.9;proto=https, for=10.9.9.9;proto=http",
        ] {
            assert!(behind("https://gate.test", &[("forwarded", line)]), "{line}");
            assert!(!behind("http://gate.test", &[("forwarded", line)]), "{line}");
            let untrusted = [("origin", "https://gate.test"), ("host", "gate.test"), ("forwarded", line)];
            assert!(!check(&untrusted), "{line}");
        }
        let hosts = [
            ("x-forwarded-for", "192.0.2.9, 10.9.9.9"),
            ("x-forwarded-host", "evil.test, public.test, inner"),
        ];
        assert!(behind("http://public.test", &hosts));
        assert!(!behind("http://evil.test", &hosts) && !behind("http://inner", &hosts));
    }
}
