//! One Engine.IO connection: its queue of outgoing packets, and the transport that it uses.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use tracing::Span;

use super::{client::Client, frame::encode_message, packet::Packet, polling_state::PollingState, sid::Sid};
use crate::{
    edge::Evict,
    fanout::SendError,
    metrics::{self, EndReason},
    session::Connection,
    transport::Tcp,
    wire::Message,
};

/// One system call writes at most this many packets.
const MAX_SLICES_PER_WRITE: usize = 32;
/// One system call writes at most this many bytes. The connection's lock is held for one system call at a time, because the
/// fan-out may wait for this lock while it holds its own.
const MAX_BYTES_PER_WRITE: usize = 128 * 1024;
/// One flush makes at most this many system calls. The connection's task does the rest, because the caller has other connections
/// to flush.
const MAX_WRITES_PER_FLUSH: usize = 4;
/// Control frames of the WebSocket protocol are dropped when this many packets wait ahead of the messages.
const MAX_CONTROL_FRAMES: usize = 64;
/// An empty queue with a larger capacity than this frees its memory.
const SMALL_QUEUE: usize = 16;
/// The separator between packets in the body of a polling request or answer.
pub(super) const SEPARATOR: u8 = 0x1E;
/// The size limit for one answer to a polling client, unless a single packet is larger. A ping cannot overtake an answer that is on
/// its way. A slow client must therefore be able to read an answer before it misses a ping.
const MAX_POLLED_BYTES: usize = 256 * 1024;
/// A polling client has this long to fetch its last events with its next request.
const POLLING_GRACE: Duration = Duration::from_millis(900);

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The client sent the packet `close`.
    ClientClose,
    /// The client closed it in another way, or the server closed it before the client had a session.
    TransportClose,
    /// Two polling requests waited for packets at once.
    MultiplePolling,
    Malformed,
    /// The connection failed, or the server aborted it.
    TransportError,
    HeartbeatTimeout,
    /// The server closed it. The client reconnects.
    ClosedHere,
}

impl DisconnectReason {
    /// Returns whether the client ended the connection. The client then no longer uses the id.
    pub fn is_by_client(self) -> bool {
        matches!(self, Self::ClientClose | Self::Malformed | Self::MultiplePolling)
    }

    /// Returns whether the client still gets the packets that are queued.
    pub fn is_orderly(self) -> bool {
        matches!(self, Self::ClientClose | Self::TransportClose | Self::Malformed | Self::ClosedHere)
    }
}

impl From<DisconnectReason> for EndReason {
    fn from(reason: DisconnectReason) -> Self {
        match reason {
            DisconnectReason::ClientClose | DisconnectReason::TransportClose => Self::TransportClose,
            DisconnectReason::MultiplePolling => Self::MultiplePolling,
            DisconnectReason::Malformed => Self::Malformed,
            DisconnectReason::TransportError => Self::TransportError,
            DisconnectReason::HeartbeatTimeout => Self::HeartbeatTimeout,
            DisconnectReason::ClosedHere => Self::ClosedHere,
        }
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
    pub client: Client,
    /// The fan-out may queue packets up to this number. Heartbeats come on top.
    capacity: usize,
    core: Mutex<Core>,
    /// Wakes the connection's tasks: for packets for a polling client, for a change of `stalled`, or for the end.
    changed: Notify,
}

#[derive(Debug)]
struct Core {
    queue: VecDeque<Packet>,
    /// How many bytes of the first packet have been written.
    front_written: usize,
    /// How many bytes were written to the kernel since the WebSocket began.
    total_written: u64,
    transport: Transport,
    /// The connection's task has to write the rest: the kernel's buffer is full, or there was too much for one flush.
    stalled: bool,
    /// The client has answered a heartbeat.
    has_pong: bool,
    /// The fan-out found no room in the queue, and waits to be notified of room.
    space_requested: bool,
    closed: Option<DisconnectReason>,
}

#[derive(Debug)]
enum Transport {
    Polling(Box<PollingState>),
    Websocket(Arc<Tcp>),
    /// The task of the WebSocket has ended.
    Ended,
}

/// The answer to a polling request.
#[derive(Debug, PartialEq, Eq)]
pub enum PollAnswer {
    Packets(Vec<Packet>),
    Nothing,
}

impl Socket {
    pub fn polling(capacity: usize, client: Client) -> Arc<Self> {
        Self::new(capacity, client, Transport::Polling(Box::new(PollingState::new(Instant::now()))))
    }

    pub fn websocket(capacity: usize, client: Client, tcp: Arc<Tcp>) -> Arc<Self> {
        Self::new(capacity, client, Transport::Websocket(tcp))
    }

    fn new(capacity: usize, client: Client, transport: Transport) -> Arc<Self> {
        let core = Core {
            queue: VecDeque::new(),
            front_written: 0,
            total_written: 0,
            transport,
            stalled: false,
            has_pong: false,
            space_requested: false,
            closed: None,
        };
        let (core, changed) = (Mutex::new(core), Notify::new());
        Arc::new(Self { id: Sid::random(), client, capacity, core, changed })
    }

    pub fn is_polling(&self) -> bool {
        self.transport_type() == TransportType::Polling
    }

    pub fn transport_type(&self) -> TransportType {
        match self.core.lock().transport {
            Transport::Polling(_) => TransportType::Polling,
            Transport::Websocket(_) | Transport::Ended => TransportType::Websocket,
        }
    }

    /// Queues a message. Returns whether the caller has to call [`Socket::flush`]. If not, earlier packets are in the queue: another caller
    /// is about to flush them, a Tokio task waits for space in the kernel's buffer, or they wait for the client's next polling request.
    pub fn send(&self, message: Message) -> Result<bool, SendError> {
        let mut core = self.core.lock();
        if core.closed.is_some() {
            return Err(SendError::Closed);
        }
        if core.queue.len() >= self.capacity {
            core.space_requested = true;
            return Err(SendError::Full(message));
        }
        core.queue.push_back(encode_message(&message));
        Ok(core.queue.len() == 1)
    }

    /// Queues a packet even if the queue is full, for example an answer to a `CONNECT` or the reason for the end.
    pub fn send_now(&self, packet: Packet) {
        let mut core = self.core.lock();
        if core.closed.is_none() {
            core.queue.push_back(packet);
            drop(core);
            self.flush();
        }
    }

    /// Queues a ping ahead of all messages, unless a ping already waits there. The order of pings and messages has no meaning, and
    /// behind the messages a ping would reach a slow client too late. Returns where the ping ends, counted as in `Traffic::written`.
    pub fn ping(&self) -> u64 {
        let mut core = self.core.lock();
        let index = core.priority_count();
        let before: usize = core.queue.iter().take(index).map(|packet| packet.frame().len()).sum();
        let end = core.total_written + (before - core.front_written) as u64;
        let ping = Packet::ping();
        if core.closed.is_some() || core.queue.iter().take(index).any(|packet| *packet == ping) {
            return end;
        }
        let end = end + ping.frame().len() as u64;
        core.queue.insert(index, ping);
        if let Transport::Polling(polling) = &mut core.transport {
            polling.record_ping(Instant::now());
        }
        drop(core);
        self.flush();
        end
    }

    /// Queues answers that the WebSocket protocol requires, ahead of all messages. A client that reads nothing gets only the first
    /// answers. After the connection is closed nothing is queued, so nothing follows a packet that was cut off in the middle.
    pub fn queue_control_frames(&self, frames: Vec<u8>) {
        let mut core = self.core.lock();
        let index = core.priority_count();
        if core.closed.is_none() && index < MAX_CONTROL_FRAMES {
            core.queue.insert(index, Packet::control(frames));
            drop(core);
            self.flush();
        }
    }

    /// Queues the answer to the close frame of a WebSocket. Nothing may follow it.
    pub fn queue_close_frame(&self, frames: Vec<u8>) {
        self.send_now(Packet::control(frames));
    }

    /// Writes queued packets until the kernel's buffer is full, with at most [`MAX_WRITES_PER_FLUSH`] system calls. If the client uses polling,
    /// this wakes its waiting request instead.
    pub fn flush(&self) {
        for writes_left in (0..MAX_WRITES_PER_FLUSH).rev() {
            let mut core = self.core.lock();
            let stalled = core.stalled;
            let Transport::Websocket(tcp) = &core.transport else {
                drop(core);
                return self.changed.notify_waiters();
            };
            let tcp = tcp.clone();
            core.write(|slices| tcp.try_write(slices), &tcp);
            let is_done = core.stalled || core.queue.is_empty();
            core.stalled |= !is_done && writes_left == 0;
            let (has_changed, has_space) = (core.stalled != stalled, core.take_space_request(self.capacity));
            drop(core);
            if has_changed {
                self.changed.notify_waiters();
            }
            if has_space {
                self.report_space();
            }
            if is_done {
                return;
            }
        }
    }

    /// Continues to write. The connection's task calls this.
    pub fn resume(&self) {
        self.core.lock().stalled = false;
        self.flush();
    }

    /// Tries to write although the kernel's buffer was full. The runtime reports room only when a third of that buffer is empty. A
    /// slow client may need longer for this than `SLOW_CLIENT_TIMEOUT`.
    pub fn retry_write(&self) {
        let mut core = self.core.lock();
        let Transport::Websocket(tcp) = &core.transport else { return };
        let tcp = tcp.clone();
        core.stalled = false;
        core.write(|slices| tcp.write_directly(slices), &tcp);
        // The rest waits until the runtime reports room, as before.
        core.stalled = !core.queue.is_empty();
        let has_space = core.take_space_request(self.capacity);
        drop(core);
        if has_space {
            self.report_space();
        }
    }

    pub fn is_stalled(&self) -> bool {
        self.core.lock().stalled
    }

    /// How many bytes were written to the kernel, and whether more wait.
    pub fn write_progress(&self) -> (u64, bool) {
        let core = self.core.lock();
        (core.total_written, core.stalled)
    }

    pub fn has_sent_all(&self) -> bool {
        self.core.lock().queue.is_empty()
    }

    /// The time until which a slow polling client may still be reading its last answer.
    pub fn polling_busy_until(&self) -> Option<Instant> {
        match &self.core.lock().transport {
            Transport::Polling(polling) => Some(polling.busy_until()),
            _ => None,
        }
    }

    /// Records that bytes of an answer to a polling client have left.
    pub fn record_sent(&self, bytes: usize) {
        if let Transport::Polling(polling) = &mut self.core.lock().transport {
            polling.record_sent(Instant::now(), bytes);
        }
    }

    /// The deadline for a polling client's answer to a ping.
    pub fn pong_deadline(&self, timeout: Duration) -> Option<Instant> {
        match &self.core.lock().transport {
            Transport::Polling(polling) => Some(polling.pong_deadline(timeout)),
            _ => None,
        }
    }

    /// Tells the fan-out, which has been waiting for it, that the queue has space.
    fn report_space(&self) {
        if let Some(session) = self.client.session() {
            session.report_space();
        }
    }

    /// Closes the connection. If the reason is an orderly one, the client still gets the queued packets. From now on no packet is
    /// queued. The connection's task does the rest. Returns whether this call closed the connection.
    pub fn close(&self, reason: DisconnectReason) -> bool {
        let mut core = self.core.lock();
        if core.closed.is_some() {
            return false;
        }
        core.closed = Some(reason);
        if !reason.is_orderly() {
            core.queue.clear();
        }
        let has_space = core.take_space_request(self.capacity);
        drop(core);
        self.changed.notify_waiters();
        if has_space {
            self.report_space();
        }
        true
    }

    pub fn closed_for(&self) -> Option<DisconnectReason> {
        self.core.lock().closed
    }

    pub fn is_closed(&self) -> bool {
        self.closed_for().is_some()
    }

    /// Waits until the connection is closed.
    pub async fn closed(&self) {
        self.until(|core| core.closed.map(|_| ())).await;
    }

    /// The caller has to enable this before it checks what may have changed.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Records that the client has answered a heartbeat.
    pub fn record_pong(&self) {
        self.core.lock().has_pong = true;
        self.changed.notify_waiters();
    }

    pub fn clear_pong(&self) {
        self.core.lock().has_pong = false;
    }

    /// Waits until the client has answered a heartbeat. `false` means that the connection is closed or no longer uses polling.
    pub async fn wait_for_polling_pong(&self) -> bool {
        self.until(|core| match (&core.transport, core.closed) {
            (Transport::Polling(_), None) => core.has_pong.then_some(true),
            _ => Some(false),
        })
        .await
    }

    /// Waits until the connection is closed or no longer uses polling.
    pub async fn polling_ended(&self) {
        self.until(|core| (!core.is_polling() || core.closed.is_some()).then_some(())).await;
    }

    /// Why the connection was closed while the client used polling. The task of a WebSocket ends its own connection.
    pub fn polling_end(&self) -> Option<DisconnectReason> {
        let core = self.core.lock();
        core.closed.filter(|_| core.is_polling())
    }

    /// Begins a request that waits for packets. `None` means that another request already waits, or that the client has a WebSocket.
    pub fn begin_poll(self: &Arc<Self>) -> Option<PendingPoll> {
        match &mut self.core.lock().transport {
            Transport::Polling(polling) => polling
                .begin_poll(Instant::now())
                .then(|| PendingPoll { socket: self.clone(), is_answered: false }),
            _ => None,
        }
    }

    #[cfg(test)]
    fn has_pending_poll(&self) -> bool {
        matches!(&self.core.lock().transport, Transport::Polling(polling) if polling.poll_pending)
    }

    /// The client tries to upgrade to a WebSocket. During the upgrade, its polling requests are answered at once. Returns whether no
    /// other upgrade is in progress.
    pub fn begin_upgrade(&self) -> bool {
        let first = match &mut self.core.lock().transport {
            Transport::Polling(polling) => !std::mem::replace(&mut polling.upgrading, true),
            _ => false,
        };
        self.changed.notify_waiters();
        first
    }

    pub fn abandon_upgrade(&self) {
        if let Transport::Polling(polling) = &mut self.core.lock().transport {
            polling.upgrading = false;
        }
    }

    /// Moves the connection to this WebSocket. Returns when the client was last pinged by polling. `None` means that the connection
    /// is closed.
    pub fn upgrade(&self, tcp: Arc<Tcp>) -> Option<Instant> {
        let mut core = self.core.lock();
        if core.closed.is_some() {
            return None;
        }
        let last_ping = match &core.transport {
            Transport::Polling(polling) => polling.last_ping,
            _ => Instant::now(),
        };
        core.transport = Transport::Websocket(tcp);
        drop(core);
        self.flush();
        self.changed.notify_waiters();
        Some(last_ping)
    }

    /// Drops the transport and the queue. The TCP connection closes when its last holder has dropped it.
    pub fn end_transport(&self) {
        let mut core = self.core.lock();
        core.transport = Transport::Ended;
        core.queue = VecDeque::new();
    }

    async fn until<T>(&self, check: impl Fn(&mut Core) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = check(&mut self.core.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

// The methods of the same name that are called here are those of `Socket` itself.
impl Connection for Socket {
    fn send(&self, message: Message) -> Result<bool, SendError> {
        self.send(message)
    }

    fn send_now(&self, message: Message) {
        self.send_now(encode_message(&message));
    }

    fn flush(&self) {
        self.flush();
    }

    fn close_in_order(self: Arc<Self>) {
        if self.is_polling() {
            tokio::spawn(async move {
                tokio::time::sleep(POLLING_GRACE).await;
                self.close(DisconnectReason::ClosedHere);
            });
        } else {
            self.close(DisconnectReason::ClosedHere);
        }
    }

    fn close_now(self: Arc<Self>) {
        self.close(DisconnectReason::TransportError);
        // A polling client's answers time out by themselves. Behind a proxy, its TCP connection may carry requests of other clients.
        if !self.is_polling() {
            self.client.tcp().shut();
        }
    }

    fn last_progress(&self) -> Option<Instant> {
        self.polling_busy_until().or_else(|| self.client.tcp().last_progress())
    }

    fn transport(&self) -> metrics::Transport {
        match self.transport_type() {
            TransportType::Polling => metrics::Transport::Polling,
            TransportType::Websocket => metrics::Transport::Websocket,
        }
    }

    fn span(&self) -> Span {
        self.client.span()
    }
}

impl Evict for Socket {
    fn evict(&self) {
        self.close(DisconnectReason::TransportClose);
    }
}

/// A polling request that waits for packets. If the client breaks it off, the session ends, as the Engine.IO protocol requires.
#[derive(Debug)]
pub struct PendingPoll {
    socket: Arc<Socket>,
    is_answered: bool,
}

impl PendingPoll {
    /// Waits until there is something to answer.
    pub async fn answer(mut self) -> PollAnswer {
        let socket = &self.socket;
        let answer = socket.until(Core::take_poll_answer).await;
        if socket.core.lock().take_space_request(socket.capacity) {
            socket.report_space();
        }
        self.is_answered = true;
        answer
    }
}

impl Drop for PendingPoll {
    fn drop(&mut self) {
        if let Transport::Polling(polling) = &mut self.socket.core.lock().transport {
            polling.poll_pending = false;
        }
        if !self.is_answered && self.socket.is_polling() {
            self.socket.close(DisconnectReason::TransportError);
        }
    }
}

impl Core {
    fn is_polling(&self) -> bool {
        matches!(self.transport, Transport::Polling(_))
    }

    fn take_poll_answer(&mut self) -> Option<PollAnswer> {
        let (upgrading, by_websocket) = match &self.transport {
            Transport::Polling(polling) => (polling.upgrading, false),
            Transport::Websocket(_) => (true, true),
            Transport::Ended => (false, false),
        };
        if self.queue.is_empty() || by_websocket {
            return match self.closed {
                // The client knows that the session has ended.
                Some(DisconnectReason::ClientClose) => Some(PollAnswer::Nothing),
                Some(_) => Some(PollAnswer::Packets(vec![Packet::close()])),
                None => upgrading.then_some(PollAnswer::Nothing),
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
        if self.closed.is_some_and(|reason| reason != DisconnectReason::ClientClose) && self.queue.is_empty()
        {
            packets.push(Packet::close());
        }
        if let Transport::Polling(polling) = &mut self.transport {
            polling.begin_answer(Instant::now());
        }
        self.free_unused_memory();
        Some(PollAnswer::Packets(packets))
    }

    /// How many packets are ahead of the first message that can still be overtaken. These are a packet that is written in part, and
    /// packets that are not messages.
    fn priority_count(&self) -> usize {
        let begun = usize::from(self.front_written > 0);
        begun + self.queue.iter().skip(begun).take_while(|packet| !packet.is_message()).count()
    }

    /// Returns whether the fan-out waits for room and the queue has space. `true` is returned only once, and the caller then notifies
    /// the fan-out.
    fn take_space_request(&mut self, capacity: usize) -> bool {
        let has_space = self.space_requested && (self.queue.len() < capacity || self.closed.is_some());
        self.space_requested &= !has_space;
        has_space
    }

    /// Makes one system call, unless the connection's task waits for the kernel.
    fn write(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>, tcp: &Tcp) {
        if self.stalled || self.queue.is_empty() {
            return;
        }
        match self.write_some(write) {
            Ok(written) => self.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stalled = true,
            Err(_) => {
                // The connection's task notices that it has ended.
                tcp.shut();
                self.queue.clear();
                self.front_written = 0;
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

    fn free_unused_memory(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > SMALL_QUEUE {
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests;
