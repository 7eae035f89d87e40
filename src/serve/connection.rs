//! Serves one HTTP connection: the timeout for a request head, the timeout between two requests, and the end of the connection.
//!
//! hyper has one timer for both timeouts, so this module does not use it. A slow head holds a slot for nothing, so its timeout is
//! short. Load balancers keep an idle connection for a minute and send a request on it at any moment, so that timeout is long.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep};

use super::{
    Doors,
    idle::{IdleConnection, Peer},
    respond,
};
use crate::{
    rate_limited_log::rate_limited_log,
    transport::{Tcp, TcpConnection, TcpHandle},
};

/// The timeout for a request head, from its first byte on. A new connection must also send its first byte within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// During shutdown, a client has this long to send the rest of a request head that it has begun.
const LAST_HEAD: Duration = Duration::from_secs(1);
/// During shutdown, a client that has sent nothing yet has this long to send its first byte.
const LAST_OPENED: Duration = Duration::from_millis(250);

/// State that two parts of a connection share: the service, which answers requests, and the task, which waits for them.
#[derive(Debug)]
struct Requests {
    opened: Instant,
    /// A request is being answered.
    answering: AtomicBool,
    /// How many requests have been answered.
    answered: AtomicU64,
    /// When the last request was answered, in milliseconds from `opened`.
    last: AtomicU64,
}

/// The way in which a connection ends at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The connection is cut, because its client is too slow.
    Cut,
    /// The connection is closed, because there is nothing to answer.
    Close,
}

pub(super) async fn serve_connection(connection: TcpConnection, peer: SocketAddr, doors: Doors) {
    let tcp = connection.shared();
    let requests = Arc::new(Requests::new());
    let closing = doors.closing.clone();
    let (keep_alive, head_bytes) = (doors.keep_alive, doors.head_bytes);
    let who = Peer { address: peer.ip(), is_proxy: doors.proxies.contains(peer.ip()) };
    let idle = Arc::new(doors.idle.connection(who, connection.handle()));
    let service = {
        let (requests, handle, idle) = (requests.clone(), connection.handle(), idle.clone());
        service_fn(move |request: Request<Incoming>| {
            let (doors, handle, idle, requests) =
                (doors.clone(), handle.clone(), idle.clone(), requests.clone());
            async move { Ok::<_, Infallible>(answer(doors, request, peer, handle, &requests, &idle).await) }
        })
    };
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(head_bytes)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    tokio::pin!(served);
    let mut wait = Wait { tcp, requests, keep_alive, timer: None, closing_since: None };
    let closed = closing.cancelled();
    tokio::pin!(closed);
    let (mut finishing, mut counted) = (false, 0);
    let result = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = served.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if finishing {
                return Poll::Pending;
            }
            // The connection counts as idle only after hyper was polled: then the last answer has been written, or it waits for a client
            // that does not read.
            if let Some(answered) = wait.requests.idle_after().filter(|answered| *answered > counted) {
                counted = answered;
                idle.enter();
            }
            if wait.closing_since.is_none() && closed.as_mut().poll(cx).is_ready() {
                wait.closing_since = Some(Instant::now());
            }
            match wait.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(End::Cut) => {
                    rate_limited_log!(debug, "closed a connection: its request head took too long");
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(End::Close) => {
                    // hyper still completes an answer that is being written.
                    served.as_mut().graceful_shutdown();
                    finishing = true;
                }
            }
        }
    })
    .await;
    let Err(error) = result else { return };
    if error.is_parse_too_large() {
        rate_limited_log!(
            warn,
            max = head_bytes,
            "refused a request: its line and headers are too long; if a token makes them so long, MAX_TOKEN_BYTES raises this limit"
        );
    } else {
        rate_limited_log!(debug, %error, "a connection ended with an error");
    }
}

/// Answers one request, and records its beginning and end.
async fn answer(
    doors: Doors,
    request: Request<Incoming>,
    peer: SocketAddr,
    handle: TcpHandle,
    requests: &Requests,
    idle: &IdleConnection,
) -> Response<Body> {
    idle.leave();
    let has_body = !request.body().is_end_stream();
    requests.begin(&handle);
    let draining = doors.draining.clone();
    let mut response = respond(doors, request, peer, handle.clone()).await;
    if draining.load(Ordering::Relaxed) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    requests.end(&handle, has_body);
    response
}

impl Requests {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            answering: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// How many requests have been answered, if none is being answered.
    fn idle_after(&self) -> Option<u64> {
        let answering = self.answering.load(Ordering::Relaxed);
        (!answering).then(|| self.answered.load(Ordering::Relaxed))
    }

    fn begin(&self, handle: &TcpHandle) {
        self.answering.store(true, Ordering::Relaxed);
        handle.forget_first_byte();
    }

    /// Bytes that were read behind a request without a body belong to the next head. If the request had a body, nothing shows to which
    /// of the two the bytes belong.
    fn end(&self, handle: &TcpHandle, had_body: bool) {
        if had_body {
            handle.forget_first_byte();
        }
        let elapsed = self.opened.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.answering.store(false, Ordering::Relaxed);
    }
}

/// Waits for the end of a connection.
struct Wait {
    tcp: Arc<Tcp>,
    requests: Arc<Requests>,
    keep_alive: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    closing_since: Option<Instant>,
}

impl Wait {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let Some((deadline, end)) = self.deadline() else { return Poll::Pending };
            if deadline <= Instant::now() {
                // Unread bytes are a request, which is answered first. Their arrival wakes this task.
                if end == End::Close && self.tcp.has_unread() {
                    return Poll::Pending;
                }
                return Poll::Ready(end);
            }
            // A timer that expires too early is reset then. This is cheaper than a reset for each request.
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// `None` means that a request is being answered, which has timeouts of its own.
    fn deadline(&self) -> Option<(Instant, End)> {
        let answered = self.requests.idle_after()?;
        let earlier = |deadline: Instant, last: Duration| match self.closing_since {
            Some(since) => deadline.min(since + last),
            None => deadline,
        };
        let last = self.requests.opened + Duration::from_millis(self.requests.last.load(Ordering::Relaxed));
        if let Some(first) = self.tcp.first_byte() {
            // Bytes that came during the previous answer had to wait for it, so their time counts from the end of that answer.
            let written = Instant::from_std(self.tcp.took_at());
            let first = Instant::from_std(first).max(last).max(written);
            Some((earlier(first + HEAD_TIMEOUT, LAST_HEAD), End::Cut))
        } else if answered == 0 {
            Some((earlier(last + HEAD_TIMEOUT, LAST_OPENED), End::Close))
        } else {
            Some((earlier(last + self.keep_alive, Duration::ZERO), End::Close))
        }
    }
}
