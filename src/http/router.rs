//! Which route is served by what.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, map_response},
    routing::{get, post},
};
use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{ApiError, GatewayStatus, body::MAX_BODY_BYTES, health, observe, tasks, webhook};
use crate::{auth::TokenVerifier, config::TaskApi, store::Store};

/// What the routes need.
#[derive(Clone, Debug)]
pub struct HttpState {
    pub store: Arc<dyn Store>,
    pub tokens: Arc<TokenVerifier>,
    pub task_api: TaskApi,
    pub status: Arc<dyn GatewayStatus>,
}

/// All routes under `/api`; whatever else is asked for is answered 404.
pub fn router(state: HttpState, cors_origins: &[String]) -> Router {
    Router::new()
        .route("/api/health", get(health::health))
        .route("/api/health/live", get(health::live))
        .route("/api/tasks", get(tasks::list).post(tasks::create))
        .route("/api/tasks/{id}", get(tasks::show).patch(tasks::patch))
        .route("/api/tasks/{id}/clarify", post(tasks::clarify))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .route("/api/webhooks/github", post(webhook::not_configured))
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(state)
        .layer(from_fn(observe::in_time))
        .layer(cors(cors_origins))
        .layer(map_response(observe::safe_headers))
        .layer(from_fn(observe::identified))
}

/// Tokens travel in a header that scripts set, so no credentials are allowed and none are needed.
fn cors(origins: &[String]) -> CorsLayer {
    let request_id = HeaderName::from_static("x-request-id");
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PATCH])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, request_id.clone()])
        .expose_headers([request_id, header::RETRY_AFTER, header::LOCATION])
        .max_age(Duration::from_secs(3600))
}
