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
    ListenerContext,
    idle_connections::{IdleConnection, Peer},
    respond,
};
use crate::{
    rate_limited_log::rate_limited_log,
    transport::{Tcp, TcpConnection, TcpHandle},
};

/// The timeout for a request head, from its first byte on. A new connection must also send its first byte within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// During shutdown, a client has this long to send the rest of a request head that it has begun.
const SHUTDOWN_HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// During shutdown, a client that has sent nothing yet has this long to send its first byte.
const SHUTDOWN_FIRST_BYTE_TIMEOUT: Duration = Duration::from_millis(250);

/// State that two parts of a connection share: the service, which answers requests, and the task, which waits for them.
#[derive(Debug)]
struct Requests {
    opened: Instant,
    /// A request is being answered.
    answering: AtomicBool,
    /// How many requests have been answered.
    answered: AtomicU64,
    /// When the last request was answered, in milliseconds from `opened`.
    last_answered: AtomicU64,
}

/// The way in which a connection ends at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The connection is aborted, because its client is too slow.
    Abort,
    /// The connection is closed, because there is nothing to answer.
    Close,
}

pub(super) async fn serve_connection(connection: TcpConnection, peer: SocketAddr, context: ListenerContext) {
    let tcp = connection.shared();
    let requests = Arc::new(Requests::new());
    let closing = context.closing.clone();
    let (keep_alive, head_bytes) = (context.keep_alive, context.head_bytes);
    let peer_info = Peer { address: peer.ip(), is_proxy: context.proxies.contains(peer.ip()) };
    let idle = Arc::new(context.idle.connection(peer_info, connection.handle()));
    let service = {
        let (requests, handle, idle) = (requests.clone(), connection.handle(), idle.clone());
        service_fn(move |request: Request<Incoming>| {
            let (context, handle, idle, requests) =
                (context.clone(), handle.clone(), idle.clone(), requests.clone());
            async move { Ok::<_, Infallible>(answer(context, request, peer, handle, &requests, &idle).await) }
        })
    };
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(head_bytes)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    tokio::pin!(served);
    let mut end_timer = EndTimer { tcp, requests, keep_alive, timer: None, closing_since: None };
    let closed = closing.cancelled();
    tokio::pin!(closed);
    let (mut finishing, mut entered_after) = (false, 0);
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
            if let Some(answered) =
                end_timer.requests.answered_if_idle().filter(|answered| *answered > entered_after)
            {
                entered_after = answered;
                idle.enter();
            }
            if end_timer.closing_since.is_none() && closed.as_mut().poll(cx).is_ready() {
                end_timer.closing_since = Some(Instant::now());
            }
            match end_timer.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(End::Abort) => {
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
    context: ListenerContext,
    request: Request<Incoming>,
    peer: SocketAddr,
    handle: TcpHandle,
    requests: &Requests,
    idle: &IdleConnection,
) -> Response<Body> {
    idle.leave();
    let has_body = !request.body().is_end_stream();
    requests.begin(&handle);
    let draining = context.draining.clone();
    let mut response = respond(context, request, peer, handle.clone()).await;
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
            last_answered: AtomicU64::new(0),
        }
    }

    /// How many requests have been answered, if none is being answered.
    fn answered_if_idle(&self) -> Option<u64> {
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
        self.last_answered.store(elapsed, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.answering.store(false, Ordering::Relaxed);
    }
}

/// Waits for the end of a connection.
struct EndTimer {
    tcp: Arc<Tcp>,
    requests: Arc<Requests>,
    keep_alive: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    closing_since: Option<Instant>,
}

impl EndTimer {
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
        let answered = self.requests.answered_if_idle()?;
        let earlier = |deadline: Instant, shutdown_timeout: Duration| match self.closing_since {
            Some(since) => deadline.min(since + shutdown_timeout),
            None => deadline,
        };
        let last_answered =
            self.requests.opened + Duration::from_millis(self.requests.last_answered.load(Ordering::Relaxed));
        if let Some(first) = self.tcp.first_byte() {
            // Bytes that came during the previous answer had to wait for it, so their time counts from the end of that answer.
            let written = Instant::from_std(self.tcp.last_progress_at());
            let first = Instant::from_std(first).max(last_answered).max(written);
            Some((earlier(first + HEAD_TIMEOUT, SHUTDOWN_HEAD_TIMEOUT), End::Abort))
        } else if answered == 0 {
            Some((earlier(last_answered + HEAD_TIMEOUT, SHUTDOWN_FIRST_BYTE_TIMEOUT), End::Close))
        } else {
            Some((earlier(last_answered + self.keep_alive, Duration::ZERO), End::Close))
        }
    }
}
