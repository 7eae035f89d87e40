//! The composition root: builds every part, gives it its dependencies, and runs them until the end.

use std::{
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{SignError, UnixTime},
    cli,
    config::{Backend, Config, DevSecretError, StoreConfig},
    fanout::{Hub, Limits, pump},
    gateway::{Capacity, Edge, Gateway, GatewaySettings, SocketPeer},
    http::{
        ClusterHealth, GatewayStatus, HealthReport, HttpState, NodeHealth, Phase, RelayHealth, StoreHealth,
        WebsocketHealth, router,
    },
    lifecycle::{Drain, Signals},
    serve::{Doors, serve},
    store::{EmbeddedStore, MongoStore, Store, StoreError},
};

/// The last events, for handoffs and for clients that come back.
const RING_BYTES: usize = 64 * 1024 * 1024;
/// Between the feed and the fan-out; more waits in the store.
const FEED_QUEUE: usize = 256;
const FEED_FAREWELL: Duration = Duration::from_secs(1);
const PREPARE_RETRY: Duration = Duration::from_secs(1);
const STORE_CHECK_EVERY: Duration = Duration::from_secs(2);

/// Why the gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("the development secret can't be used: {0}")]
    DevSecret(#[from] DevSecretError),
    #[error("the development token can't be signed: {0}")]
    DevToken(#[from] SignError),
    #[error("can't listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("can't listen for signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a part that must run for ever has ended: {0}")]
    Ended(&'static str),
}

/// Runs the gateway until a signal ends it.
pub async fn run(config: Config) -> Result<(), AppError> {
    let mut signals = Signals::listen().map_err(AppError::Signals)?;
    let tokens = config.tokens()?;
    let verifier = Arc::new(tokens.verifier.clone());
    let store = open_store(&config.store).await?;
    let address = SocketAddr::new(config.server.host, config.server.port);
    let listen_error = |source| AppError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen_error)?;
    let listening = listener.local_addr().map_err(listen_error)?;

    let limits = Limits { ring_bytes: RING_BYTES, replay_events: config.limits.send_queue / 4 };
    let hub = Arc::new(Hub::new(limits));
    let settings = GatewaySettings {
        features: config.features.clone(),
        limits: config.limits.clone(),
        heartbeat: config.heartbeat.clone(),
    };
    let gateway = Gateway::new(settings, hub.clone(), store.clone(), verifier.clone());
    let draining = Arc::new(AtomicBool::new(false));
    let status = Arc::new(Status {
        node: uuid::Uuid::new_v4().to_string(),
        gateway: gateway.clone(),
        hub: hub.clone(),
        store: store.clone(),
        store_ok: AtomicBool::new(true),
        prepared: AtomicBool::new(false),
        draining: draining.clone(),
    });
    let origins: Vec<String> = config.origins.iter().map(str::to_owned).collect();
    let http = router(
        HttpState {
            store: store.clone(),
            tokens: verifier,
            task_api: config.features.task_api,
            status: status.clone(),
        },
        &origins,
    );
    let capacity = Capacity::of_this_process();
    let edge = Edge::new(
        gateway.clone(),
        config.origins.clone(),
        config.server.trusted_proxies.clone(),
        draining.clone(),
        capacity.clone(),
    );
    let requests = TaskTracker::new();
    let doors = Doors {
        edge,
        http,
        capacity,
        stall_timeout: config.limits.slow_client_timeout,
        requests: requests.clone(),
    };

    announce(&config, &tokens, listening)?;
    let stop = CancellationToken::new();
    let (items, feed) = mpsc::channel(FEED_QUEUE);
    let last = store.clone();
    let follow = follow(store, status.clone(), items, stop.clone());
    let mut parts = Parts::default();
    parts.run("the feed", follow);
    parts.run_forever("the fan-out", async move {
        pump(hub, feed).await;
        // Its end follows that of the feed, which says why.
        std::future::pending().await
    });
    parts.run_forever("the listener", serve(listener, doors));
    let clock = gateway.clone();
    parts.run_forever("the clock", async move { clock.keep_time().await });
    parts.run_forever("the store's check", async move { status.watch_store().await });

    tokio::select! {
        () = signals.next() => {}
        error = parts.first_end() => return Err(error),
    }
    let drain = Drain { draining, requests, gateway, grace: config.server.shutdown_grace };
    tokio::select! {
        () = drain.run() => {}
        () = signals.next() => tracing::warn!("a second signal: ending at once"),
        error = parts.first_end() => return Err(error),
    }
    stop.cancel();
    // The feed gives back what it holds on the server; a server that is away is not waited for.
    let farewell = async {
        parts.first_end().await;
        last.close().await;
    };
    let _ = tokio::time::timeout(FEED_FAREWELL, farewell).await;
    Ok(())
}

async fn open_store(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config.backend.clone() {
        Backend::Embedded(config) => Arc::new(EmbeddedStore::open(config)?),
        Backend::Mongo(config) => Arc::new(MongoStore::new(config)?),
    })
}

/// Where the gateway is, for people on stdout and for logs.
fn announce(config: &Config, tokens: &crate::config::Tokens, listening: SocketAddr) -> Result<(), AppError> {
    tracing::info!(address = %listening, version = env!("CARGO_PKG_VERSION"), "listening");
    if let Some(greeting) = cli::dev_greeting(config, tokens, listening, UnixTime::now())? {
        // Whoever started it may not be reading.
        let _ = writeln!(io::stdout(), "{greeting}");
    }
    Ok(())
}

/// Prepares the store, as often as it takes, then follows it.
async fn follow(
    store: Arc<dyn Store>,
    status: Arc<Status>,
    items: mpsc::Sender<crate::feed::FeedItem>,
    stop: CancellationToken,
) -> Result<(), AppError> {
    while let Err(error) = store.prepare().await {
        if !error.is_passing() {
            return Err(error.into());
        }
        tracing::warn!(%error, "waiting for the store");
        status.store_ok.store(false, Ordering::Relaxed);
        tokio::time::sleep(PREPARE_RETRY).await;
    }
    status.prepared.store(true, Ordering::Relaxed);
    Ok(store.follow(items, stop).await?)
}

/// The parts that must not end before the process does.
#[derive(Debug, Default)]
struct Parts(tokio::task::JoinSet<AppError>);

impl Parts {
    fn run(&mut self, name: &'static str, part: impl Future<Output = Result<(), AppError>> + Send + 'static) {
        self.0.spawn(async move { part.await.err().unwrap_or(AppError::Ended(name)) });
    }

    fn run_forever(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.run(name, async {
            part.await;
            Ok(())
        });
    }

    async fn first_end(&mut self) -> AppError {
        match self.0.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(_)) | None => AppError::Ended("it panicked"),
        }
    }
}

/// What `/api/health` tells.
#[derive(Debug)]
struct Status {
    node: String,
    gateway: Arc<Gateway>,
    hub: Arc<Hub<SocketPeer>>,
    store: Arc<dyn Store>,
    store_ok: AtomicBool,
    prepared: AtomicBool,
    draining: Arc<AtomicBool>,
}

impl Status {
    /// Runs for ever.
    async fn watch_store(&self) {
        let mut every = tokio::time::interval(STORE_CHECK_EVERY);
        loop {
            every.tick().await;
            let ok = self.store.ping().await;
            if self.store_ok.swap(ok.is_ok(), Ordering::Relaxed) != ok.is_ok() {
                match ok {
                    Ok(()) => tracing::info!("the store is back"),
                    Err(error) => tracing::warn!(%error, "the store is away"),
                }
            }
        }
    }
}

impl GatewayStatus for Status {
    fn report(&self) -> HealthReport {
        let hub = self.hub.status();
        let store_ok = self.store_ok.load(Ordering::Relaxed);
        let (connections, connected_users) = self.gateway.connected();
        let status = if self.draining.load(Ordering::Relaxed) {
            Phase::Draining
        } else if store_ok && !self.prepared.load(Ordering::Relaxed) {
            Phase::Starting
        } else if store_ok && hub.open {
            Phase::Ok
        } else {
            Phase::Degraded
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        HealthReport {
            status,
            websocket: WebsocketHealth {
                connected_users,
                connections,
                messages_per_second: self.gateway.messages_per_second(),
                total_errors: self.gateway.total_errors(),
            },
            relay: RelayHealth {
                lag_ms: hub.lag_ms,
                epoch: hub.epoch,
                last_event_id: hub.open.then(|| hub.position.to_string()),
            },
            store: StoreHealth { kind: self.store.kind(), ok: store_ok },
            cluster: ClusterHealth {
                ok: true,
                nodes: vec![NodeHealth { id: self.node.clone(), version, connections, lag_ms: hub.lag_ms }],
            },
        }
    }
}
