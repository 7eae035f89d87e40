//! What this node has of the others, through Redis.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::labelled::{Level, counter, gauge};

#[derive(Debug)]
pub struct ClusterMetrics {
    /// NaN: there is no Redis to be connected to.
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
            "1 while Redis hears this node and is heard; NaN without REDIS_URL",
            redis_up.clone(),
        );
        Self {
            redis_up,
            redis_lost: counter(
                registry,
                "redis_lost",
                "Times that the connection to Redis was lost, or was given up to begin a new one",
            ),
            nodes: gauge(registry, "cluster_nodes", "Live nodes that this one knows of, itself included"),
        }
    }

    pub fn set_redis(&self, up: bool, lost: u64) {
        self.redis_up.set(up.into());
        // Two scrapes at once must not both add what is new.
        self.redis_lost.inner().fetch_max(lost, Ordering::Relaxed);
    }
}
