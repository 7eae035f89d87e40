//! A connected client as the fan-out sees it.

use std::time::Instant;

use crate::protocol::Packet;

/// The id of a peer. One process never uses an id twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

#[derive(Clone, Debug, PartialEq)]
pub enum SendError {
    /// The queue is full, and the packet is returned. The peer calls [`super::Relief::has_room`] when the queue has room again
    /// or the connection has ended.
    Full(Packet),
    /// The connection has ended. The peer will be removed soon.
    Closed,
}

/// A socket, reduced to what the fan-out needs of it. No method may call back into the fan-out.
pub trait Peer: Clone + Send + 'static {
    /// Queues one packet behind all earlier ones. Returns whether [`Peer::flush`] has to be called after the turn.
    fn send(&self, packet: Packet) -> Result<bool, SendError>;

    /// Sends the queued packets, as far as the connection accepts them.
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
