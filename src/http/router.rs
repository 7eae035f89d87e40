//! The routes, with their handlers and limits.

use std::sync::Arc;

use axum::{
    BoxError, Router,
    error_handling::HandleErrorLayer,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state, map_response},
    routing::{get, post},
};
use tokio_util::task::TaskTracker;
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer};

use super::{
    ApiError, GatewayStatus, activity, admin,
    body::MAX_BODY_BYTES,
    health, metrics, observe, tasks, timeline,
    webhook::{self, Webhook},
};
use crate::{
    auth::TokenVerifier,
    cluster::Cluster,
    config::{Origins, Secret, TaskApi},
    edge::{CorsRule, cors},
    metrics::Metrics,
    reporting::Reporting,
    store::{BatchedReads, Store},
};

/// At most this many requests to the task API are in progress at once. Further requests are refused immediately, because a queue
/// does not help a slow store. A request without a token takes a slot only as long as its refusal takes.
const MAX_RUNNING: usize = 512;

/// The state that the routes share.
#[derive(Clone, Debug)]
pub struct HttpState {
    pub store: Arc<dyn Store>,
    /// Reads of single tasks.
    pub reads: Arc<BatchedReads>,
    pub tokens: Arc<TokenVerifier>,
    pub task_api: TaskApi,
    /// Activity events. `None` means that they are switched off.
    pub reporting: Option<Arc<Reporting>>,
    pub status: Arc<dyn GatewayStatus>,
    pub cluster: Arc<Cluster>,
    pub metrics: Arc<Metrics>,
    /// The token that `/metrics` requires. `None` means that everybody may read `/metrics`.
    pub metrics_token: Option<Secret>,
    pub webhook: Arc<Webhook>,
}

impl HttpState {
    pub(super) fn reporting(&self) -> Result<&Arc<Reporting>, ApiError> {
        let off =
            "activity is switched off, or this store has none: FEATURE_ACTIVITY, and the embedded store";
        self.reporting.as_ref().ok_or(ApiError::FeatureDisabled(off))
    }
}

/// The routes of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    All,
    /// The routes of the main listener when `ADMIN_PORT` has a listener of its own.
    Public,
    Admin,
}

/// Builds the router. It answers every other path with 404. Pages of these origins may read the answers. `requests` counts the requests
/// of the API that are being answered. `transports` are the routes by which clients connect; they have no deadline.
pub fn router(
    routes: Routes,
    state: HttpState,
    origins: Origins,
    requests: TaskTracker,
    transports: Router,
) -> Router {
    let metrics = state.metrics.clone();
    let cors_rule = CorsRule { origins: Arc::new(origins), credentials: false };
    let served = match routes {
        Routes::All => public().merge(operators()),
        Routes::Public => public(),
        Routes::Admin => operators(),
    };
    served
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(state)
        .layer(from_fn(observe::with_deadline))
        .layer(from_fn_with_state(cors_rule, cors))
        .layer(from_fn_with_state(requests, observe::count_running))
        .layer(map_response(observe::safe_headers))
        .layer(from_fn_with_state(metrics, observe::with_request_id))
        .merge(transports)
}

fn public() -> Router<HttpState> {
    let shedding = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(async |_: BoxError| ApiError::Overloaded))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(MAX_RUNNING));
    Router::new()
        .route("/api/tasks", get(tasks::list).post(tasks::create))
        .route("/api/tasks/{id}", get(tasks::show).patch(tasks::patch))
        .route("/api/tasks/{id}/clarify", post(tasks::clarify))
        .route("/api/tasks/{id}/events", get(timeline::page))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .merge(activity::routes())
        .layer(shedding)
        .route("/api/health", get(health::health))
        .route("/api/health/live", get(health::live))
        .route("/api/webhooks/github", post(webhook::receive_delivery))
        // People type this URL into a form on GitHub, and may add a slash.
        .route("/api/webhooks/github/", post(webhook::receive_delivery))
}

/// The routes for operators. With `ADMIN_PORT`, only that listener serves them.
fn operators() -> Router<HttpState> {
    Router::new()
        .route("/api/admin/disconnect", post(admin::disconnect))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .route("/metrics", get(metrics::scrape))
}
