//! The state of this node, for `/api/health`, `/metrics` and the other nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use super::FEED_QUEUE;
use crate::{
    auth::{Keys, TokenVerifier},
    cluster::{Cluster, NodeReport},
    edge::{Capacity, Newcomers},
    fanout::Hub,
    feed::FeedItem,
    http::{
        ClusterHealth, GatewayStatus, HealthReport, NodeHealth, Phase, RelayHealth, StoreHealth,
        WebsocketHealth,
    },
    metrics::Metrics,
    session::{SessionPeer, Sessions},
    store::Store,
};

const STORE_CHECK_EVERY: Duration = Duration::from_secs(2);
const OPLOG_CHECK_EVERY: Duration = Duration::from_secs(60);

/// The source of everything that `/api/health` and `/metrics` report.
#[derive(Debug)]
pub(super) struct Status {
    pub node: String,
    pub sessions: Arc<Sessions>,
    pub newcomers: Arc<Newcomers>,
    pub cluster: Arc<Cluster>,
    pub hub: Arc<Hub<SessionPeer>>,
    pub capacity: Capacity,
    /// A weak sender, because this struct must not keep the queue open.
    pub feed_queue: mpsc::WeakSender<FeedItem>,
    pub metrics: Arc<Metrics>,
    pub tokens: Arc<TokenVerifier>,
    pub store: Arc<dyn Store>,
    pub store_ok: AtomicBool,
    pub prepared: AtomicBool,
    pub draining: Arc<AtomicBool>,
}

impl Status {
    /// Runs for ever.
    pub async fn watch_store(&self) {
        let mut every = tokio::time::interval(STORE_CHECK_EVERY);
        loop {
            every.tick().await;
            let ok = self.store.ping().await;
            if self.store_ok.swap(ok.is_ok(), Ordering::Relaxed) != ok.is_ok() {
                match ok {
                    Ok(()) => tracing::info!("the store answers again"),
                    Err(error) => tracing::warn!(%error, "the store does not answer"),
                }
            }
        }
    }

    /// The report of this node for the other nodes.
    pub fn own_report(&self) -> NodeReport {
        NodeReport {
            id: self.node.clone(),
            version: env!("TASKCAST_VERSION").to_owned(),
            connections: self.sessions.connected().0,
            lag_ms: self.lag_ms(),
        }
    }

    /// How far clients are behind the store: the lag of the last relayed change, or the lag of the store's feed if it
    /// is larger.
    fn lag_ms(&self) -> u64 {
        let unread = self.store.stream().map_or(0, |stream| stream.lag.as_millis());
        self.hub.status().lag_ms.max(u64::try_from(unread).unwrap_or(u64::MAX))
    }

    /// Runs for ever. It is separate from the check of the store, which must not wait for it.
    pub async fn watch_oplog(&self) {
        let mut every = tokio::time::interval(OPLOG_CHECK_EVERY);
        loop {
            every.tick().await;
            self.metrics.store.set_oplog_window(self.store.oplog_window().await);
        }
    }

    fn phase(&self) -> Phase {
        let store_ok = self.store_ok.load(Ordering::Relaxed);
        if self.draining.load(Ordering::Relaxed) {
            Phase::Draining
        } else if store_ok && !self.prepared.load(Ordering::Relaxed) {
            Phase::Starting
        } else if store_ok && self.cluster.is_well() && self.hub.status().open && self.tokens.keys.are_known()
        {
            Phase::Ok
        } else {
            Phase::Degraded
        }
    }
}

impl GatewayStatus for Status {
    fn measure(&self) {
        self.sessions.measure();
        self.hub.measure();
        let Metrics { clients, relay, store, cluster, process, keys, .. } = &*self.metrics;
        clients.newcomers.set(self.newcomers.count() as u64);
        clients.places_taken.set(self.capacity.open() as u64);
        clients.places.set(self.capacity.max() as u64);
        relay.feed_queue_max.set(FEED_QUEUE as u64);
        relay.lag_seconds.set(self.lag_ms() as f64 / 1000.0);
        if let Some(queue) = self.feed_queue.upgrade() {
            relay.feed_queue.set((FEED_QUEUE - queue.capacity()) as u64);
        }
        store.up.set(self.store_ok.load(Ordering::Relaxed).into());
        if let Some(stream) = self.store.stream() {
            store.set_stream(stream.restarts, stream.token_age, stream.lag);
            store.set_ambiguous_ids(self.store.ambiguous_ids());
        }
        if let Some(lost) = self.cluster.redis_lost() {
            cluster.set_redis(self.cluster.is_well(), lost);
        }
        cluster.nodes.set(self.cluster.nodes(self.own_report()).len() as u64);
        if let Keys::Fetched(fetched) = &self.tokens.keys {
            keys.set_age(fetched.age());
            keys.waiting.set(fetched.waiting() as u64);
        }
        process.set_status(self.phase().as_str());
    }

    fn report(&self) -> HealthReport {
        let hub = self.hub.status();
        let (connections, connected_users) = self.sessions.connected();
        HealthReport {
            status: self.phase(),
            websocket: WebsocketHealth {
                connected_users,
                connections,
                messages_per_second: self.sessions.messages_per_second(),
                total_errors: self.sessions.total_errors(),
            },
            relay: RelayHealth {
                lag_ms: self.lag_ms(),
                epoch: hub.epoch,
                last_event_id: hub.open.then(|| hub.position.to_string()),
            },
            store: StoreHealth { kind: self.store.kind(), ok: self.store_ok.load(Ordering::Relaxed) },
            cluster: ClusterHealth {
                ok: self.cluster.is_well(),
                nodes: self.cluster.nodes(self.own_report()).into_iter().map(NodeHealth::from).collect(),
            },
        }
    }
}
