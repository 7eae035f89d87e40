//! What the gateway knows about the client of a socket, with or without a session.

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tracing::Span;

use crate::{edge::UnauthenticatedPermit, session::Session, transport::TcpHandle};

#[derive(Debug, Default)]
pub struct Client {
    /// The client's permit from the limits for clients without a token.
    pub unauthenticated_permit: Option<Arc<UnauthenticatedPermit>>,
    /// The token in the headers of its first request.
    pub bearer: Option<String>,
    span: OnceLock<Span>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The table of sessions and the fan-out keep the session alive until it ends.
    session: Option<Weak<Session>>,
    /// The session has begun: its client has been told so, or the message is queued.
    has_begun: bool,
    connects: u32,
    /// The client waits for its token's key.
    is_waiting_for_key: bool,
    /// The TCP connection of the WebSocket. It is empty while the client uses polling.
    tcp: TcpHandle,
}

impl Client {
    pub fn new(unauthenticated_permit: Option<Arc<UnauthenticatedPermit>>, bearer: Option<String>) -> Self {
        Self { unauthenticated_permit, bearer, ..Self::default() }
    }

    /// Sets the span of all log lines about this client.
    pub fn set_span(&self, span: Span) {
        // The span is set only once, when the connection begins.
        let _ = self.span.set(span);
    }

    pub fn span(&self) -> Span {
        self.span.get().cloned().unwrap_or_else(Span::none)
    }

    pub fn session(&self) -> Option<Arc<Session>> {
        self.state.lock().session.as_ref()?.upgrade()
    }

    /// Sets the session, which removes the limits for clients without a token. Returns the previous session, if two requests of a
    /// polling client connected at once.
    pub fn set_session(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        if let Some(unauthenticated_permit) = &self.unauthenticated_permit {
            unauthenticated_permit.release();
        }
        let mut state = self.state.lock();
        state.tcp.trust();
        state.session.replace(Arc::downgrade(session))?.upgrade()
    }

    pub fn mark_begun(&self) {
        self.state.lock().has_begun = true;
    }

    pub fn has_begun(&self) -> bool {
        self.state.lock().has_begun
    }

    pub fn take_session(&self) -> Option<Arc<Session>> {
        self.state.lock().session.take()?.upgrade()
    }

    /// Counts a `CONNECT` of this client. Returns the count, from 1.
    pub fn count_connect(&self) -> u32 {
        let mut state = self.state.lock();
        state.connects = state.connects.saturating_add(1);
        state.connects
    }

    /// Marks the client as waiting for a key. Returns whether it was not waiting before.
    pub fn begin_key_wait(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().is_waiting_for_key, true)
    }

    pub fn end_key_wait(&self) {
        self.state.lock().is_waiting_for_key = false;
    }

    pub fn is_waiting_for_key(&self) -> bool {
        self.state.lock().is_waiting_for_key
    }

    pub fn tcp(&self) -> TcpHandle {
        self.state.lock().tcp.clone()
    }

    /// Limits how many bytes are read of a WebSocket that has not shown a token yet.
    pub fn limit_unauthenticated(&self, tcp: &TcpHandle, bytes: usize) {
        if self.session().is_none() {
            tcp.allow(bytes);
        }
    }

    /// Sets the TCP connection of the WebSocket that the client uses from now on.
    pub fn set_tcp(&self, tcp: TcpHandle) {
        let mut state = self.state.lock();
        if state.session.is_some() {
            tcp.trust();
        }
        state.tcp = tcp;
    }
}
