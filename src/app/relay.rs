//! The relay of one node: the store, its feed, the fan-out, the sessions and the cluster, without listeners and transports. A gateway runs
//! it, and an application with its own Socket.IO server may run it, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{AppError, parts::Parts};
use crate::{
    auth::{Keys, TokenVerifier},
    cluster::{Cluster, Membership, NodeCommand, NodeReport},
    config::{ActivityConfig, Backend, Config, StoreConfig, Tokens},
    fanout::{Hub, Limits, run_feed_loop},
    feed::FeedItem,
    metrics::Metrics,
    reporting::{Reporting, ReportingSettings},
    session::{SessionPeer, SessionSettings, Sessions, SystemClock},
    store::{ActivityStore, EmbeddedStore, MeasuredStore, MongoStore, Store, StoreError},
};

/// The size of the ring of recent events, for handoffs and for clients that reconnect.
const RING_BYTES: usize = 64 * 1024 * 1024;
/// The limit of a client's overflow, as a multiple of `SEND_QUEUE`. Clients share the encoded messages.
const OVERFLOW_FACTOR: usize = 8;
/// The capacity of the queue of commands for this node.
const COMMAND_QUEUE: usize = 1024;
/// The capacity of the queue between the feed and the fan-out. Further changes wait in the store.
pub(super) const FEED_QUEUE: usize = 256;
const PREPARE_RETRY: Duration = Duration::from_secs(1);
const STORE_CHECK_INTERVAL: Duration = Duration::from_secs(2);
const OPLOG_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The parts of a relay that others use.
#[derive(Debug)]
pub struct Relay {
    /// The id of this node.
    pub node: String,
    pub sessions: Arc<Sessions>,
    pub metrics: Arc<Metrics>,
    pub(super) tokens: Arc<TokenVerifier>,
    pub(super) store: Arc<dyn Store>,
    /// `None` means that activity events are switched off.
    pub(super) reporting: Option<Arc<Reporting>>,
    pub(super) hub: Arc<Hub<SessionPeer>>,
    pub(super) cluster: Arc<Cluster>,
    /// The store has answered the last check.
    pub(super) store_ok: AtomicBool,
    /// The store is prepared, and its feed has begun.
    pub(super) prepared: AtomicBool,
    /// A weak sender, because this struct must not keep the queue open.
    pub(super) feed_queue: mpsc::WeakSender<FeedItem>,
}

/// A relay that was built and does not run yet.
#[derive(Debug)]
pub struct BuiltRelay {
    pub relay: Arc<Relay>,
    feed_sender: mpsc::Sender<FeedItem>,
    feed_receiver: mpsc::Receiver<FeedItem>,
    commands: mpsc::Receiver<NodeCommand>,
    membership: Option<Membership>,
    timeline_limit: usize,
}

impl Relay {
    /// Opens the store, and builds the parts around it.
    pub fn build(config: &Config, tokens: &Tokens) -> Result<BuiltRelay, AppError> {
        let tokens = Arc::new(tokens.verifier.clone());
        let metrics = Arc::<Metrics>::default();
        let OpenedStore { store, activity } = open_store(&config.store, metrics.clone())?;
        let reporting = reporting(&config.activity, activity, &metrics);
        let limits = Limits {
            ring_bytes: RING_BYTES,
            replay_events: config.limits.send_queue / 4,
            patience: config.limits.slow_client_timeout,
            behind_messages: config.limits.send_queue.saturating_mul(OVERFLOW_FACTOR),
        };
        let hub = Arc::new(Hub::new(limits, metrics.clone()));
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let revocations = tokens.revocations.clone();
        let started = Instant::now();
        let (cluster, membership) = match config.store.cluster.clone() {
            None => (Cluster::alone(revocations, command_sender, started), None),
            Some(redis) => {
                let max = config.limits.max_connections_per_user;
                let (cluster, membership) =
                    Cluster::with_redis(redis, max, revocations, command_sender, started);
                (cluster, Some(membership))
            }
        };
        let sessions = Arc::new(Sessions::new(
            SessionSettings { features: config.features.clone(), limits: config.limits.clone() },
            hub.clone(),
            store.clone(),
            tokens.clone(),
            cluster.clone(),
            Arc::new(SystemClock),
            metrics.clone(),
        ));
        let (feed_sender, feed_receiver) = mpsc::channel(FEED_QUEUE);
        let relay = Arc::new(Self {
            node: uuid::Uuid::new_v4().to_string(),
            sessions,
            metrics,
            tokens,
            store,
            reporting,
            hub,
            cluster,
            store_ok: AtomicBool::new(true),
            prepared: AtomicBool::new(false),
            feed_queue: feed_sender.downgrade(),
        });
        let timeline_limit = config.limits.timeline_limit;
        Ok(BuiltRelay { relay, feed_sender, feed_receiver, commands, membership, timeline_limit })
    }

    /// The report of this node for the other nodes.
    pub(super) fn own_report(&self) -> NodeReport {
        NodeReport {
            id: self.node.clone(),
            version: env!("TASKCAST_VERSION").to_owned(),
            connections: self.sessions.connected().0,
            lag_ms: self.lag_ms(),
        }
    }

    /// How far clients are behind the store: the lag of the last relayed change, or the lag of the store's feed if it is larger.
    pub(super) fn lag_ms(&self) -> u64 {
        let unread = self.store.stream().map_or(0, |stream| stream.lag.as_millis());
        self.hub.status().lag_ms.max(u64::try_from(unread).unwrap_or(u64::MAX))
    }

    /// Prepares the store, with retries while it is unavailable, and then follows it.
    async fn follow(
        &self,
        feed_sender: mpsc::Sender<FeedItem>,
        stop: CancellationToken,
    ) -> Result<(), AppError> {
        while let Err(error) = self.store.prepare().await {
            if !matches!(error, StoreError::Unavailable(_)) {
                return Err(error.into());
            }
            tracing::warn!(%error, "waiting for the store");
            self.store_ok.store(false, Ordering::Relaxed);
            tokio::time::sleep(PREPARE_RETRY).await;
        }
        self.prepared.store(true, Ordering::Relaxed);
        self.store.follow(feed_sender, stop).await?;
        self.store.close().await;
        Ok(())
    }

    /// Runs for ever.
    async fn watch_store(&self) {
        let mut interval = tokio::time::interval(STORE_CHECK_INTERVAL);
        loop {
            interval.tick().await;
            let ok = self.store.ping().await;
            if self.store_ok.swap(ok.is_ok(), Ordering::Relaxed) != ok.is_ok() {
                match ok {
                    Ok(()) => tracing::info!("the store answers again"),
                    Err(error) => tracing::warn!(%error, "the store does not answer"),
                }
            }
        }
    }

    /// Runs for ever. The store check must not wait for the oplog check, so they are two parts.
    async fn watch_oplog(&self) {
        let mut interval = tokio::time::interval(OPLOG_CHECK_INTERVAL);
        loop {
            interval.tick().await;
            self.metrics.store.set_oplog_window(self.store.oplog_window().await);
        }
    }
}

impl BuiltRelay {
    /// Runs the relay until a part fails, and returns why. If the caller drops the future, the relay ends.
    pub async fn run(self) -> AppError {
        let mut parts = Parts::default();
        self.start(&mut parts, CancellationToken::new());
        parts.first_end().await
    }

    /// Starts every part. The feed ends after `stop`.
    pub(super) fn start(self, parts: &mut Parts, stop: CancellationToken) {
        let Self { relay, feed_sender, feed_receiver, commands, membership, timeline_limit } = self;
        let (hub, sessions, tokens) = (relay.hub.clone(), relay.sessions.clone(), relay.tokens.clone());
        let (following, reporting, metrics) = (relay.clone(), relay.clone(), relay.metrics.clone());
        parts.spawn_fallible("the feed", async move { following.follow(feed_sender, stop).await });
        parts.spawn("the fan-out", async move {
            run_feed_loop(hub, feed_receiver, timeline_limit).await;
            // The fan-out ends after the feed, and the feed reports the reason.
            std::future::pending().await
        });
        let clock = sessions.clone();
        parts.spawn("the clock", async move { clock.run_timers().await });
        parts.spawn("the commands", async move { sessions.run_commands(commands).await });
        if let Keys::Fetched(keys) = &tokens.keys {
            let keys = keys.clone();
            parts.spawn("the keys", async move { keys.keep_fresh(&metrics.keys).await });
        }
        if let Some(membership) = membership {
            parts.spawn_fallible("the cluster", async move {
                Ok(membership.run(move || reporting.own_report()).await?)
            });
        }
        if let Some(reporting) = relay.reporting.clone() {
            parts.spawn("the cleanup of activity", async move { reporting.run_cleanup().await });
        }
        let oplog = relay.clone();
        parts.spawn("the oplog check", async move { oplog.watch_oplog().await });
        parts.spawn("the store check", async move { relay.watch_store().await });
    }
}

/// One store, as its users see it.
struct OpenedStore {
    store: Arc<dyn Store>,
    /// `None` means that this store has no activity events.
    activity: Option<Arc<dyn ActivityStore>>,
}

fn open_store(config: &StoreConfig, metrics: Arc<Metrics>) -> Result<OpenedStore, StoreError> {
    let (store, activity): (Arc<dyn Store>, Option<Arc<dyn ActivityStore>>) = match config.backend.clone() {
        Backend::Embedded(config) => {
            let store = Arc::new(EmbeddedStore::open(config)?);
            (store.clone(), Some(store))
        }
        Backend::Mongo(config) => (Arc::new(MongoStore::new(config)?), None),
    };
    Ok(OpenedStore { store: Arc::new(MeasuredStore { store, metrics }), activity })
}

fn reporting(
    config: &ActivityConfig,
    store: Option<Arc<dyn ActivityStore>>,
    metrics: &Arc<Metrics>,
) -> Option<Arc<Reporting>> {
    if !config.enabled {
        return None;
    }
    let Some(store) = store else {
        tracing::info!("activity events are switched off: with MongoDB, taskcast does not have them yet");
        return None;
    };
    let settings = ReportingSettings {
        retention: config.retention,
        high_volume_retention: config.high_volume_retention,
        rate_per_second: config.rate_per_second,
    };
    Some(Arc::new(Reporting::new(store, config.registry.clone(), settings, metrics.clone())))
}
