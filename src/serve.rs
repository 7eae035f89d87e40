//! One listener for HTTP and Socket.IO; with `ADMIN_PORT`, one more for operators.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{
    address::{ClientAddress, Shares},
    config::TrustedProxies,
    gateway::{Capacity, Edge, Transport, TransportHandle},
    metrics::Metrics,
    seldom::seldom,
};

/// A client that sends its request head slower than this is gone.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
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
    /// HTTP requests that are under way.
    pub requests: TaskTracker,
    pub metrics: Arc<Metrics>,
}

/// Accepts for ever.
pub async fn serve(listener: TcpListener, doors: Doors) {
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                failed(&error).await;
                continue;
            }
        };
        let Some(place) = doors.capacity.take() else {
            // Closed at once: a connection that nobody accepts would be waited for.
            drop(accepted);
            doors.metrics.clients.turned_away.inc(["capacity"]);
            let max = doors.capacity.max();
            seldom!(warn, max, "no room for more connections: raise the file limit");
            continue;
        };
        let (stream, peer) = accepted;
        // A proxy's connections are many clients'.
        let share = match doors.proxies.contains(peer.ip()) {
            true => None,
            false => match doors.shares.take(ClientAddress::of_peer(peer.ip()), 1) {
                Some(share) => Some(share),
                None => {
                    doors.metrics.clients.turned_away.inc(["address"]);
                    seldom!(warn, "closed connections: one address has too many without a token");
                    continue;
                }
            },
        };
        match Transport::accept(stream, doors.stall_timeout) {
            Ok(transport) => {
                tokio::spawn(connection(
                    transport.counted(place, share, doors.metrics.clone()),
                    peer,
                    doors.clone(),
                ));
            }
            Err(error) => failed(&error).await,
        }
    }
}

async fn failed(error: &io::Error) {
    if is_of_one_connection(error) {
        seldom!(debug, %error, "a connection ended before it was accepted");
    } else {
        seldom!(warn, %error, "could not accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn connection(transport: Transport, peer: SocketAddr, doors: Doors) {
    let handle = transport.handle();
    let head_bytes = doors.head_bytes;
    let service = service_fn(move |request| {
        let (doors, handle) = (doors.clone(), handle.clone());
        async move { Ok::<_, Infallible>(respond(doors, request, peer, handle).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(head_bytes)
        .serve_connection(TokioIo::new(transport), service)
        .with_upgrades()
        .await;
    let Err(error) = served else { return };
    if error.is_parse_too_large() {
        seldom!(
            warn,
            max = head_bytes,
            "refused a request: its line and headers are too long; if a token makes them so long, MAX_TOKEN_BYTES raises this limit"
        );
    } else {
        seldom!(debug, %error, "a connection ended with an error");
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
