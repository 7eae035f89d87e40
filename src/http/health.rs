//! The health endpoints, for load balancers and operators.

use axum::{Json, extract::State};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::HttpState;
use crate::{cluster::NodeReport, metrics::Phase};

/// Reports the state of the gateway from memory: health is requested often, and especially while MongoDB or Redis is unavailable.
pub trait GatewayStatus: Send + Sync + std::fmt::Debug {
    fn report(&self) -> HealthReport;

    /// Sets the gauges of the gateway's current state. A scrape calls this first.
    fn measure(&self);
}

/// The body of the answer to `GET /api/health`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HealthReport {
    pub status: Phase,
    pub websocket: WebsocketHealth,
    pub relay: RelayHealth,
    pub store: StoreHealth,
    pub cluster: ClusterHealth,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebsocketHealth {
    pub connected_users: usize,
    pub connections: usize,
    pub messages_per_second: f64,
    pub total_errors: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayHealth {
    /// How far the feed is behind the store.
    pub lag_ms: u64,
    /// How often the feed was opened: once at the start, and again each time that changes may have been missed.
    pub epoch: u64,
    /// `null` before the first change.
    pub last_event_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreHealth {
    pub kind: &'static str,
    pub ok: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterHealth {
    pub ok: bool,
    pub nodes: Vec<NodeHealth>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeHealth {
    pub id: String,
    pub version: String,
    pub connections: usize,
    pub lag_ms: u64,
}

impl From<NodeReport> for NodeHealth {
    fn from(NodeReport { id, version, connections, lag_ms }: NodeReport) -> Self {
        Self { id, version, connections, lag_ms }
    }
}

fn status_code(phase: Phase) -> StatusCode {
    match phase {
        Phase::Ok | Phase::Degraded => StatusCode::OK,
        Phase::Starting | Phase::Draining => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub(super) async fn health(State(state): State<HttpState>) -> (StatusCode, Json<HealthReport>) {
    let report = state.status.report();
    (status_code(report.status), Json(report))
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({"status": "ok"}))
}
