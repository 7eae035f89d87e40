//! What the gateway counts and measures, for `/metrics` and `/api/health`.
//!
//! One struct of handles, in sections by who writes them. Each metric is documented where it is declared: by the
//! help text that it is registered with, which is what a scrape shows, too. What is counted per packet is a plain
//! number of the fan-out, added up once per turn. A label's value is a static text or a route's template: a
//! client's string can't become one.
//!
//! What something holds right now is asked for when a scrape comes: [`crate::http::GatewayStatus::measure`].

mod clients;
mod cluster;
mod http;
mod keys;
mod labelled;
mod process;
mod relay;
mod store;
mod text;

use prometheus_client::registry::Registry;

pub use clients::ClientMetrics;
pub use cluster::ClusterMetrics;
pub use http::HttpMetrics;
pub use keys::KeyMetrics;
pub use labelled::{Counters, Gauges, Level};
pub use process::{ProcessMetrics, held_bytes, panicked};
pub use relay::RelayMetrics;
pub use store::StoreMetrics;
pub use text::CONTENT_TYPE;

/// All metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
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
    /// Everything, as Prometheus and its relatives read it.
    pub fn render(&self) -> String {
        self.process.measure();
        text::encode(&self.registry)
    }
}
