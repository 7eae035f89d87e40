//! CORS: which requests pages of other origins may send, and which answers they may read. Scripts set the token in a header, so
//! credentials are not needed and not allowed.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderValue, Method, header};

use crate::{
    config::Origins,
    cors::{allow, allow_preflight, varies},
};

const ALLOWED_METHODS: &str = "GET,POST,PATCH";
const EXPOSED_HEADERS: &str = "x-request-id,retry-after,location";

/// Answers preflight requests, and marks in every other answer whether the page may read it.
pub(super) async fn shared(State(origins): State<Arc<Origins>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|origin| origins.allows(origin)));
    let mut response = match *request.method() {
        Method::OPTIONS => preflight(&request, allowed.as_ref()),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    varies(headers);
    if let Some(origin) = allowed {
        allow(headers, origin, EXPOSED_HEADERS);
    }
    response
}

fn preflight(request: &Request, allowed: Option<&HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    if allowed.is_some() {
        allow_preflight(request.headers(), response.headers_mut(), ALLOWED_METHODS);
    }
    response
}
