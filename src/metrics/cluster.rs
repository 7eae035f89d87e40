//! Metrics of the connection to Redis and of the other nodes.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::labelled::{Level, counter, gauge};

#[derive(Debug)]
pub struct ClusterMetrics {
    /// NaN means that there is no Redis.
    redis_up: Gauge<f64, AtomicU64>,
    redis_lost: Counter,
    pub nodes: Level,
}

impl ClusterMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let redis_up = Gauge::<f64, AtomicU64>::default();
        redis_up.set(f64::NAN);
        registry.register(
            "redis_up",
            "1 while this node is connected to Redis; NaN without REDIS_URL",
            redis_up.clone(),
        );
        Self {
            redis_up,
            redis_lost: counter(
                registry,
                "redis_lost",
                "Times that the connection to Redis was lost, or was closed to open a new one",
            ),
            nodes: gauge(registry, "cluster_nodes", "Live nodes that this one knows of, itself included"),
        }
    }

    pub fn set_redis(&self, up: bool, lost: u64) {
        self.redis_up.set(up.into());
        // Two scrapes at the same time must not both add the new losses.
        self.redis_lost.inner().fetch_max(lost, Ordering::Relaxed);
    }
}
