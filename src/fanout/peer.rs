//! A connected client as the fan-out sees it.

use std::time::Instant;

use crate::wire::Message;

/// The id of a peer. One process never uses an id twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

#[derive(Clone, Debug, PartialEq)]
pub enum SendError {
    /// The queue is full, and the message is returned. The peer calls [`super::Relief::has_room`] when the queue has room again
    /// or the connection has ended.
    Full(Message),
    /// The connection has ended. The peer will be removed soon.
    Closed,
}

/// A socket, reduced to what the fan-out needs of it. No method may call back into the fan-out.
pub trait Peer: Clone + Send + 'static {
    /// Queues one message behind all earlier ones. Returns whether [`Peer::flush`] has to be called after the turn.
    fn send(&self, message: Message) -> Result<bool, SendError>;

    /// Sends the queued messages, as far as the connection accepts them.
    fn flush(&self) {}

    /// Closes the transport, because the client would miss events. The client then reconnects by itself.
    fn cut(&self);

    /// When the connection last accepted bytes. The queue stays full while a large answer is being sent.
    fn took(&self) -> Option<Instant> {
        None
    }

    /// Requests that the session enters every room in [`super::Fanout::wanted`] again.
    fn refresh(&self);
}
