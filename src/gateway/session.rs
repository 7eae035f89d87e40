//! One connected and authenticated client: its identity, and its requests in the order in which they came.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::Span;

use crate::{
    auth::Identity,
    fanout::{Peer, PeerId, SendError},
    metrics::Metrics,
    protocol::{ClientEvent, ClientEventName, Packet},
    task::UserId,
};

use super::{
    Gateway, TransportHandle,
    newcomers::Newcomer,
    socket::{DisconnectReason, Socket, TransportType},
};

/// The server refuses further requests of a client with this many unanswered ones. A page may join all rooms that it may have at
/// once.
const MAX_WAITING: usize = 256;
/// The server reads at most this many bodies of one polling client at once. A client sends one after the other, but the next may
/// overtake the end of the one before.
const MAX_POSTS: usize = 2;
/// A polling client has this long to fetch its last events with its next request.
const POLLING_GRACE: Duration = Duration::from_millis(900);
/// After access is revoked, a slow client has this long to read the queued packets. After that, unsent packets are dropped.
const LAST_WORDS: Duration = Duration::from_millis(950);

/// A request that a session has to handle.
#[derive(Debug)]
pub enum Request {
    Client {
        event: ClientEvent,
        name: ClientEventName,
        ack: Option<u64>,
        arrived: Instant,
    },
    /// Enter again every room that the fan-out lists as wanted.
    Refresh,
}

#[derive(Debug)]
pub struct Session {
    pub id: PeerId,
    pub socket: Arc<Socket>,
    pub identity: Mutex<Identity>,
    queue: Mutex<Queue>,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// A task handles this queue.
    running: bool,
    resyncs: u32,
}

impl Session {
    pub fn new(id: PeerId, socket: Arc<Socket>, identity: Identity) -> Self {
        Self {
            id,
            socket,
            identity: Mutex::new(identity),
            queue: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    pub fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// The session's user. It never changes, but the rest of the identity may.
    pub fn user(&self) -> UserId {
        self.identity.lock().viewer.user.clone()
    }

    pub fn set_identity(&self, identity: Identity) {
        *self.identity.lock() = identity;
    }

    /// Queues a request. Returns whether the caller has to start a task for the queue. If too many requests wait, this returns the
    /// request as an error.
    pub fn push(&self, request: Request) -> Result<bool, Request> {
        let mut queue = self.queue.lock();
        let is_refresh = matches!(request, Request::Refresh);
        if queue.waiting.len() >= MAX_WAITING && !is_refresh {
            return Err(request);
        }
        // A refresh that already waits will enter all rooms that are wanted by then.
        if is_refresh && queue.waiting.iter().any(|waiting| matches!(waiting, Request::Refresh)) {
            return Ok(false);
        }
        queue.waiting.push_back(request);
        Ok(!std::mem::replace(&mut queue.running, true))
    }

    /// The next request. `None` means that the task for the queue ends.
    pub fn pop(&self) -> Option<Request> {
        let mut queue = self.queue.lock();
        let next = queue.waiting.pop_front().filter(|_| !self.has_ended());
        queue.running = next.is_some();
        if !queue.running {
            // This frees the memory: most clients send requests once, and then listen for hours.
            queue.waiting = VecDeque::new();
        }
        next
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Counts a resync of this session. Returns the count, from 1.
    pub fn count_resync(&self) -> u32 {
        let mut queue = self.queue.lock();
        queue.resyncs = queue.resyncs.saturating_add(1);
        queue.resyncs
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends the session. Returns whether this call ended it.
    pub fn end(&self) -> bool {
        self.queue.lock().waiting.clear();
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Closes the transport after the queued packets, in a way that makes the client reconnect.
    pub fn close(&self) {
        if self.socket.transport_type() == TransportType::Websocket {
            self.socket.close(DisconnectReason::ClosedHere);
        } else {
            let socket = self.socket.clone();
            tokio::spawn(async move {
                tokio::time::sleep(POLLING_GRACE).await;
                socket.close(DisconnectReason::ClosedHere);
            });
        }
    }

    /// Closes the transport of a client that must receive nothing more, whether it reads or not. The reason is queued behind the
    /// packets that already wait.
    pub fn close_for_good(self: &Arc<Self>, why: Packet) {
        let session = self.clone();
        session.socket.send_now(why);
        tokio::spawn(async move {
            session.close();
            tokio::time::sleep(LAST_WORDS).await;
            session.cut();
        });
    }

    /// Closes the transport now and drops the queued packets. The client reconnects.
    pub fn cut(&self) {
        let socket = &self.socket;
        socket.close(DisconnectReason::TransportError);
        // A polling client's answers time out by themselves. Behind a proxy, its TCP connection may carry requests of other clients.
        if socket.transport_type() == TransportType::Websocket {
            socket.data.transport().shut();
        }
    }
}

/// A session as the fan-out sees it.
#[derive(Clone, Debug)]
pub struct SocketPeer {
    pub(super) session: Arc<Session>,
    pub(super) gateway: Weak<Gateway>,
    pub(super) metrics: Arc<Metrics>,
}

impl Peer for SocketPeer {
    fn send(&self, packet: Packet) -> Result<bool, SendError> {
        self.session.socket.send(packet)
    }

    fn flush(&self) {
        self.session.socket.flush();
    }

    fn cut(&self) {
        self.metrics.clients.cut.inc(["behind"]);
        self.session.cut();
    }

    fn took(&self) -> Option<Instant> {
        let socket = &self.session.socket;
        socket.polled_until().or_else(|| socket.data.transport().took())
    }

    fn refresh(&self) {
        if let Some(gateway) = self.gateway.upgrade() {
            gateway.submit(&self.session, Request::Refresh);
        }
    }
}

/// The gateway's data of a connection, with or without a session.
#[derive(Debug, Default)]
pub struct Connection {
    /// The connection's share of the limits for clients without a token.
    pub(super) newcomer: Option<Arc<Newcomer>>,
    /// The token in the header of its first request.
    pub(super) bearer: Option<String>,
    span: OnceLock<Span>,
    inner: Mutex<ConnectionState>,
}

#[derive(Debug, Default)]
struct ConnectionState {
    session: Option<Arc<Session>>,
    connects: u32,
    /// The connection waits for its token's key.
    waiting: bool,
    /// The WebSocket with which the connection began, or to which it was upgraded. It is empty while the client uses polling.
    transport: TransportHandle,
    posts: Posting,
}

/// Stands for a body of a polling client that is being read. Each is a clone of the connection's own.
#[derive(Clone, Debug, Default)]
pub struct Posting(Arc<()>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPosts;

impl Connection {
    pub(super) fn new(newcomer: Option<Arc<Newcomer>>, bearer: Option<String>) -> Self {
        Self { newcomer, bearer, ..Self::default() }
    }

    /// Sets the span of all log lines about this connection.
    pub fn set_span(&self, span: Span) {
        // The span is set only once, when the connection begins.
        let _ = self.span.set(span);
    }

    pub fn span(&self) -> Span {
        self.span.get().cloned().unwrap_or_else(Span::none)
    }

    pub fn session(&self) -> Option<Arc<Session>> {
        self.inner.lock().session.clone()
    }

    /// Returns the previous session, if two requests of a polling client connected at once.
    pub fn set_session(&self, session: Arc<Session>) -> Option<Arc<Session>> {
        let mut state = self.inner.lock();
        state.transport.trust();
        state.session.replace(session)
    }

    pub fn take_session(&self) -> Option<Arc<Session>> {
        self.inner.lock().session.take()
    }

    /// How many times this connection has asked to connect, from 1.
    pub fn count_connect(&self) -> u32 {
        let mut state = self.inner.lock();
        state.connects = state.connects.saturating_add(1);
        state.connects
    }

    /// Marks the connection as waiting for a key. Returns whether it was not waiting before.
    pub fn wait(&self) -> bool {
        !std::mem::replace(&mut self.inner.lock().waiting, true)
    }

    pub fn end_wait(&self) {
        self.inner.lock().waiting = false;
    }

    pub fn is_waiting(&self) -> bool {
        self.inner.lock().waiting
    }

    pub fn transport(&self) -> TransportHandle {
        self.inner.lock().transport.clone()
    }

    /// Limits how many bytes are read of a WebSocket that has not shown a token yet.
    pub fn limit(&self, transport: &TransportHandle, bytes: usize) {
        if self.session().is_none() {
            transport.allow(bytes);
        }
    }

    /// Sets the WebSocket that the connection uses from now on.
    pub fn set_transport(&self, transport: TransportHandle) {
        let mut state = self.inner.lock();
        if state.session.is_some() {
            transport.trust();
        }
        state.transport = transport;
    }

    pub fn begin_post(&self) -> Result<Posting, TooManyPosts> {
        let state = self.inner.lock();
        // One reference is the connection's own.
        if Arc::strong_count(&state.posts.0) > MAX_POSTS {
            Err(TooManyPosts)
        } else {
            Ok(state.posts.clone())
        }
    }

    /// Returns whether a body of a polling client is being read.
    pub fn is_posting(&self) -> bool {
        Arc::strong_count(&self.inner.lock().posts.0) > 1
    }
}
