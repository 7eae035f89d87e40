//! One Engine.IO connection: what waits to be sent on it, and the transport that it goes by.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, futures::Notified};

use crate::{fanout::SendError, protocol::Packet};

use super::{Gateway, polled::Polling, session::Connection, sid::Sid, transport::Wire};

/// Packets that one system call takes.
const MAX_SLICES: usize = 32;
/// Bytes that one system call takes. The connection's lock is held for one system call at a time, for the fan-out may wait
/// for it while it holds its own.
const MAX_WRITTEN: usize = 128 * 1024;
/// System calls that one flush makes. The rest is left to the connection's task: whoever flushes has others to flush.
const MAX_WRITES: usize = 4;
/// Frames of the WebSocket protocol that wait for a client.
const MAX_ANSWERS: usize = 64;
/// A queue that a burst has made larger is given back.
const SMALL_QUEUE: usize = 16;
/// Between the packets of a polling client.
pub(super) const SEPARATOR: u8 = 0x1E;
/// What one answer to a polling client takes, unless a packet is larger. No ping overtakes an answer that is on its way, so
/// that a slow client has to read one within the time after which it misses a ping.
const MAX_POLLED_BYTES: usize = 256 * 1024;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// By the client, or by us before it has a session.
    TransportClose,
    /// Two requests wait for packets at once.
    MultiplePolling,
    Malformed,
    /// It broke, or is broken off.
    TransportError,
    HeartbeatTimeout,
    /// By us; the client comes back.
    ClosedHere,
}

impl DisconnectReason {
    /// Whether the client is still to get what waits for it.
    pub fn is_orderly(self) -> bool {
        matches!(self, Self::TransportClose | Self::Malformed | Self::ClosedHere)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportType {
    Polling,
    Websocket,
}

#[derive(Debug)]
pub struct Socket {
    pub id: Sid,
    pub data: Connection,
    gateway: Weak<Gateway>,
    /// Packets of the fan-out that may wait. Heartbeats come on top.
    capacity: usize,
    core: Mutex<Core>,
    /// Something that its tasks wait for: packets for a polling client, room on the wire, its end.
    changed: Notify,
}

#[derive(Debug)]
struct Core {
    queue: VecDeque<Packet>,
    /// Of the first packet, so many bytes are on the wire already.
    written: usize,
    /// So many bytes were given to the kernel since the connection has its WebSocket.
    given: u64,
    line: Line,
    /// The connection's task writes on: the wire takes nothing at the moment, or there was too much for one flush.
    stalled: bool,
    /// A heartbeat was answered.
    heard: bool,
    /// The fan-out found no room in the queue, and wants to know when there is some.
    wanted: bool,
    closed: Option<DisconnectReason>,
}

#[derive(Debug)]
enum Line {
    Polling(Box<Polling>),
    Websocket(Arc<Wire>),
    /// A WebSocket's, when its task has ended.
    Gone,
}

/// What a polling request is answered with.
#[derive(Debug, PartialEq, Eq)]
pub enum Polled {
    Packets(Vec<Packet>),
    Nothing,
}

impl Socket {
    pub fn polling(gateway: &Arc<Gateway>, data: Connection) -> Arc<Self> {
        let line = Line::Polling(Box::new(Polling::new(Instant::now())));
        Self::new(Arc::downgrade(gateway), gateway.settings.limits.send_queue, data, line)
    }

    pub fn websocket(gateway: &Arc<Gateway>, data: Connection, wire: Arc<Wire>) -> Arc<Self> {
        let capacity = gateway.settings.limits.send_queue;
        Self::new(Arc::downgrade(gateway), capacity, data, Line::Websocket(wire))
    }

    fn new(gateway: Weak<Gateway>, capacity: usize, data: Connection, line: Line) -> Arc<Self> {
        let core = Core {
            queue: VecDeque::new(),
            written: 0,
            given: 0,
            line,
            stalled: false,
            heard: false,
            wanted: false,
            closed: None,
        };
        let (core, changed) = (Mutex::new(core), Notify::new());
        Arc::new(Self { id: Sid::random(), data, gateway, capacity, core, changed })
    }

    /// Ends the connection, behind what is queued if the reason is an orderly one. The gateway is told by another task: this
    /// may be called under the fan-out's lock.
    pub fn close(self: &Arc<Self>, reason: DisconnectReason) {
        if !self.set_closed(reason) || !self.is_polling() {
            return;
        }
        if let Some(gateway) = self.gateway.upgrade() {
            let socket = self.clone();
            tokio::spawn(async move { gateway.on_disconnect(&socket, reason) });
        }
    }

    pub fn is_polling(&self) -> bool {
        self.transport_type() == TransportType::Polling
    }

    pub fn transport_type(&self) -> TransportType {
        match self.core().line {
            Line::Polling(_) => TransportType::Polling,
            Line::Websocket(_) | Line::Gone => TransportType::Websocket,
        }
    }

    /// Queues a packet. Whether [`Socket::flush`] has to be called for it: else somebody is about to, or waits for the wire.
    pub fn send(&self, packet: Packet) -> Result<bool, SendError> {
        let mut core = self.core();
        if core.closed.is_some() {
            return Err(SendError::Closed);
        }
        if core.queue.len() >= self.capacity {
            core.wanted = true;
            return Err(SendError::Full(packet));
        }
        core.queue.push_back(packet);
        Ok(core.queue.len() == 1)
    }

    /// Sends a packet, however full the queue is: heartbeats, answers to a `CONNECT`, last words.
    pub fn send_now(&self, packet: Packet) {
        let mut core = self.core();
        if core.closed.is_none() {
            core.queue.push_back(packet);
            drop(core);
            self.flush();
        }
    }

    /// Queues a ping ahead of all messages, unless one waits there already: its order among them means nothing, and behind
    /// them it would come too late to a client that reads slowly. Where it ends, in [`Traffic::given`].
    pub fn ping(&self) -> u64 {
        let mut core = self.core();
        let place = core.ahead();
        let before: usize = core.queue.iter().take(place).map(|packet| packet.frame().len()).sum();
        let end = core.given + (before - core.written) as u64;
        let ping = Packet::ping();
        if core.closed.is_some() || core.queue.iter().take(place).any(|packet| *packet == ping) {
            return end;
        }
        let end = end + ping.frame().len() as u64;
        core.queue.insert(place, ping);
        if let Line::Polling(polling) = &mut core.line {
            polling.ping(Instant::now());
        }
        drop(core);
        self.flush();
        end
    }

    /// Answers what the WebSocket protocol wants answered, ahead of all messages; a client that reads nothing gets only the
    /// first answers. Nothing follows what a broken connection was in the middle of.
    pub fn answer(&self, frames: Vec<u8>) {
        let mut core = self.core();
        let place = core.ahead();
        if core.closed.is_none() && place < MAX_ANSWERS {
            core.queue.insert(place, Packet::control(frames));
            drop(core);
            self.flush();
        }
    }

    /// The answer to the end of a WebSocket, which nothing may follow.
    pub fn answer_end(&self, frames: Vec<u8>) {
        self.send_now(Packet::control(frames));
    }

    /// Moves what waits to the wire, as far as it takes it, but not more than a little; a polling client's request is
    /// answered.
    pub fn flush(&self) {
        for writes_left in (0..MAX_WRITES).rev() {
            let mut core = self.core();
            let stalled = core.stalled;
            let Line::Websocket(wire) = &core.line else {
                drop(core);
                return self.changed.notify_waiters();
            };
            let wire = wire.clone();
            core.write(|slices| wire.try_write(slices), &wire);
            let is_done = core.stalled || core.queue.is_empty();
            core.stalled |= !is_done && writes_left == 0;
            let (has_changed, has_room) = (core.stalled != stalled, core.has_room(self.capacity));
            drop(core);
            if has_changed {
                self.changed.notify_waiters();
            }
            if has_room {
                self.tell_of_room();
            }
            if is_done {
                return;
            }
        }
    }

    /// The connection's task writes on.
    pub fn resume(&self) {
        self.core().stalled = false;
        self.flush();
    }

    /// Writes what the kernel takes of a wire that is full. The runtime says that there is room again only when a third of the
    /// kernel's buffer is empty, which takes a slow client longer than it may take nothing.
    pub fn probe(&self) {
        let mut core = self.core();
        let Line::Websocket(wire) = &core.line else { return };
        let wire = wire.clone();
        core.stalled = false;
        core.write(|slices| wire.write_at_once(slices), &wire);
        // What is left waits for the runtime's word as before.
        core.stalled = !core.queue.is_empty();
        let has_room = core.has_room(self.capacity);
        drop(core);
        if has_room {
            self.tell_of_room();
        }
    }

    pub fn is_stalled(&self) -> bool {
        self.core().stalled
    }

    /// How many bytes were given to the kernel, and whether more wait.
    pub fn given(&self) -> (u64, bool) {
        let core = self.core();
        (core.given, core.stalled)
    }

    pub fn has_sent_all(&self) -> bool {
        self.core().queue.is_empty()
    }

    /// When a polling client last took something, with the time that a slow one needs for it.
    pub fn polled_until(&self) -> Option<Instant> {
        match &self.core().line {
            Line::Polling(polling) => Some(polling.busy_until()),
            _ => None,
        }
    }

    /// Bytes of an answer to a polling client have left.
    pub fn took(&self, bytes: usize) {
        if let Line::Polling(polling) = &mut self.core().line {
            polling.took(Instant::now(), bytes);
        }
    }

    /// By when a polling client has to have answered a ping.
    pub fn answer_due(&self, timeout: Duration) -> Option<Instant> {
        match &self.core().line {
            Line::Polling(polling) => Some(polling.answer_due(timeout)),
            _ => None,
        }
    }

    /// The fan-out has been waiting for room in the queue.
    fn tell_of_room(&self) {
        if let Some(gateway) = self.gateway.upgrade()
            && let Some(session) = self.data.session()
        {
            gateway.hub.has_room(session.id);
        }
    }

    /// Nothing more is queued. The task of a WebSocket does the rest. Whether this call ended it.
    pub fn set_closed(&self, reason: DisconnectReason) -> bool {
        let mut core = self.core();
        if core.closed.is_some() {
            return false;
        }
        core.closed = Some(reason);
        if !reason.is_orderly() {
            core.queue.clear();
        }
        let has_room = core.has_room(self.capacity);
        drop(core);
        self.changed.notify_waiters();
        if has_room {
            self.tell_of_room();
        }
        true
    }

    pub fn closed_for(&self) -> Option<DisconnectReason> {
        self.core().closed
    }

    pub fn is_closed(&self) -> bool {
        self.closed_for().is_some()
    }

    /// Until the connection ends.
    pub async fn closed(&self) {
        self.until(|core| core.closed.map(|_| ())).await;
    }

    /// To be enabled before it is looked at what may have changed.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// A heartbeat is answered.
    pub fn hear(&self) {
        self.core().heard = true;
        self.changed.notify_waiters();
    }

    pub fn forget_heard(&self) {
        self.core().heard = false;
    }

    /// Until a heartbeat has been answered, or this is no polling connection any more; whether it still is one.
    pub async fn heard_polling(&self) -> bool {
        self.until(|core| match (&core.line, core.closed) {
            (Line::Polling(_), None) => core.heard.then_some(true),
            _ => Some(false),
        })
        .await
    }

    /// Until this is no polling connection any more.
    pub async fn polled_enough(&self) {
        self.until(|core| (!matches!(core.line, Line::Polling(_)) || core.closed.is_some()).then_some(()))
            .await;
    }

    /// A request that waits for packets begins. None: there is one already, or the client has a WebSocket.
    pub fn ask(&self) -> Option<Asking<'_>> {
        match &mut self.core().line {
            Line::Polling(polling) => polling.ask(Instant::now()).then(|| Asking(self)),
            _ => None,
        }
    }

    /// A client tries a WebSocket. Until it has one its requests are answered at once. Whether it is the first to try.
    pub fn begin_upgrade(&self) -> bool {
        let first = match &mut self.core().line {
            Line::Polling(polling) => !std::mem::replace(&mut polling.upgrading, true),
            _ => false,
        };
        self.changed.notify_waiters();
        first
    }

    pub fn abandon_upgrade(&self) {
        if let Line::Polling(polling) = &mut self.core().line {
            polling.upgrading = false;
        }
    }

    /// From now on by this wire. When the client was last pinged by the other one; None: the connection has ended.
    pub fn upgrade(&self, wire: Arc<Wire>) -> Option<Instant> {
        let mut core = self.core();
        if core.closed.is_some() {
            return None;
        }
        let pinged = match &core.line {
            Line::Polling(polling) => polling.pinged,
            _ => Instant::now(),
        };
        core.line = Line::Websocket(wire);
        drop(core);
        self.flush();
        self.changed.notify_waiters();
        Some(pinged)
    }

    /// Lets go of the wire: the last who does closes it.
    pub fn hang_up(&self) {
        let mut core = self.core();
        core.line = Line::Gone;
        core.queue = VecDeque::new();
    }

    async fn until<T>(&self, look: impl Fn(&mut Core) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.core()) {
                return found;
            }
            changed.await;
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A polling request that waits for packets.
#[derive(Debug)]
pub struct Asking<'a>(&'a Socket);

impl Asking<'_> {
    /// Until there is something to answer.
    pub async fn answer(&self) -> Polled {
        let polled = self.0.until(Core::polled).await;
        if self.0.core().has_room(self.0.capacity) {
            self.0.tell_of_room();
        }
        polled
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Line::Polling(polling) = &mut self.0.core().line {
            polling.asking = false;
        }
    }
}

impl Core {
    fn polled(&mut self) -> Option<Polled> {
        let (upgrading, by_websocket) = match &self.line {
            Line::Polling(polling) => (polling.upgrading, false),
            Line::Websocket(_) => (true, true),
            Line::Gone => (false, false),
        };
        if self.queue.is_empty() || by_websocket {
            return match self.closed {
                Some(_) => Some(Polled::Packets(vec![Packet::close()])),
                None => upgrading.then_some(Polled::Nothing),
            };
        }
        let (mut packets, mut bytes) = (Vec::new(), 0);
        while let Some(packet) = self.queue.front() {
            bytes += packet.payload().len();
            if !packets.is_empty() && bytes > MAX_POLLED_BYTES {
                break;
            }
            packets.extend(self.queue.pop_front());
        }
        if self.closed.is_some() && self.queue.is_empty() {
            packets.push(Packet::close());
        }
        if let Line::Polling(polling) = &mut self.line {
            polling.answer(Instant::now());
        }
        self.give_back();
        Some(Polled::Packets(packets))
    }

    /// How many packets are ahead of the first message of which nothing has left: one that has left in part, and those that are
    /// none. They do not wait for messages.
    fn ahead(&self) -> usize {
        let begun = usize::from(self.written > 0);
        begun + self.queue.iter().skip(begun).take_while(|packet| !packet.is_message()).count()
    }

    /// Whether the fan-out waits for room, and there is some. It is told once.
    fn has_room(&mut self, capacity: usize) -> bool {
        let has_room = self.wanted && (self.queue.len() < capacity || self.closed.is_some());
        self.wanted &= !has_room;
        has_room
    }

    /// One system call, unless the connection's task waits for the wire.
    fn write(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>, wire: &Wire) {
        if self.stalled || self.queue.is_empty() {
            return;
        }
        match self.write_some(write) {
            Ok(written) => self.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stalled = true,
            Err(_) => {
                // Its task finds the end of it.
                wire.shut();
                self.queue.clear();
                self.written = 0;
            }
        }
        self.give_back();
    }

    fn write_some(&self, write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (mut count, mut left, mut skipped) = (0, MAX_WRITTEN, self.written);
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
        self.given += written as u64;
        self.written += written;
        while let Some(packet) = self.queue.front()
            && self.written >= packet.frame().len()
        {
            self.written -= packet.frame().len();
            self.queue.pop_front();
        }
    }

    fn give_back(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > SMALL_QUEUE {
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests;
