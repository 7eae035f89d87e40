//! The composition root: builds every part, gives it its dependencies, and runs them until the end.

mod parts;
mod relay;
mod status;

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[cfg(feature = "socketioxide")]
use crate::transport::socketioxide::{self, SocketIoxide};
use crate::{
    address::Quotas,
    auth::{SignError, UnixTime},
    cli,
    cluster::LinkError,
    config::{Config, DevSecretError, Origins},
    edge::{Capacity, CorsRule, MemoryLimit, OriginRule, UnauthenticatedLimits, head_bytes},
    http::{HttpState, Routes, Webhook, router},
    lifecycle::{Drain, Signals},
    serve::{IdleConnections, ListenerContext, serve},
    session::Sessions,
    store::{BatchedReads, StoreError},
    transport::{
        Gate, Server,
        json::{self, PlainWebsocket},
        socketio::{self, SocketIo},
    },
};

use parts::Parts;
pub use relay::{BuiltRelay, Relay};
use status::Status;

const FEED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How many connections may wait to be accepted. The system may lower the number (`net.core.somaxconn`). After a
/// restart all clients connect at once, and a connection that finds the backlog full is retried only after a second.
const BACKLOG: u32 = 65_535;
/// How many connections the operators' listener accepts. They use some of the file descriptors that clients cannot take, because
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
    #[error("a part that must run for ever has panicked: {0}")]
    Panicked(&'static str),
}

/// Runs the gateway until a signal ends it.
pub async fn run(config: Config) -> Result<(), AppError> {
    let mut signals = Signals::listen().map_err(AppError::Signals)?;
    let tokens = config.tokens()?;
    let built = Relay::build(&config, &tokens)?;
    let relay = built.relay.clone();
    let metrics = relay.metrics.clone();
    let (listener, listening) = listen(config.server.host, config.server.port)?;
    let admin = match config.server.admin_port {
        Some(port) => Some(listen(config.server.host, port)?),
        None => None,
    };

    let unauthenticated_limits = Arc::new(UnauthenticatedLimits::new(&config.limits));
    let draining = Arc::new(AtomicBool::new(false));
    let memory = MemoryLimit::for_this_process(config.limits.max_memory_bytes);
    if let Some(bytes) = memory.max() {
        metrics.process.set_memory_limit(bytes);
    }
    let capacity = Capacity::for_this_process(memory.clone());
    let status = Arc::new(Status {
        relay: relay.clone(),
        unauthenticated_limits: unauthenticated_limits.clone(),
        capacity: capacity.clone(),
        draining: draining.clone(),
    });
    let http = HttpState {
        store: relay.store.clone(),
        reads: Arc::new(BatchedReads::new(relay.store.clone())),
        tokens: relay.tokens.clone(),
        task_api: config.features.task_api,
        reporting: relay.reporting.clone(),
        status,
        cluster: relay.cluster.clone(),
        webhook: Arc::new(Webhook::new(&config.webhook)),
        metrics: metrics.clone(),
        metrics_token: config.server.metrics_token.clone(),
    };
    let gate = Gate {
        cors: CorsRule { origins: Arc::new(config.origins.clone()), credentials: true },
        origin: OriginRule {
            origins: config.origins.clone(),
            proxies: config.server.trusted_proxies.clone(),
            metrics: metrics.clone(),
        },
        unauthenticated_limits: unauthenticated_limits.clone(),
        draining: draining.clone(),
        capacity: capacity.clone(),
        metrics: metrics.clone(),
    };
    let (socket_io, socket_io_routes) = socket_io(&config, &relay.sessions, gate.clone());
    let (plain, plain_routes) = plain_websocket(&config, &relay.sessions, gate);
    let (servers, transports) = (vec![socket_io, plain], socket_io_routes.merge(plain_routes));
    let (requests, connections) = (TaskTracker::new(), TaskTracker::new());
    let (idle, closing) = (IdleConnections::default(), CancellationToken::new());
    let admin_context = ListenerContext {
        router: router(Routes::Admin, http.clone(), Origins::default(), requests.clone(), Router::new()),
        capacity: Capacity::new(ADMIN_CONNECTIONS, memory.clone()),
        quotas: Quotas::new(None),
        proxies: config.server.trusted_proxies.clone(),
        head_bytes: head_bytes(config.auth.max_token_bytes),
        stall_timeout: config.limits.slow_client_timeout,
        keep_alive: config.server.keep_alive,
        connections: connections.clone(),
        idle: IdleConnections::default(),
        draining: draining.clone(),
        closing: closing.clone(),
        metrics: metrics.clone(),
    };
    let routes = if admin.is_some() { Routes::Public } else { Routes::All };
    let context = ListenerContext {
        router: router(routes, http, config.origins.clone(), requests.clone(), transports),
        capacity,
        quotas: Quotas::new(config.limits.max_unauthenticated_per_address),
        idle: idle.clone(),
        ..admin_context.clone()
    };

    announce(&config, &tokens, listening)?;
    let stop = CancellationToken::new();
    let mut parts = Parts::default();
    built.start(&mut parts, stop.clone());
    parts.spawn("the listener", serve_forever(listener, context));
    if let Some((listener, address)) = admin {
        tracing::info!(%address, "listening for operators");
        parts.spawn("the operators' listener", serve_forever(listener, admin_context));
    }
    parts.spawn("the cleanup of unauthenticated limits", async move {
        unauthenticated_limits.run_cleanup().await
    });
    parts.spawn("the memory check", memory.watch());

    tokio::select! {
        () = signals.next() => {}
        error = parts.first_end() => return Err(error),
    }
    let grace = config.server.shutdown_grace;
    let cluster = relay.cluster.clone();
    let drain = Drain { draining, requests, idle, cluster, servers, closing, connections, grace };
    tokio::select! {
        () = drain.run() => {}
        () = signals.next() => tracing::warn!("received a second signal: ending at once"),
        error = parts.first_end() => return Err(error),
    }
    // The feed stops only here, when every request that has come has been answered.
    stop.cancel();
    // The feed closes its cursor on the database server. The gateway does not wait for a server that is unreachable.
    let _ = tokio::time::timeout(FEED_CLOSE_TIMEOUT, parts.first_end()).await;
    Ok(())
}

/// Builds the configured implementation of Socket.IO, and its routes.
fn socket_io(config: &Config, sessions: &Arc<Sessions>, gate: Gate) -> (Arc<dyn Server>, Router) {
    let heartbeat = config.heartbeat.clone();
    match config.server.transport {
        #[cfg(feature = "socketioxide")]
        crate::config::SocketIoTransport::Socketioxide => {
            let server = SocketIoxide::new(sessions.clone(), &heartbeat);
            (server.attached.clone(), socketioxide::routes(server, gate))
        }
        _ => {
            let server =
                Arc::new(SocketIo::new(sessions.clone(), heartbeat, gate.unauthenticated_limits.clone()));
            (server.clone(), socketio::routes(server, gate))
        }
    }
}

/// Builds the server of `/ws`, and its route.
fn plain_websocket(config: &Config, sessions: &Arc<Sessions>, gate: Gate) -> (Arc<dyn Server>, Router) {
    let server = Arc::new(PlainWebsocket::new(
        sessions.clone(),
        config.features.plain_websocket,
        config.plain_heartbeat.clone(),
        gate.unauthenticated_limits.clone(),
    ));
    (server.clone(), json::routes(server, gate))
}

/// `serve` returns when the listener closes. [`Parts`] treats a return as a failure, so this function then waits for ever.
async fn serve_forever(listener: TcpListener, context: ListenerContext) {
    serve(listener, context).await;
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

/// Reports the gateway's address in the log, and for developers on stdout.
fn announce(config: &Config, tokens: &crate::config::Tokens, listening: SocketAddr) -> Result<(), AppError> {
    tracing::info!(address = %listening, version = env!("TASKCAST_VERSION"), "listening");
    if let Some(greeting) = cli::dev_greeting(config, tokens, listening, UnixTime::now())? {
        // The reader of stdout may have closed it.
        let _ = writeln!(io::stdout(), "{greeting}");
    }
    Ok(())
}
