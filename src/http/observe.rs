//! Middleware that gives every request an id, a span for the log and a deadline, and every answer safe headers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::ApiError;
use crate::metrics::Metrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The timeout of a request. It is longer than any timeout of a store, and shorter than the usual timeouts of proxies.
const DEADLINE: Duration = Duration::from_secs(30);
const MAX_REQUEST_ID_BYTES: usize = 128;
/// The route under which metrics count a path without a route.
const NO_ROUTE: &str = "none";

/// Echoes `x-request-id`, or generates one. Every log line of the request contains it.
pub(super) async fn with_request_id(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let id = request.headers().get(REQUEST_ID).filter(|id| is_valid_id(id)).cloned().unwrap_or_else(new_id);
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path = request.uri().path(),
    );
    let mut response = measure(&metrics, request, next).instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Answers may contain data that only one user may see, and none of them is a web page.
pub(super) async fn safe_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

/// Counts the request as long as it is being answered. A drain waits for these requests.
pub(super) async fn count_running(
    State(requests): State<TaskTracker>,
    request: Request,
    next: Next,
) -> Response {
    let _running = requests.token();
    next.run(request).await
}

pub(super) async fn with_deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TimedOut.into_response(),
    }
}

async fn measure(metrics: &Metrics, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let elapsed = start.elapsed();
    // A route that is also served with a slash at its end counts as one route.
    let route = route.as_ref().map_or(NO_ROUTE, |route| route.as_str().trim_end_matches('/'));
    metrics.http.answered(route, &method, response.status());
    metrics.http.observe_duration(route, elapsed);
    tracing::debug!(status = response.status().as_u16(), elapsed_ms = elapsed.as_millis() as u64, "answered");
    response
}

/// The id goes into the log and back to the client, so it must be short and visible ASCII.
fn is_valid_id(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("none"))
}
