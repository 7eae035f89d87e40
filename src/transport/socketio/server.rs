//! The Socket.IO server: its sockets, from the first request to the end, and the packets of their clients.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::value::RawValue;
use tracing::field;

use super::{
    frame::{Frame, FrameError},
    socket::{DisconnectReason, Socket, TransportType},
    sockets::Sockets,
};
use crate::{
    config::HeartbeatConfig,
    edge::UnauthenticatedLimits,
    json::replace_lone_surrogates,
    metrics::Metrics,
    rate_limited_log::rate_limited_log,
    session::{Incoming, Sessions},
    transport::{Server, admission::close_without_session, read_limits::ReadLimits},
    wire::{ClientEventName, RequestId},
};

/// The Socket.IO server of one node.
#[derive(Debug)]
pub struct SocketIo {
    pub(super) sessions: Arc<Sessions>,
    pub(super) heartbeat: HeartbeatConfig,
    pub(super) send_queue: usize,
    pub(super) read_limits: ReadLimits,
    pub(super) unauthenticated_limits: Arc<UnauthenticatedLimits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) sockets: Sockets,
    next_connection: AtomicU64,
}

impl SocketIo {
    pub fn new(
        sessions: Arc<Sessions>,
        heartbeat: HeartbeatConfig,
        unauthenticated_limits: Arc<UnauthenticatedLimits>,
    ) -> Self {
        Self {
            send_queue: sessions.limits().send_queue,
            read_limits: ReadLimits::of(&sessions),
            metrics: sessions.metrics().clone(),
            sessions,
            heartbeat,
            unauthenticated_limits,
            sockets: Sockets::default(),
            next_connection: AtomicU64::new(1),
        }
    }

    pub(super) fn on_connect(&self, socket: &Arc<Socket>) {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        // The log must not show the Engine.IO id, because that id lets its holder act as the polling client.
        socket.client.set_span(tracing::info_span!("connection", id, user = field::Empty));
        self.sockets.insert(socket);
        // This call may close the socket at once, so it comes after the insertion: the socket can then be removed.
        if let Some(unauthenticated_permit) = &socket.client.unauthenticated_permit {
            self.unauthenticated_limits.register(unauthenticated_permit, socket.clone());
        }
        close_without_session::<Self>(socket);
    }

    pub(super) fn on_disconnect(&self, socket: &Socket, reason: DisconnectReason) {
        let _span = socket.client.span().entered();
        self.sockets.remove(socket.own.id);
        if let Some(unauthenticated_permit) = &socket.client.unauthenticated_permit {
            unauthenticated_permit.release();
        }
        if let Some(session) = socket.client.take_session() {
            self.sessions.end(&session, true);
        }
        self.metrics.clients.ended.inc(reason.into());
    }

    pub(super) fn on_message(self: &Arc<Self>, message: &str, socket: &Arc<Socket>) {
        let _span = socket.client.span().entered();
        if message.len() > self.read_limits.message() {
            return self.reject_malformed(socket, FrameError::TooLong);
        }
        let message = replace_lone_surrogates(message);
        let (frame, session) = (Frame::parse(&message), socket.client.session());
        if message.len() > self.read_limits.plain_message && !may_contain_token(&frame) {
            return self.reject_malformed(socket, FrameError::TooLong);
        }
        if let Some(session) = &session
            && !self.sessions.may_send(session, incoming_of(&frame).as_ref())
        {
            return;
        }
        match (&frame, session) {
            (Ok(Frame::Connect { namespace, auth }), _) => self.connect(socket, namespace, *auth),
            (Ok(Frame::Disconnect), Some(session)) => {
                socket.client.take_session();
                self.sessions.end(&session, false);
                close_without_session::<Self>(socket);
            }
            (Ok(Frame::Event { name, args, ack, binary }), Some(session)) => {
                self.sessions.receive(&session, incoming(name, args, *ack, *binary));
            }
            (Ok(Frame::Ack | Frame::Disconnect) | Err(FrameError::Namespace), _) => {}
            // An event without a session is ignored. It may have been on its way when its session ended.
            (Ok(Frame::Event { .. }), None) => {}
            (Err(error), _) => self.reject_malformed(socket, *error),
        }
    }

    /// Counts an attachment against the rate limit, and otherwise ignores it. Its event has already been refused.
    pub(super) fn on_binary(&self, socket: &Socket) {
        if let Some(session) = socket.client.session() {
            self.sessions.may_send(&session, None);
        }
    }

    /// Counts a client that is rejected, or whose connection is closed, because of what it sent.
    pub(super) fn count_error(&self) {
        self.metrics.clients.errors.inc();
    }

    fn reject_malformed(&self, socket: &Arc<Socket>, error: FrameError) {
        self.count_error();
        rate_limited_log!(info, %error, "closed a connection that does not speak Socket.IO");
        socket.close(DisconnectReason::Malformed);
    }
}

fn incoming_of<'a>(frame: &'a Result<Frame<'a>, FrameError>) -> Option<Incoming<'a>> {
    match frame {
        Ok(Frame::Event { name, args, ack, binary }) => Some(incoming(name, args, *ack, *binary)),
        _ => None,
    }
}

fn incoming<'a>(
    name: &'a str,
    arguments: &'a [&'a RawValue],
    id: Option<u64>,
    is_binary: bool,
) -> Incoming<'a> {
    Incoming { name, arguments, id: id.map(RequestId::Number), is_binary }
}

impl Server for SocketIo {
    fn close_all(&self) {
        for socket in self.sockets.all() {
            socket.close(DisconnectReason::ClosedHere);
        }
    }

    fn shut_all(&self) {
        for socket in self.sockets.all() {
            if socket.transport_type() == TransportType::Websocket {
                socket.client.tcp().shut();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

/// Returns whether a message may contain a token. Such a message has a length limit of its own.
fn may_contain_token(frame: &Result<Frame<'_>, FrameError>) -> bool {
    match frame {
        Ok(Frame::Connect { .. }) => true,
        Ok(Frame::Event { name, .. }) => name.parse() == Ok(ClientEventName::AuthRefresh),
        _ => false,
    }
}
