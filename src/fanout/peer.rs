//! A connected client as the fan-out sees it.

use std::time::Instant;

use crate::protocol::Packet;

/// Never given twice in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

#[derive(Clone, Debug, PartialEq)]
pub enum SendError {
    /// The queue is full; the packet is given back. When there is room again, or the connection has ended, the peer calls
    /// [`super::Relief::has_room`].
    Full(Packet),
    /// The connection has ended; its removal is on the way.
    Closed,
}

/// A socket, reduced to what the fan-out does with it. None of these may call back into the fan-out.
pub trait Peer: Clone + Send + 'static {
    /// Queues one packet behind all earlier ones. Whether [`Peer::flush`] has to be called for it, when the turn is over.
    fn send(&self, packet: Packet) -> Result<bool, SendError>;

    /// Sends what is queued, as far as the client takes it.
    fn flush(&self) {}

    /// Closes the transport so that the client reconnects by itself: it would have missed something.
    fn cut(&self);

    /// When the connection last took bytes: a large answer is long on its way, and the queue stays full meanwhile.
    fn took(&self) -> Option<Instant> {
        None
    }

    /// Asks for every room that [`super::Fanout::wanted`] lists to be entered anew.
    fn refresh(&self);
}
