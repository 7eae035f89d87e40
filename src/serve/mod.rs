//! Accepts connections, and hands their requests to the router. With `ADMIN_PORT`, another listener serves operators.

mod connection;
mod idle_connections;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::body::Incoming;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    address::{ClientAddress, QuotaPermit, Quotas},
    config::TrustedProxies,
    edge::{Capacity, PeerIp, Slot},
    metrics::{Metrics, RejectReason},
    rate_limited_log::rate_limited_log,
    transport::{TcpConnection, TcpHandle},
};

use connection::serve_connection;
pub use idle_connections::IdleConnections;

/// The pause after a failed accept. The usual cause is that no file descriptor is left, and one is soon free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything that a listener needs to serve its connections.
#[derive(Clone, Debug)]
pub struct ListenerContext {
    pub router: Router,
    pub capacity: Capacity,
    /// How many connections without a token each address may have.
    pub quotas: Quotas,
    pub proxies: TrustedProxies,
    /// The limit for a request's line and headers, together with the bytes behind them that are already read.
    pub head_bytes: usize,
    /// A peer that reads nothing for this long is disconnected.
    pub stall_timeout: Duration,
    /// An HTTP connection that waits this long for its next request is closed.
    pub keep_alive: Duration,
    /// Listeners and HTTP connections. A connection that becomes a WebSocket is no longer counted here.
    pub connections: TaskTracker,
    /// Connections that wait for their next request.
    pub idle: IdleConnections,
    /// During shutdown, each answer is the last one of its connection.
    pub draining: Arc<AtomicBool>,
    /// After this, no new connection is accepted, and a connection ends as soon as it has no request to answer.
    pub closing: CancellationToken,
    pub metrics: Arc<Metrics>,
}

/// Accepts connections until `closing`, and then those that clients had opened by that moment.
pub async fn serve(listener: TcpListener, context: ListenerContext) {
    // A task that waits for the end of all connections also waits for those that are still to be accepted.
    let _accepting = context.connections.token();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = context.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &context).await,
            Err(error) => log_accept_error(&error).await,
        }
    }
    accept_pending(listener, &context).await;
}

/// The kernel may hold connections that the server has not accepted yet, and their requests may have come. Closing the listener would
/// reset them, so this function accepts them. From now on the kernel admits no new client.
async fn accept_pending(listener: TcpListener, context: &ListenerContext) {
    if SockRef::from(&listener).listen(0).is_err() {
        return;
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            admit(stream, peer, context).await;
        }
    }
}

async fn admit(stream: TcpStream, peer: SocketAddr, context: &ListenerContext) {
    let Some(slot) = take_slot(context) else {
        // The server accepts the connection and closes it at once, because a client would wait for a connection that is not accepted.
        drop(stream);
        context.metrics.clients.rejected.inc(RejectReason::Capacity);
        let max = context.capacity.max();
        rate_limited_log!(warn, max, "no room for more connections: raise the limit of open files");
        return;
    };
    // A proxy's connections carry many clients, so the limit per address does not apply.
    let quota_permit = match context.proxies.contains(peer.ip()) {
        true => None,
        false => match take_quota_permit(context, ClientAddress::of_peer(peer.ip())) {
            Some(quota_permit) => Some(quota_permit),
            None => {
                context.metrics.clients.rejected.inc(RejectReason::Address);
                rate_limited_log!(warn, "closed connections: one address has too many without a token");
                return;
            }
        },
    };
    match TcpConnection::accept(stream, context.stall_timeout) {
        Ok(connection) => {
            let connection = connection.with_slot(slot, quota_permit, context.metrics.clone());
            context.connections.spawn(serve_connection(connection, peer, context.clone()));
        }
        Err(error) => log_accept_error(&error).await,
    }
}

/// Takes a slot for a connection. If few slots are left, this function closes an idle connection.
fn take_slot(context: &ListenerContext) -> Option<Slot> {
    if context.capacity.is_scarce() && context.idle.close_oldest_unauthenticated() {
        context.metrics.clients.rejected.inc(RejectReason::Idle);
    }
    context.capacity.take().or_else(|| {
        // The slot becomes free only when the task of the closed connection ends, so a later connection gets it.
        if context.idle.close_one() {
            context.metrics.clients.rejected.inc(RejectReason::Idle);
        }
        None
    })
}

/// Takes a permit from the quota of an address for connections without a token. If the quota is used up, this function closes an idle
/// connection of the address and takes over its permit.
fn take_quota_permit(context: &ListenerContext, address: ClientAddress) -> Option<QuotaPermit> {
    context.quotas.take(address, 1).or_else(|| {
        let quota_permit = context.idle.close_oldest_of(address)?;
        context.metrics.clients.rejected.inc(RejectReason::Idle);
        Some(quota_permit)
    })
}

async fn log_accept_error(error: &io::Error) {
    if is_connection_error(error) {
        rate_limited_log!(debug, %error, "a connection ended before it was accepted");
    } else {
        rate_limited_log!(warn, %error, "could not accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn respond(
    context: ListenerContext,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    tcp: TcpHandle,
) -> Response<Body> {
    let address = ClientAddress::of_request(peer.ip(), request.headers(), &context.proxies);
    let extensions = request.extensions_mut();
    extensions.insert(address);
    extensions.insert(PeerIp(peer.ip()));
    extensions.insert(tcp);
    match context.router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
