//! The metrics of the gateway, for `/metrics` and `/api/health`.
//!
//! Each section is a struct of handles for the part of the gateway that writes them. The help text of a metric is its
//! documentation, and a scrape shows it. The fan-out counts packets in plain numbers and adds them to the metrics once
//! per turn. A label's value is a static text or a route's template, never a text from a client.
//!
//! Gauges of current values are updated when a scrape comes: [`crate::http::GatewayStatus::measure`].

mod activity;
mod clients;
mod cluster;
mod http;
mod keys;
mod labelled;
mod labels;
mod process;
mod relay;
mod store;
mod text;

use prometheus_client::registry::Registry;

pub use activity::ActivityMetrics;
pub use clients::ClientMetrics;
pub use cluster::ClusterMetrics;
pub use http::HttpMetrics;
pub use keys::KeyMetrics;
pub use labelled::Level;
pub use labels::{
    CutReason, EndReason, HandoffKind, HandshakeOutcome, KeyFetch, Phase, RejectReason, ReportOutcome,
    RoomKind, SnapshotRead, StoreFailure, StoreOperation, Transport, WaitCause, WebhookOutcome,
};
pub use process::{ProcessMetrics, held_bytes, panicked};
pub use relay::RelayMetrics;
pub use store::StoreMetrics;
pub use text::CONTENT_TYPE;

/// All metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    pub activity: ActivityMetrics,
    pub clients: ClientMetrics,
    pub relay: RelayMetrics,
    pub store: StoreMetrics,
    pub cluster: ClusterMetrics,
    pub http: HttpMetrics,
    pub keys: KeyMetrics,
    pub process: ProcessMetrics,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let process = ProcessMetrics::register(&mut registry);
        let ours = registry.sub_registry_with_prefix("taskcast");
        Self {
            activity: ActivityMetrics::register(ours),
            clients: ClientMetrics::register(ours),
            relay: RelayMetrics::register(ours),
            store: StoreMetrics::register(ours),
            cluster: ClusterMetrics::register(ours),
            http: HttpMetrics::register(ours),
            keys: KeyMetrics::register(ours),
            process,
            registry,
        }
    }
}

impl Metrics {
    /// All metrics, in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.process.measure();
        text::encode(&self.registry)
    }
}
