//! The server of `/ws`: its connections, from their beginning to their end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tracing::field;

use super::{
    CloseCode,
    messages::AUTH,
    socket::{Json, JsonSocket},
};
use crate::{
    auth::AuthError,
    config::HeartbeatConfig,
    edge::UnauthenticatedLimits,
    metrics::HandshakeOutcome,
    session::Sessions,
    shrinking_map::ShrinkingMap,
    transport::{
        Server,
        admission::{Admission, authenticate, close_without_session},
        disconnect_reason::DisconnectReason,
        read_limits::ReadLimits,
    },
    wire::{Code, Refusal},
};

/// The plain WebSockets of one node.
#[derive(Debug)]
pub struct PlainWebsocket {
    pub(super) sessions: Arc<Sessions>,
    is_enabled: bool,
    pub(super) heartbeat: HeartbeatConfig,
    pub(super) read_limits: ReadLimits,
    unauthenticated_limits: Arc<UnauthenticatedLimits>,
    sockets: Mutex<ShrinkingMap<u64, Arc<JsonSocket>>>,
    next_connection: AtomicU64,
}

impl PlainWebsocket {
    /// If it is not enabled, each client is told so.
    pub fn new(
        sessions: Arc<Sessions>,
        is_enabled: bool,
        heartbeat: HeartbeatConfig,
        unauthenticated_limits: Arc<UnauthenticatedLimits>,
    ) -> Self {
        Self {
            read_limits: ReadLimits::of(&sessions),
            sessions,
            is_enabled,
            heartbeat,
            unauthenticated_limits,
            sockets: Mutex::default(),
            next_connection: AtomicU64::new(1),
        }
    }

    pub(super) fn send_queue(&self) -> usize {
        self.sessions.limits().send_queue
    }

    /// What is kept about a new connection.
    pub(super) fn new_connection(&self) -> Json {
        Json::new(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins a connection. `token` is the one in the headers of its request.
    pub(super) fn on_connect(self: &Arc<Self>, socket: &Arc<JsonSocket>, token: Option<String>) {
        let span = tracing::info_span!("plain_websocket", id = socket.own.id, user = field::Empty);
        socket.client.set_span(span.clone());
        let _span = span.entered();
        self.sockets.lock().insert(socket.own.id, socket.clone());
        // This call may close the socket at once, so it comes after the insertion: the socket can then be removed.
        if let Some(unauthenticated_permit) = &socket.client.unauthenticated_permit {
            self.unauthenticated_limits.register(unauthenticated_permit, socket.clone());
        }
        if !self.is_enabled {
            self.sessions.metrics().clients.handshakes.inc(HandshakeOutcome::FeatureDisabled);
            let refusal = Refusal::new(Code::FeatureDisabled, "The plain WebSocket is switched off");
            return self.refuse_token(socket, refusal, CloseCode::FeatureDisabled);
        }
        if let Some(token) = token {
            authenticate(self, socket, token);
        }
        if socket.client.session().is_none() {
            close_without_session::<Self>(socket);
        }
    }

    pub(super) fn on_disconnect(&self, socket: &JsonSocket, reason: DisconnectReason) {
        let _span = socket.client.span().entered();
        self.sockets.lock().remove(&socket.own.id);
        if let Some(unauthenticated_permit) = &socket.client.unauthenticated_permit {
            unauthenticated_permit.release();
        }
        if let Some(session) = socket.client.take_session() {
            self.sessions.end(&session, reason != DisconnectReason::ClientClose);
        }
        self.sessions.metrics().clients.ended.inc(reason.into());
    }

    fn all(&self) -> Vec<Arc<JsonSocket>> {
        self.sockets.lock().values().cloned().collect()
    }
}

impl Admission for PlainWebsocket {
    type Protocol = Json;

    fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    fn refuse(&self, socket: &JsonSocket, error: &AuthError) {
        let outcome = error.outcome();
        self.sessions.metrics().clients.handshakes.inc(outcome);
        let refusal = match outcome {
            HandshakeOutcome::TokenExpired => Refusal::new(Code::TokenExpired, "The token has expired"),
            _ => Refusal::new(Code::Unauthorized, "The token is not valid"),
        };
        // Without an id, the token may have been in the headers of the request.
        let event = socket.own.auth_id.lock().is_some().then_some(AUTH);
        self.refuse_token(socket, Refusal { event, ..refusal }, CloseCode::Unauthorized);
    }

    fn close_for_retry(socket: &JsonSocket) {
        socket.close_with(CloseCode::Overloaded);
    }

    fn close_without_token(socket: &JsonSocket) {
        socket.close_with(CloseCode::NoToken);
    }
}

impl Server for PlainWebsocket {
    fn close_all(&self) {
        self.all().iter().for_each(|socket| socket.close_with(CloseCode::ShuttingDown));
    }

    fn shut_all(&self) {
        self.all().iter().for_each(|socket| socket.client.tcp().shut());
    }

    fn is_empty(&self) -> bool {
        self.sockets.lock().is_empty()
    }
}
