//! One connected and authenticated client: its identity, and its requests in the order in which they came.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::Span;

use crate::{
    auth::Identity,
    fanout::{Peer, PeerId, SendError},
    metrics::Metrics,
    protocol::{ClientEvent, Packet},
    task::UserId,
};

use super::{
    Gateway, TransportHandle,
    newcomers::Newcomer,
    socket::{DisconnectReason, Socket, TransportType},
};

/// A client that asks more before it has its answers is refused. A page may join all rooms that it may have at once.
const MAX_WAITING: usize = 256;
/// Bodies of one polling client that are read at once. It sends one after the other; the next may overtake the end of the
/// one before.
const MAX_POSTS: usize = 2;
/// A polling client fetches its last events with its next request.
const POLLING_GRACE: Duration = Duration::from_millis(900);
/// What a client that reads slowly has not taken by then, it gets no more once it may see nothing more.
const LAST_WORDS: Duration = Duration::from_millis(950);

/// What a session is asked to do.
#[derive(Debug)]
pub enum Request {
    Client {
        event: ClientEvent,
        name: &'static str,
        ack: Option<u64>,
        arrived: Instant,
    },
    /// Enter again whatever the fan-out says is wanted.
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
    /// Whether a task works on it.
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
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A session is one user's for good; its identity is not.
    pub fn user(&self) -> UserId {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).viewer.user.clone()
    }

    pub fn set_identity(&self, identity: Identity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Queues a request; whether somebody has to be started to work on the queue. Gives it back when there are
    /// too many.
    pub fn push(&self, request: Request) -> Result<bool, Request> {
        let mut queue = self.queue();
        let is_refresh = matches!(request, Request::Refresh);
        if queue.waiting.len() >= MAX_WAITING && !is_refresh {
            return Err(request);
        }
        // One that waits enters whatever is wanted by then.
        if is_refresh && queue.waiting.iter().any(|waiting| matches!(waiting, Request::Refresh)) {
            return Ok(false);
        }
        queue.waiting.push_back(request);
        Ok(!std::mem::replace(&mut queue.running, true))
    }

    /// The next request; None ends the work.
    pub fn pop(&self) -> Option<Request> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front().filter(|_| !self.has_ended());
        queue.running = next.is_some();
        if !queue.running {
            // Most clients ask once, and then listen for hours.
            queue.waiting = VecDeque::new();
        }
        next
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// How many resyncs this one is, from 1.
    pub fn count_resync(&self) -> u32 {
        let mut queue = self.queue();
        queue.resyncs = queue.resyncs.saturating_add(1);
        queue.resyncs
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether this call ended it.
    pub fn end(&self) -> bool {
        self.queue().waiting.clear();
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Closes the transport behind what is queued, in a way that makes the client reconnect.
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

    /// Closes the transport of a client that may see nothing more, whether it reads or not. It is told why, behind what
    /// is in its queue.
    pub fn close_for_good(self: &Arc<Self>, why: Packet) {
        let session = self.clone();
        session.socket.send_now(why);
        tokio::spawn(async move {
            session.close();
            tokio::time::sleep(LAST_WORDS).await;
            session.cut();
        });
    }

    /// Closes the transport now, whatever is queued; the client reconnects.
    pub fn cut(&self) {
        let socket = &self.socket;
        socket.close(DisconnectReason::TransportError);
        // A polling client's answers time out by themselves, and behind a proxy the connection that it came by may be
        // carrying others' requests.
        if socket.transport_type() == TransportType::Websocket {
            socket.data.transport().shut();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What is known of a connection, with a session or without.
#[derive(Debug, Default)]
pub struct Connection {
    /// As the edge let it in.
    pub(super) newcomer: Option<Arc<Newcomer>>,
    /// The token in the header of its first request.
    pub(super) bearer: Option<String>,
    /// For the log.
    span: OnceLock<Span>,
    inner: Mutex<ConnectionState>,
}

#[derive(Debug, Default)]
struct ConnectionState {
    session: Option<Arc<Session>>,
    connects: u32,
    /// For its token's key.
    waiting: bool,
    /// Of a WebSocket: the one that it came by, or was upgraded to.
    transport: TransportHandle,
    posts: Posting,
}

/// A body of a polling client that is being read: each has a clone of the connection's.
#[derive(Clone, Debug, Default)]
pub struct Posting(Arc<()>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPosts;

impl Connection {
    pub(super) fn new(newcomer: Option<Arc<Newcomer>>, bearer: Option<String>) -> Self {
        Self { newcomer, bearer, ..Self::default() }
    }

    /// Everything that happens to it is logged under this.
    pub fn set_span(&self, span: Span) {
        // There is one connection, and it is set when it begins.
        let _ = self.span.set(span);
    }

    pub fn span(&self) -> Span {
        self.span.get().cloned().unwrap_or_else(Span::none)
    }

    pub fn session(&self) -> Option<Arc<Session>> {
        self.state().session.clone()
    }

    /// The session before it, if two requests of a polling client connected at once.
    pub fn set_session(&self, session: Arc<Session>) -> Option<Arc<Session>> {
        let mut state = self.state();
        state.transport.trust();
        state.session.replace(session)
    }

    pub fn take_session(&self) -> Option<Arc<Session>> {
        self.state().session.take()
    }

    /// How many times this connection has asked to connect, from 1.
    pub fn count_connect(&self) -> u32 {
        let mut state = self.state();
        state.connects = state.connects.saturating_add(1);
        state.connects
    }

    /// Whether it did not wait already.
    pub fn wait(&self) -> bool {
        !std::mem::replace(&mut self.state().waiting, true)
    }

    pub fn end_wait(&self) {
        self.state().waiting = false;
    }

    pub fn is_waiting(&self) -> bool {
        self.state().waiting
    }

    pub fn transport(&self) -> TransportHandle {
        self.state().transport.clone()
    }

    /// Of a WebSocket that has not shown a token yet, no more than these bytes are read.
    pub fn limit(&self, transport: &TransportHandle, bytes: usize) {
        if self.session().is_none() {
            transport.allow(bytes);
        }
    }

    /// The WebSocket by which it goes.
    pub fn set_transport(&self, transport: TransportHandle) {
        let mut state = self.state();
        if state.session.is_some() {
            transport.trust();
        }
        state.transport = transport;
    }

    pub fn begin_post(&self) -> Result<Posting, TooManyPosts> {
        let state = self.state();
        // One is the connection's own.
        if Arc::strong_count(&state.posts.0) > MAX_POSTS {
            Err(TooManyPosts)
        } else {
            Ok(state.posts.clone())
        }
    }

    /// Whether a body of a polling client is being read.
    pub fn is_posting(&self) -> bool {
        Arc::strong_count(&self.state().posts.0) > 1
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
