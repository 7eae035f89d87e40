//! A client's connection, as its session sees it. Each transport implements it.

use std::{fmt, sync::Arc, time::Instant};

use tracing::Span;

use crate::{fanout::SendError, metrics::Transport, wire::Message};

/// Why a session's connection is closed. Some transports tell the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The token has expired, or its user was disconnected.
    TokenEnded,
    /// The client sends too much, or its user has too many connections.
    TooMany,
    /// The client is too slow, or the server could not send it its rooms. The client has to resync.
    Overloaded,
}

pub trait Connection: fmt::Debug + Send + Sync {
    /// Queues a message behind all earlier ones. Returns whether [`Connection::flush`] has to be called.
    ///
    /// If the queue is full, the message is returned, and the connection calls [`super::Session::report_space`] when the queue has
    /// room again or the connection has ended.
    fn send(&self, message: Message) -> Result<bool, SendError>;

    /// Queues a message even if the queue is full, and flushes. This is for the reason of the end.
    fn send_now(&self, message: Message);

    /// Sends the queued messages, as far as the client's connection accepts them.
    fn flush(&self);

    /// Closes the connection after the queued messages, in a way that makes the client reconnect.
    fn close_in_order(self: Arc<Self>, reason: CloseReason);

    /// Closes the connection now and drops the queued messages. The client reconnects.
    fn close_now(self: Arc<Self>, reason: CloseReason);

    /// When the client last accepted bytes.
    fn last_progress(&self) -> Option<Instant>;

    /// The transport that the metrics count this connection under.
    fn transport(&self) -> Transport;

    /// The span of all log lines about this connection.
    fn span(&self) -> Span;
}
