//! One Engine.IO connection: a client with a WebSocket, or one that polls and may upgrade to a WebSocket.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Span;

use super::{frame::encode_message, packet::Packet, polling_state::PollingState, sid::Sid};
use crate::{
    edge::Evict,
    fanout::SendError,
    metrics,
    session::{CloseReason, Connection},
    transport::{
        Tcp,
        client::Client,
        polling_body::Posts,
        socket::{self, Alternative, Core, Protocol, Transport},
    },
    wire::Message,
};

pub use crate::transport::disconnect_reason::DisconnectReason;

/// The separator between packets in the body of a polling request or answer.
pub(super) const SEPARATOR: u8 = 0x1E;
/// The size limit for one answer to a polling client, unless a single packet is larger. A ping cannot overtake an answer that is on
/// its way. A slow client must therefore be able to read an answer before it misses a ping.
const MAX_POLLED_BYTES: usize = 256 * 1024;
/// A polling client has this long to fetch its last events with its next request.
const POLLING_GRACE: Duration = Duration::from_millis(900);
/// An empty close frame.
const CLOSE: [u8; 2] = [0x88, 0];

pub type Socket = socket::Socket<EngineIo>;

/// What Engine.IO adds to a connection.
#[derive(Debug)]
pub struct EngineIo {
    pub id: Sid,
    pub posts: Posts,
}

impl EngineIo {
    fn new() -> Self {
        Self { id: Sid::random(), posts: Posts::default() }
    }
}

impl Protocol for EngineIo {
    type Packet = Packet;
    type Alternative = Box<PollingState>;

    fn encode(message: &Message) -> Packet {
        encode_message(message)
    }

    fn close_frame(&self) -> Vec<u8> {
        CLOSE.to_vec()
    }
}

impl Alternative for Box<PollingState> {
    fn record_ping(&mut self, now: Instant) {
        PollingState::record_ping(self, now);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportType {
    Polling,
    Websocket,
}

/// The answer to a polling request.
#[derive(Debug, PartialEq, Eq)]
pub enum PollAnswer {
    Packets(Vec<Packet>),
    Nothing,
}

impl Socket {
    pub fn for_polling(capacity: usize, client: Client) -> Arc<Self> {
        let polling = Box::new(PollingState::new(Instant::now()));
        Self::new(EngineIo::new(), capacity, client, Transport::Alternative(polling))
    }

    pub fn for_websocket(capacity: usize, client: Client, tcp: Arc<Tcp>) -> Arc<Self> {
        Self::websocket(EngineIo::new(), capacity, client, tcp)
    }

    pub fn is_polling(&self) -> bool {
        self.transport_type() == TransportType::Polling
    }

    pub fn transport_type(&self) -> TransportType {
        match self.core.lock().transport {
            Transport::Alternative(_) => TransportType::Polling,
            Transport::Websocket(_) | Transport::Ended => TransportType::Websocket,
        }
    }

    /// The time until which a slow polling client may still be reading its last answer.
    pub fn polling_busy_until(&self) -> Option<Instant> {
        match &self.core.lock().transport {
            Transport::Alternative(polling) => Some(polling.busy_until()),
            _ => None,
        }
    }

    /// Records that bytes of an answer to a polling client have left.
    pub fn record_sent(&self, bytes: usize) {
        if let Transport::Alternative(polling) = &mut self.core.lock().transport {
            polling.record_sent(Instant::now(), bytes);
        }
    }

    /// The deadline for a polling client's answer to a ping.
    pub fn pong_deadline(&self, timeout: Duration) -> Option<Instant> {
        match &self.core.lock().transport {
            Transport::Alternative(polling) => Some(polling.pong_deadline(timeout)),
            _ => None,
        }
    }

    /// Records that the client has answered a heartbeat.
    pub fn record_pong(&self) {
        if let Transport::Alternative(polling) = &mut self.core.lock().transport {
            polling.has_pong = true;
        }
        self.changed.notify_waiters();
    }

    pub fn clear_pong(&self) {
        if let Transport::Alternative(polling) = &mut self.core.lock().transport {
            polling.has_pong = false;
        }
    }

    /// Waits until the client has answered a heartbeat. `false` means that the connection is closed or no longer uses polling.
    pub async fn wait_for_polling_pong(&self) -> bool {
        self.until(|core| match (&core.transport, core.closed) {
            (Transport::Alternative(polling), None) => polling.has_pong.then_some(true),
            _ => Some(false),
        })
        .await
    }

    /// Waits until the connection is closed or no longer uses polling.
    pub async fn polling_ended(&self) {
        self.until(|core| (!is_polling(core) || core.closed.is_some()).then_some(())).await;
    }

    /// Why the connection was closed while the client used polling. The task of a WebSocket ends its own connection.
    pub fn polling_end(&self) -> Option<DisconnectReason> {
        let core = self.core.lock();
        core.closed.filter(|_| is_polling(&core))
    }

    /// Begins a request that waits for packets. `None` means that another request already waits, or that the client has a WebSocket.
    pub fn begin_poll(self: &Arc<Self>) -> Option<PendingPoll> {
        match &mut self.core.lock().transport {
            Transport::Alternative(polling) => polling
                .begin_poll(Instant::now())
                .then(|| PendingPoll { socket: self.clone(), is_answered: false }),
            _ => None,
        }
    }

    #[cfg(test)]
    fn has_pending_poll(&self) -> bool {
        matches!(&self.core.lock().transport, Transport::Alternative(polling) if polling.poll_pending)
    }

    /// The client tries to upgrade to a WebSocket. During the upgrade, its polling requests are answered at once. Returns whether no
    /// other upgrade is in progress.
    pub fn begin_upgrade(&self) -> bool {
        let first = match &mut self.core.lock().transport {
            Transport::Alternative(polling) => !std::mem::replace(&mut polling.upgrading, true),
            _ => false,
        };
        self.changed.notify_waiters();
        first
    }

    pub fn abandon_upgrade(&self) {
        if let Transport::Alternative(polling) = &mut self.core.lock().transport {
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
            Transport::Alternative(polling) => polling.last_ping,
            _ => Instant::now(),
        };
        core.transport = Transport::Websocket(tcp);
        drop(core);
        self.flush();
        self.changed.notify_waiters();
        Some(last_ping)
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

    fn close_in_order(self: Arc<Self>, _: CloseReason) {
        if self.is_polling() {
            tokio::spawn(async move {
                tokio::time::sleep(POLLING_GRACE).await;
                self.close(DisconnectReason::ClosedHere);
            });
        } else {
            self.close(DisconnectReason::ClosedHere);
        }
    }

    fn close_now(self: Arc<Self>, _: CloseReason) {
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
        let answer = socket.until(take_poll_answer).await;
        if socket.core.lock().take_space_request(socket.capacity) {
            socket.report_space();
        }
        self.is_answered = true;
        answer
    }
}

impl Drop for PendingPoll {
    fn drop(&mut self) {
        if let Transport::Alternative(polling) = &mut self.socket.core.lock().transport {
            polling.poll_pending = false;
        }
        if !self.is_answered && self.socket.is_polling() {
            self.socket.close(DisconnectReason::TransportError);
        }
    }
}

fn is_polling(core: &Core<EngineIo>) -> bool {
    matches!(core.transport, Transport::Alternative(_))
}

fn take_poll_answer(core: &mut Core<EngineIo>) -> Option<PollAnswer> {
    let (upgrading, by_websocket) = match &core.transport {
        Transport::Alternative(polling) => (polling.upgrading, false),
        Transport::Websocket(_) => (true, true),
        Transport::Ended => (false, false),
    };
    if core.outbox.queue.is_empty() || by_websocket {
        return match core.closed {
            // The client knows that the session has ended.
            Some(DisconnectReason::ClientClose) => Some(PollAnswer::Nothing),
            Some(_) => Some(PollAnswer::Packets(vec![Packet::close()])),
            None => upgrading.then_some(PollAnswer::Nothing),
        };
    }
    let (mut packets, mut bytes) = (Vec::new(), 0);
    while let Some(packet) = core.outbox.queue.front() {
        bytes += packet.payload().len();
        if !packets.is_empty() && bytes > MAX_POLLED_BYTES {
            break;
        }
        packets.extend(core.outbox.queue.pop_front());
    }
    if core.closed.is_some_and(|reason| reason != DisconnectReason::ClientClose)
        && core.outbox.queue.is_empty()
    {
        packets.push(Packet::close());
    }
    if let Transport::Alternative(polling) = &mut core.transport {
        polling.begin_answer(Instant::now());
    }
    core.outbox.free_unused_memory();
    Some(PollAnswer::Packets(packets))
}

#[cfg(test)]
mod tests;
