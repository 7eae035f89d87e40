//! The composition root: builds every part, gives it its dependencies, and runs them until the end.

mod status;

use std::{
    future::Future,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    address::Shares,
    auth::{Keys, SignError, UnixTime},
    cli,
    cluster::{Cluster, LinkError},
    config::{Backend, Config, DevSecretError, Origins, StoreConfig},
    edge::{Capacity, CorsRule, MemoryLimit, Newcomers, OriginRule, head_bytes},
    fanout::{Hub, Limits, pump},
    feed::FeedItem,
    http::{HttpState, Routes, Webhook, router},
    lifecycle::{Drain, Signals},
    metrics::Metrics,
    serve::{Doors, Idle, serve},
    session::{SessionSettings, Sessions, SystemClock},
    store::{EmbeddedStore, MeasuredStore, MongoStore, Store, StoreError},
    transport::socketio::{self, SocketIo, SocketIoRoutes},
};

use status::Status;

/// The size of the ring of recent events, for handoffs and for clients that reconnect.
const RING_BYTES: usize = 64 * 1024 * 1024;
/// How many packets may wait beside a client's full send queue, in lengths of that queue. These packets are shared with
/// all other clients.
const BEHIND_QUEUES: usize = 8;
/// The capacity of the queue of orders for this node.
const ORDER_QUEUE: usize = 1024;
/// The capacity of the queue between the feed and the fan-out. Further changes wait in the store.
const FEED_QUEUE: usize = 256;
const FEED_FAREWELL: Duration = Duration::from_secs(1);
const PREPARE_RETRY: Duration = Duration::from_secs(1);
/// How many connections may wait to be accepted. The system may lower the number (`net.core.somaxconn`). After a
/// restart all clients connect at once, and a connection that finds no slot is retried only after a second.
const BACKLOG: u32 = 65_535;
/// How many connections the operators' listener accepts. They use the reserve that is kept free of clients, because
/// metrics are needed most when no client can connect.
const ADMIN_CONNECTIONS: usize = 16;

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
    #[error("REDIS_URL: {0}")]
    Cluster(#[from] LinkError),
    #[error("a part that must run for ever has ended: {0}")]
    Ended(&'static str),
}

/// Runs the gateway until a signal ends it.
pub async fn run(config: Config) -> Result<(), AppError> {
    let mut signals = Signals::listen().map_err(AppError::Signals)?;
    let tokens = config.tokens()?;
    let verifier = Arc::new(tokens.verifier.clone());
    let metrics = Arc::<Metrics>::default();
    let store = open_store(&config.store, metrics.clone()).await?;
    let (listener, listening) = listen(config.server.host, config.server.port)?;
    let admin = match config.server.admin_port {
        Some(port) => Some(listen(config.server.host, port)?),
        None => None,
    };

    let limits = Limits {
        ring_bytes: RING_BYTES,
        replay_events: config.limits.send_queue / 4,
        patience: config.limits.slow_client_timeout,
        behind_messages: config.limits.send_queue.saturating_mul(BEHIND_QUEUES),
    };
    let hub = Arc::new(Hub::new(limits, metrics.clone()));
    let settings = SessionSettings { features: config.features.clone(), limits: config.limits.clone() };
    let (orders, ordered) = mpsc::channel(ORDER_QUEUE);
    let revocations = verifier.revocations.clone();
    let (cluster, membership) = match config.store.cluster.clone() {
        None => (Cluster::alone(revocations, orders), None),
        Some(redis) => {
            let max = config.limits.max_connections_per_user;
            let (cluster, membership) = Cluster::with_redis(redis, max, revocations, orders);
            (cluster, Some(membership))
        }
    };
    let sessions = Arc::new(Sessions::new(
        settings,
        hub.clone(),
        store.clone(),
        verifier.clone(),
        cluster.clone(),
        Arc::new(SystemClock),
        metrics.clone(),
    ));
    let newcomers = Arc::new(Newcomers::new(&config.limits));
    let server = Arc::new(SocketIo::new(
        sessions.clone(),
        config.heartbeat.clone(),
        &config.limits,
        newcomers.clone(),
        metrics.clone(),
    ));
    let draining = Arc::new(AtomicBool::new(false));
    let memory = MemoryLimit::of_this_process(config.limits.max_memory_bytes);
    if let Some(bytes) = memory.max() {
        metrics.process.set_memory_limit(bytes);
    }
    let capacity = Capacity::of_this_process(memory.clone());
    let (items, feed) = mpsc::channel(FEED_QUEUE);
    let status = Arc::new(Status {
        node: uuid::Uuid::new_v4().to_string(),
        sessions: sessions.clone(),
        newcomers: newcomers.clone(),
        cluster: cluster.clone(),
        hub: hub.clone(),
        capacity: capacity.clone(),
        feed_queue: items.downgrade(),
        metrics: metrics.clone(),
        tokens: verifier.clone(),
        store: store.clone(),
        store_ok: AtomicBool::new(true),
        prepared: AtomicBool::new(false),
        draining: draining.clone(),
    });
    let http = HttpState {
        store: store.clone(),
        tokens: verifier.clone(),
        task_api: config.features.task_api,
        status: status.clone(),
        cluster: cluster.clone(),
        webhook: Arc::new(Webhook::new(&config.webhook)),
        metrics: metrics.clone(),
        metrics_token: config.server.metrics_token.clone(),
    };
    let transports = socketio::routes(SocketIoRoutes {
        server: server.clone(),
        cors: CorsRule { origins: Arc::new(config.origins.clone()), credentials: true },
        origin: OriginRule {
            origins: config.origins.clone(),
            proxies: config.server.trusted_proxies.clone(),
            metrics: metrics.clone(),
        },
        draining: draining.clone(),
        capacity: capacity.clone(),
    });
    let (requests, connections) = (TaskTracker::new(), TaskTracker::new());
    let (idle, closing) = (Idle::default(), CancellationToken::new());
    let admin_doors = Doors {
        router: router(Routes::Admin, http.clone(), Origins::default(), requests.clone(), Router::new()),
        capacity: Capacity::up_to(ADMIN_CONNECTIONS, memory.clone()),
        shares: Shares::of(None),
        proxies: config.server.trusted_proxies.clone(),
        head_bytes: head_bytes(config.auth.max_token_bytes),
        stall_timeout: config.limits.slow_client_timeout,
        keep_alive: config.server.keep_alive,
        connections: connections.clone(),
        idle: Idle::default(),
        draining: draining.clone(),
        closing: closing.clone(),
        metrics: metrics.clone(),
    };
    let routes = if admin.is_some() { Routes::Public } else { Routes::All };
    let doors = Doors {
        router: router(routes, http, config.origins.clone(), requests.clone(), transports),
        capacity,
        shares: Shares::of(config.limits.max_unauthenticated_per_address),
        idle: idle.clone(),
        ..admin_doors.clone()
    };

    announce(&config, &tokens, listening)?;
    let stop = CancellationToken::new();
    let follow = follow(store, status.clone(), items, stop.clone());
    let mut parts = Parts::default();
    let timeline_limit = config.limits.timeline_limit;
    parts.run("the feed", follow);
    parts.run_forever("the fan-out", async move {
        pump(hub, feed, timeline_limit).await;
        // The fan-out ends after the feed, and the feed reports the reason.
        std::future::pending().await
    });
    parts.run_forever("the listener", listening_for_ever(listener, doors));
    if let Some((listener, address)) = admin {
        tracing::info!(%address, "listening for operators");
        parts.run_forever("the operators' listener", listening_for_ever(listener, admin_doors));
    }
    let clock = sessions.clone();
    parts.run_forever("the clock", async move { clock.keep_time().await });
    parts.run_forever("the orders", async move { sessions.carry_out(ordered).await });
    parts.run_forever("the limits of newcomers", async move { newcomers.keep_tidy().await });
    if let Keys::Fetched(keys) = &verifier.keys {
        let keys = keys.clone();
        parts.run_forever("the keys", async move { keys.keep_fresh(&metrics.keys).await });
    }
    if let Some(membership) = membership {
        let status = status.clone();
        parts.run("the cluster", async move { Ok(membership.run(move || status.own_report()).await?) });
    }
    parts.run_forever("the memory's check", memory.watch());
    let oplog = status.clone();
    parts.run_forever("the oplog's check", async move { oplog.watch_oplog().await });
    parts.run_forever("the store's check", async move { status.watch_store().await });

    tokio::select! {
        () = signals.next() => {}
        error = parts.first_end() => return Err(error),
    }
    let grace = config.server.shutdown_grace;
    let drain = Drain { draining, requests, idle, cluster, server, closing, connections, grace };
    tokio::select! {
        () = drain.run() => {}
        () = signals.next() => tracing::warn!("received a second signal: ending at once"),
        error = parts.first_end() => return Err(error),
    }
    // The feed stops only here, when every request that has come has been answered.
    stop.cancel();
    // The feed closes its cursor on the database server. The gateway does not wait for a server that is unreachable.
    let _ = tokio::time::timeout(FEED_FAREWELL, parts.first_end()).await;
    Ok(())
}

/// The listeners close when the drain ends. The process ends then, too.
async fn listening_for_ever(listener: TcpListener, doors: Doors) {
    serve(listener, doors).await;
    std::future::pending().await
}

fn listen(host: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), AppError> {
    let address = SocketAddr::new(host, port);
    let failed = |source| AppError::Listen { address, source };
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = open().map_err(failed)?;
    let listening = listener.local_addr().map_err(failed)?;
    Ok((listener, listening))
}

async fn open_store(config: &StoreConfig, metrics: Arc<Metrics>) -> Result<Arc<dyn Store>, StoreError> {
    let store: Arc<dyn Store> = match config.backend.clone() {
        Backend::Embedded(config) => Arc::new(EmbeddedStore::open(config)?),
        Backend::Mongo(config) => Arc::new(MongoStore::new(config)?),
    };
    Ok(Arc::new(MeasuredStore { store, metrics }))
}

/// Reports the gateway's address in the log, and for developers on stdout.
fn announce(config: &Config, tokens: &crate::config::Tokens, listening: SocketAddr) -> Result<(), AppError> {
    tracing::info!(address = %listening, version = env!("TASKCAST_VERSION"), "listening");
    if let Some(greeting) = cli::dev_greeting(config, tokens, listening, UnixTime::now())? {
        // The reader of stdout may have closed it.
        let _ = writeln!(io::stdout(), "{greeting}");
    }
    Ok(())
}

/// Prepares the store, with retries while it is unavailable, and then follows it.
async fn follow(
    store: Arc<dyn Store>,
    status: Arc<Status>,
    items: mpsc::Sender<FeedItem>,
    stop: CancellationToken,
) -> Result<(), AppError> {
    while let Err(error) = store.prepare().await {
        if !matches!(error, StoreError::Unavailable(_)) {
            return Err(error.into());
        }
        tracing::warn!(%error, "waiting for the store");
        status.store_ok.store(false, Ordering::Relaxed);
        tokio::time::sleep(PREPARE_RETRY).await;
    }
    status.prepared.store(true, Ordering::Relaxed);
    store.follow(items, stop).await?;
    store.close().await;
    Ok(())
}

/// The tasks that must run until the process ends.
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
