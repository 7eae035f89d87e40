//! Accepts connections, and hands their requests to the router. With `ADMIN_PORT`, another listener serves operators.

mod connection;
mod idle;

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
    address::{ClientAddress, Share, Shares},
    config::TrustedProxies,
    edge::{Capacity, PeerIp, Slot},
    metrics::Metrics,
    rate_limited_log::rate_limited_log,
    transport::{TcpConnection, TcpHandle},
};

use connection::serve_connection;
pub use idle::Idle;

/// The pause after a failed accept. The usual cause is that no file descriptor is left, and one is soon free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything that a listener needs to serve its connections.
#[derive(Clone, Debug)]
pub struct Doors {
    pub router: Router,
    pub capacity: Capacity,
    /// How many connections without a token each address may have.
    pub shares: Shares,
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
    pub idle: Idle,
    /// During shutdown, each answer is the last one of its connection.
    pub draining: Arc<AtomicBool>,
    /// After this, no new connection is accepted, and a connection ends as soon as it has no request to answer.
    pub closing: CancellationToken,
    pub metrics: Arc<Metrics>,
}

/// Accepts connections until `closing`, and then those that clients had opened by that moment.
pub async fn serve(listener: TcpListener, doors: Doors) {
    // A task that waits for the end of all connections also waits for those that are still to be accepted.
    let _accepting = doors.connections.token();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = doors.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &doors).await,
            Err(error) => failed(&error).await,
        }
    }
    accept_the_last(listener, &doors).await;
}

/// The kernel may hold connections that the server has not accepted yet, and their requests may have come. Closing the listener would
/// reset them, so this function accepts them. From now on the kernel admits no new client.
async fn accept_the_last(listener: TcpListener, doors: &Doors) {
    if SockRef::from(&listener).listen(0).is_err() {
        return;
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            admit(stream, peer, doors).await;
        }
    }
}

async fn admit(stream: TcpStream, peer: SocketAddr, doors: &Doors) {
    let Some(slot) = slot(doors) else {
        // The server accepts the connection and closes it at once, because a client would wait for a connection that is not accepted.
        drop(stream);
        doors.metrics.clients.turned_away.inc(["capacity"]);
        let max = doors.capacity.max();
        rate_limited_log!(warn, max, "no room for more connections: raise the limit of open files");
        return;
    };
    // A proxy's connections carry many clients, so the limit per address does not apply.
    let share = match doors.proxies.contains(peer.ip()) {
        true => None,
        false => match share(doors, ClientAddress::of_peer(peer.ip())) {
            Some(share) => Some(share),
            None => {
                doors.metrics.clients.turned_away.inc(["address"]);
                rate_limited_log!(warn, "closed connections: one address has too many without a token");
                return;
            }
        },
    };
    match TcpConnection::accept(stream, doors.stall_timeout) {
        Ok(connection) => {
            let connection = connection.counted(slot, share, doors.metrics.clone());
            doors.connections.spawn(serve_connection(connection, peer, doors.clone()));
        }
        Err(error) => failed(&error).await,
    }
}

/// Takes a slot for a connection. If few slots are left, this function closes an idle connection.
fn slot(doors: &Doors) -> Option<Slot> {
    if doors.capacity.is_scarce() && doors.idle.close_a_stranger() {
        doors.metrics.clients.turned_away.inc(["idle"]);
    }
    doors.capacity.take().or_else(|| {
        // The slot becomes free only when the task of the closed connection ends, so a later connection gets it.
        if doors.idle.close_one() {
            doors.metrics.clients.turned_away.inc(["idle"]);
        }
        None
    })
}

/// Takes a share of what an address may have without a token. If none is left, the share of an idle connection is taken over.
fn share(doors: &Doors, address: ClientAddress) -> Option<Share> {
    doors.shares.take(address, 1).or_else(|| {
        let share = doors.idle.make_room_of(address)?;
        doors.metrics.clients.turned_away.inc(["idle"]);
        Some(share)
    })
}

async fn failed(error: &io::Error) {
    if is_of_one_connection(error) {
        rate_limited_log!(debug, %error, "a connection ended before it was accepted");
    } else {
        rate_limited_log!(warn, %error, "could not accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn respond(
    doors: Doors,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    tcp: TcpHandle,
) -> Response<Body> {
    let address = ClientAddress::of_request(peer.ip(), request.headers(), &doors.proxies);
    let extensions = request.extensions_mut();
    extensions.insert(address);
    extensions.insert(PeerIp(peer.ip()));
    extensions.insert(tcp);
    match doors.router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
