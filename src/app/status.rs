//! The state of this node, for `/api/health`, `/metrics` and the other nodes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::relay::{FEED_QUEUE, Relay};
use crate::{
    auth::Keys,
    edge::{Capacity, UnauthenticatedLimits},
    http::{
        ClusterHealth, GatewayStatus, HealthReport, NodeHealth, RelayHealth, StoreHealth, WebsocketHealth,
    },
    metrics::{Metrics, Phase},
};

/// The source of everything that `/api/health` and `/metrics` report.
#[derive(Debug)]
pub(super) struct Status {
    pub relay: Arc<Relay>,
    pub unauthenticated_limits: Arc<UnauthenticatedLimits>,
    pub capacity: Capacity,
    pub draining: Arc<AtomicBool>,
}

impl Status {
    fn phase(&self) -> Phase {
        let store_ok = self.relay.store_ok.load(Ordering::Relaxed);
        if self.draining.load(Ordering::Relaxed) {
            Phase::Draining
        } else if store_ok && !self.relay.prepared.load(Ordering::Relaxed) {
            Phase::Starting
        } else if store_ok
            && self.relay.cluster.is_connected()
            && self.relay.hub.status().open
            && self.relay.tokens.keys.are_known()
        {
            Phase::Ok
        } else {
            Phase::Degraded
        }
    }
}

impl GatewayStatus for Status {
    fn measure(&self) {
        self.relay.sessions.measure();
        self.relay.hub.measure();
        let Metrics { clients, relay, store, cluster, process, keys, .. } = &*self.relay.metrics;
        clients.unauthenticated.set(self.unauthenticated_limits.count() as u64);
        clients.connection_slots_used.set(self.capacity.open() as u64);
        clients.connection_slots.set(self.capacity.max() as u64);
        relay.feed_queue_max.set(FEED_QUEUE as u64);
        relay.lag_seconds.set(self.relay.lag_ms() as f64 / 1000.0);
        if let Some(queue) = self.relay.feed_queue.upgrade() {
            relay.feed_queue.set((FEED_QUEUE - queue.capacity()) as u64);
        }
        store.up.set(self.relay.store_ok.load(Ordering::Relaxed).into());
        if let Some(stream) = self.relay.store.stream() {
            store.set_stream(stream.restarts, stream.token_age, stream.lag);
            store.set_ambiguous_ids(self.relay.store.ambiguous_ids());
        }
        if let Some(lost) = self.relay.cluster.redis_lost() {
            cluster.set_redis(self.relay.cluster.is_connected(), lost);
        }
        cluster.nodes.set(self.relay.cluster.nodes(self.relay.own_report()).len() as u64);
        if let Keys::Fetched(fetched) = &self.relay.tokens.keys {
            keys.set_age(fetched.age());
            keys.waiting.set(fetched.waiting() as u64);
        }
        process.set_status(self.phase());
    }

    fn report(&self) -> HealthReport {
        let hub = self.relay.hub.status();
        let (connections, connected_users) = self.relay.sessions.connected();
        HealthReport {
            status: self.phase(),
            websocket: WebsocketHealth {
                connected_users,
                connections,
                messages_per_second: self.relay.sessions.messages_per_second(),
                total_errors: self.relay.sessions.total_errors(),
            },
            relay: RelayHealth {
                lag_ms: self.relay.lag_ms(),
                epoch: hub.epoch,
                last_event_id: hub.open.then(|| hub.position.to_string()),
            },
            store: StoreHealth {
                kind: self.relay.store.kind(),
                ok: self.relay.store_ok.load(Ordering::Relaxed),
            },
            cluster: ClusterHealth {
                ok: self.relay.cluster.is_connected(),
                nodes: self
                    .relay
                    .cluster
                    .nodes(self.relay.own_report())
                    .into_iter()
                    .map(NodeHealth::from)
                    .collect(),
            },
        }
    }
}
