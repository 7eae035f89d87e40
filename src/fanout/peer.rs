//! A connected client as the fan-out sees it.

use std::{
    hash::{BuildHasherDefault, Hasher},
    time::Instant,
};

use crate::{shrinking_map::ShrinkingMap, wire::Message};

/// The id of a peer. One process never uses an id twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// A map by peers. Each delivery looks up its peer. No client chooses the ids, so they need no slow hash.
pub(super) type PeerMap<V> = ShrinkingMap<PeerId, V, BuildHasherDefault<PeerIdHasher>>;

#[derive(Clone, Copy, Debug, Default)]
pub struct PeerIdHasher(u64);

impl Hasher for PeerIdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((self.0 << 8) ^ u64::from(*byte)));
    }

    /// Consecutive ids differ in the low bits, and the multiplication spreads them over the high bits.
    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum SendError {
    /// The queue is full, and the message is returned. The peer calls [`super::SpaceReports::report_space`] when the queue has space again
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
    fn last_read(&self) -> Option<Instant> {
        None
    }

    /// Requests that the session enters every room again that the client has joined in this stream (see [`super::Kind::NAME`]).
    fn refresh(&self, stream: &'static str);
}
