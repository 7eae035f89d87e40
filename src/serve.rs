//! One listener for HTTP and Socket.IO.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::gateway::{Capacity, Edge, Transport, TransportHandle};

/// A client that sends its request head slower than this is gone.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept: most often no file descriptor is left, and one is soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every client tries again is not logged each time.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What the listener leads to.
#[derive(Clone, Debug)]
pub struct Doors {
    pub edge: Edge,
    pub http: Router,
    pub capacity: Capacity,
    /// So long a peer may take no byte.
    pub stall_timeout: Duration,
    /// HTTP requests that are under way.
    pub requests: TaskTracker,
}

/// Accepts for ever.
pub async fn serve(listener: TcpListener, doors: Doors) {
    let mut refusals = Refusals::default();
    loop {
        let accepted = listener.accept().await;
        let Some(place) = doors.capacity.take() else {
            // Closed at once: a connection that nobody accepts would be waited for.
            drop(accepted);
            refusals.warn(doors.capacity.max());
            continue;
        };
        match accepted.and_then(|(stream, peer)| Ok((Transport::accept(stream, doors.stall_timeout)?, peer)))
        {
            Ok((transport, peer)) => {
                tokio::spawn(connection(transport.with_place(place), peer, doors.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "could not accept a connection");
                if !is_of_one_connection(&error) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn connection(transport: Transport, peer: SocketAddr, doors: Doors) {
    let handle = transport.handle();
    let service = service_fn(move |request| {
        let (doors, handle) = (doors.clone(), handle.clone());
        async move { Ok::<_, Infallible>(respond(doors, request, peer, handle).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(transport), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

async fn respond(
    mut doors: Doors,
    request: Request<Incoming>,
    peer: SocketAddr,
    transport: TransportHandle,
) -> Response<Body> {
    if Edge::serves(request.uri().path()) {
        return doors.edge.call(request, peer, transport).await;
    }
    let _running = doors.requests.token();
    match doors.http.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Connections that were closed for want of room, told once a minute.
#[derive(Debug, Default)]
struct Refusals {
    since: u64,
    told: Option<Instant>,
}

impl Refusals {
    fn warn(&mut self, max: usize) {
        self.since += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            tracing::warn!(refused = self.since, max, "no room for more connections: raise the file limit");
            *self = Self { since: 0, told: Some(Instant::now()) };
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
