//! CORS: which requests pages of other origins may send, and which answers they may read
//! (<https://fetch.spec.whatwg.org/#http-cors-protocol>).

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::config::Origins;

/// A browser repeats the preflight after this time, in seconds. Chromium keeps an answer for two hours at most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");
/// The maximum number of header names that are allowed at once, and the maximum length of each. Tracing libraries add a
/// handful.
const MAX_NAMES: usize = 64;
const MAX_NAME_BYTES: usize = 128;

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
/// The request headers that the answer to a preflight depends on.
const PREFLIGHT_VARIES: HeaderValue = HeaderValue::from_static(
    "Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
);

/// The methods that pages may use, and the headers of an answer that they may read.
const METHODS: HeaderValue = HeaderValue::from_static("GET,POST,PATCH");
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id,retry-after,location");

/// What pages of other origins may do.
#[derive(Clone, Debug)]
pub struct CorsRule {
    pub origins: Arc<Origins>,
    /// Pages may send cookies. Load balancers set one to find the node of a polling client. Scripts set the token in a header, so
    /// the HTTP API needs none.
    pub credentials: bool,
}

/// Middleware that answers preflight requests, and says in every other answer whether the page may read it.
pub async fn cors(State(rule): State<CorsRule>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|origin| rule.origins.allows(origin)));
    let mut response = match *request.method() {
        Method::OPTIONS => preflight(request.headers(), allowed.is_some()),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    add_vary_origin(headers);
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if rule.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
    response
}

fn preflight(request_headers: &HeaderMap, is_allowed: bool) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if is_allowed {
        allow_preflight(request_headers, response.headers_mut());
    }
    response
}

/// Tells caches that the answer depends on the page's origin, also if this origin was refused.
pub(super) fn add_vary_origin(answer: &mut HeaderMap) {
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// Allows the request that a preflight asks for: with the headers that it names, by one of [`METHODS`].
fn allow_preflight(request: &HeaderMap, answer: &mut HeaderMap) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    answer.append(header::VARY, PREFLIGHT_VARIES);
    if let Some(names) = requested_headers(request) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    // A page of a public network may use a gateway in a private network, if the page's origin is allowed.
    if request.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true") {
        answer.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
}

/// The header names that a page requests. Invalid names are left out, and so is `*`, which could mean all names.
fn requested_headers(request: &HeaderMap) -> Option<HeaderValue> {
    let lines = request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).into_iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| {
        let name = name.trim_ascii();
        let is_short = name.len() <= MAX_NAME_BYTES;
        HeaderName::from_bytes(name).ok().filter(|name| is_short && name != "*")
    });
    let names: Vec<HeaderName> = names.take(MAX_NAMES).collect();
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(",")).ok().filter(|names| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed_headers(lines: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line).expect("a value");
            headers.append(header::ACCESS_CONTROL_REQUEST_HEADERS, value);
        }
        requested_headers(&headers).map(|names| names.to_str().expect("text").to_owned())
    }

    #[test]
    fn the_requested_names_are_allowed() {
        assert_eq!(allowed_headers(&[b"baggage,sentry-trace"]).as_deref(), Some("baggage,sentry-trace"));
        assert_eq!(
            allowed_headers(&[b"X-Tenant , traceparent", b"tracestate"]).as_deref(),
            Some("x-tenant,traceparent,tracestate")
        );
        assert_eq!(allowed_headers(&[]), None);
    }

    #[test]
    fn an_invalid_name_is_left_out() {
        for line in [&b""[..], b" , ,", b"*", b"a b", b"a:b", b"caf\xe9", b"(x)", b"\"x\"", b"a/b"] {
            assert_eq!(allowed_headers(&[line]), None, "{line:?}");
        }
        assert_eq!(allowed_headers(&[b"*, x-one,a b,\xff,x-two"]).as_deref(), Some("x-one,x-two"));
    }

    #[test]
    fn the_number_and_the_length_of_names_are_limited() {
        let many = (0..1000).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        let allowed = allowed_headers(&[many.as_bytes()]).expect("names");
        assert_eq!(allowed.split(',').count(), MAX_NAMES);
        assert!(allowed.starts_with("x-0,x-1,") && allowed.ends_with(",x-63"));
        assert_eq!(allowed_headers(&["x".repeat(MAX_NAME_BYTES + 1).as_bytes()]), None);
    }

    #[test]
    fn access_to_a_private_network_is_allowed_only_if_it_is_requested() {
        for (value, allowed) in [(None, false), (Some("true"), true), (Some("false"), false)] {
            let (mut asked, mut answer) = (HeaderMap::new(), HeaderMap::new());
            if let Some(value) = value {
                asked.insert(REQUEST_PRIVATE_NETWORK, HeaderValue::from_static(value));
            }
            allow_preflight(&asked, &mut answer);
            assert_eq!(answer.contains_key(ALLOW_PRIVATE_NETWORK), allowed, "{value:?}");
        }
    }
}
