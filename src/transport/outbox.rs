//! The packets that wait for one client, in order, and how they are written to its WebSocket.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
};

use super::Tcp;

/// One system call writes at most this many packets.
pub(super) const MAX_SLICES_PER_WRITE: usize = 32;
/// One system call writes at most this many bytes. The connection's lock is held for one system call at a time, because the
/// fan-out may wait for this lock while it holds its own.
pub(super) const MAX_BYTES_PER_WRITE: usize = 128 * 1024;
/// Control frames of the WebSocket protocol are dropped when this many packets wait ahead of the messages.
const MAX_CONTROL_FRAMES: usize = 64;
/// An empty queue with a larger capacity than this frees its memory.
const SMALL_QUEUE: usize = 16;

/// An outgoing packet of a protocol, in the WebSocket frame that carries it. Clones share the bytes.
pub(super) trait Packet: fmt::Debug + PartialEq + Send + 'static {
    /// The ping of the heartbeat.
    fn ping() -> Self;

    /// WebSocket frames that the protocol does not know, for example the answer to a ping frame.
    fn control(frames: Vec<u8>) -> Self;

    /// The bytes for a WebSocket: the whole frame.
    fn frame(&self) -> &[u8];

    /// Returns whether the order of this packet among the others matters. Other packets may overtake messages.
    fn is_message(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Outbox<P> {
    pub queue: VecDeque<P>,
    /// How many bytes of the first packet have been written.
    front_written: usize,
    /// How many bytes were written to the kernel since the WebSocket began.
    total_written: u64,
    /// The connection's task has to write the rest: the kernel's buffer is full, or there was too much for one flush.
    pub stalled: bool,
    /// The fan-out found no room in the queue, and waits to be notified of room.
    pub space_requested: bool,
}

impl<P> Default for Outbox<P> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            front_written: 0,
            total_written: 0,
            stalled: false,
            space_requested: false,
        }
    }
}

impl<P: Packet> Outbox<P> {
    pub fn total_written(&self) -> u64 {
        self.total_written
    }

    /// Queues a ping ahead of all messages, unless `is_closed` or a ping already waits there. Returns where the ping ends, counted
    /// as in [`Outbox::total_written`], and whether it was queued.
    pub fn ping(&mut self, is_closed: bool) -> (u64, bool) {
        let index = self.priority_count();
        let before: usize = self.queue.iter().take(index).map(|packet| packet.frame().len()).sum();
        let end = self.total_written + (before - self.front_written) as u64;
        let ping = P::ping();
        if is_closed || self.queue.iter().take(index).any(|packet| *packet == ping) {
            return (end, false);
        }
        let end = end + ping.frame().len() as u64;
        self.queue.insert(index, ping);
        (end, true)
    }

    /// Queues a packet ahead of all messages, if not too many packets wait there. Returns whether it was queued.
    pub fn insert_before_messages(&mut self, packet: P) -> bool {
        let index = self.priority_count();
        let has_room = index < MAX_CONTROL_FRAMES;
        if has_room {
            self.queue.insert(index, packet);
        }
        has_room
    }

    /// How many packets are ahead of the first message that can still be overtaken. These are a packet that is written in part, and
    /// packets that are not messages.
    fn priority_count(&self) -> usize {
        let begun = usize::from(self.front_written > 0);
        begun + self.queue.iter().skip(begun).take_while(|packet| !packet.is_message()).count()
    }

    /// Drops the packets that have not begun to leave.
    pub fn drop_unbegun(&mut self) {
        self.queue.truncate(usize::from(self.front_written > 0));
    }

    /// Returns whether the fan-out waits for room and the queue has space. `true` is returned only once, and the caller then notifies
    /// the fan-out.
    pub fn take_space_request(&mut self, capacity: usize, is_closed: bool) -> bool {
        let has_space = self.space_requested && (self.queue.len() < capacity || is_closed);
        self.space_requested &= !has_space;
        has_space
    }

    /// Makes one system call, unless the connection's task waits for the kernel.
    pub fn write(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>, tcp: &Tcp) {
        if self.stalled || self.queue.is_empty() {
            return;
        }
        match self.write_some(write) {
            Ok(written) => self.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stalled = true,
            Err(_) => {
                // The connection's task notices that it has ended.
                tcp.shut();
                self.clear();
            }
        }
        self.free_unused_memory();
    }

    fn write_some(&self, write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES_PER_WRITE];
        let (mut count, mut left, mut skipped) = (0, MAX_BYTES_PER_WRITE, self.front_written);
        for (slice, packet) in slices.iter_mut().zip(&self.queue) {
            let rest = packet.frame().get(skipped..).unwrap_or_default();
            let rest = rest.get(..left).unwrap_or(rest);
            *slice = IoSlice::new(rest);
            count += 1;
            skipped = 0;
            left -= rest.len();
            if left == 0 {
                break;
            }
        }
        write(slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, written: usize) {
        self.total_written += written as u64;
        self.front_written += written;
        while let Some(packet) = self.queue.front()
            && self.front_written >= packet.frame().len()
        {
            self.front_written -= packet.frame().len();
            self.queue.pop_front();
        }
    }

    /// Drops what waits. If the first packet was written in part, the caller writes nothing more.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.front_written = 0;
    }

    pub fn free_unused_memory(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > SMALL_QUEUE {
            self.queue = VecDeque::new();
        }
    }
}
