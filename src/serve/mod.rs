//! One listener for HTTP and Socket.IO; with `ADMIN_PORT`, one more for operators.

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
    gateway::{Capacity, Edge, Place, Transport, TransportHandle},
    metrics::Metrics,
    seldom::seldom,
};

use connection::serve_connection;
pub use idle::Idle;

/// How its requests are counted among HTTP's.
const SOCKET_IO: &str = "/socket.io";
/// After a failed accept: most often no file descriptor is left, and one is soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the listener leads to.
#[derive(Clone, Debug)]
pub struct Doors {
    /// None: HTTP only.
    pub edge: Option<Edge>,
    pub http: Router,
    pub capacity: Capacity,
    /// Of its places, for those of one address that have not shown a token.
    pub shares: Shares,
    pub proxies: TrustedProxies,
    /// So long may a request's line and headers be, together with what comes behind them before it is asked for.
    pub head_bytes: usize,
    /// So long a peer may take no byte.
    pub stall_timeout: Duration,
    /// An HTTP connection on which nothing comes for so long is closed.
    pub keep_alive: Duration,
    /// HTTP requests that are under way.
    pub requests: TaskTracker,
    /// Listeners and HTTP connections. A WebSocket is none any more.
    pub connections: TaskTracker,
    /// Connections that wait for their next request.
    pub idle: Idle,
    /// Whether each answer is its connection's last.
    pub draining: Arc<AtomicBool>,
    /// Nobody new is accepted, and connections end as soon as nothing is to be answered on them.
    pub closing: CancellationToken,
    pub metrics: Arc<Metrics>,
}

/// Accepts until the doors are closed, and then whoever had come by that moment.
pub async fn serve(listener: TcpListener, doors: Doors) {
    // Whoever waits for the last connection waits for those that are still to be accepted, too.
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

/// The system has connected clients that nobody has accepted yet, and their requests may have come: closed unseen, they would be
/// reset. From now on the system takes nobody new.
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
    let Some(place) = place(doors) else {
        // Closed at once: a connection that nobody accepts would be waited for.
        drop(stream);
        doors.metrics.clients.turned_away.inc(["capacity"]);
        let max = doors.capacity.max();
        seldom!(warn, max, "no room for more connections: raise the file limit");
        return;
    };
    // A proxy's connections are many clients'.
    let share = match doors.proxies.contains(peer.ip()) {
        true => None,
        false => match share(doors, ClientAddress::of_peer(peer.ip())) {
            Some(share) => Some(share),
            None => {
                doors.metrics.clients.turned_away.inc(["address"]);
                seldom!(warn, "closed connections: one address has too many without a token");
                return;
            }
        },
    };
    match Transport::accept(stream, doors.stall_timeout) {
        Ok(transport) => {
            let transport = transport.counted(place, share, doors.metrics.clone());
            doors.connections.spawn(serve_connection(transport, peer, doors.clone()));
        }
        Err(error) => failed(&error).await,
    }
}

/// A place for a connection. Where few are left, idle connections give theirs up.
fn place(doors: &Doors) -> Option<Place> {
    if doors.capacity.is_scarce() && doors.idle.close_a_stranger() {
        doors.metrics.clients.turned_away.inc(["idle"]);
    }
    doors.capacity.take().or_else(|| {
        // The place is free when the connection's task has seen its end: for whoever comes next.
        if doors.idle.close_one() {
            doors.metrics.clients.turned_away.inc(["idle"]);
        }
        None
    })
}

/// A part of what an address may have without a token: if need be, that of a connection that waits for nothing.
fn share(doors: &Doors, address: ClientAddress) -> Option<Share> {
    doors.shares.take(address, 1).or_else(|| {
        let share = doors.idle.make_room_of(address)?;
        doors.metrics.clients.turned_away.inc(["idle"]);
        Some(share)
    })
}

async fn failed(error: &io::Error) {
    if is_of_one_connection(error) {
        seldom!(debug, %error, "a connection ended before it was accepted");
    } else {
        seldom!(warn, %error, "could not accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn respond(
    mut doors: Doors,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    transport: TransportHandle,
) -> Response<Body> {
    let address = ClientAddress::of_request(peer.ip(), request.headers(), &doors.proxies);
    if let Some(edge) = doors.edge.as_mut().filter(|_| Edge::serves(request.uri().path())) {
        let method = request.method().clone();
        let response = edge.call(request, peer, address, transport).await;
        doors.metrics.http.answered(SOCKET_IO, &method, response.status());
        return response;
    }
    request.extensions_mut().insert(address);
    let _running = doors.requests.token();
    match doors.http.oneshot(request.map(Body::new)).await {
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
