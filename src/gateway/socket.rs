//! One Engine.IO connection: what waits to be sent on it, and the transport that it goes by.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::sync::{Notify, futures::Notified};

use crate::{fanout::SendError, protocol::Packet};

use super::{Gateway, session::Connection, transport::Wire};

/// Packets that one system call takes.
const MAX_SLICES: usize = 32;
/// What a client may make a full queue grow by.
const MAX_ANSWERS: usize = 64;
/// A queue that a burst has made larger is given back.
const SMALL_QUEUE: usize = 16;
/// Between the packets of a polling client.
pub(super) const SEPARATOR: u8 = 0x1E;
/// What one answer of a polling client takes.
const MAX_POLLED_BYTES: usize = 1 << 20;

/// An Engine.IO connection's id. It lets its holder speak for a polling client: nobody else is told, nor is a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sid([u8; 15]);

impl Sid {
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl FromStr for Sid {
    type Err = base64::DecodeSliceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 15];
        match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes)? {
            15 => Ok(Self(bytes)),
            short => Err(base64::DecodeError::InvalidLength(short).into()),
        }
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sid(…)")
    }
}

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
    line: Line,
    /// The wire takes nothing at the moment: the connection's task waits for it.
    stalled: bool,
    /// A heartbeat was answered.
    heard: bool,
    closed: Option<DisconnectReason>,
}

#[derive(Debug)]
enum Line {
    Polling {
        /// A request waits for packets.
        asking: bool,
        /// A WebSocket has been probed.
        upgrading: bool,
    },
    Websocket(Arc<Wire>),
    /// A WebSocket's, when its task has ended.
    Gone,
}

/// What a polling request is answered with.
#[derive(Debug, PartialEq, Eq)]
pub enum Polled {
    Packets(Vec<u8>),
    Nothing,
}

impl Socket {
    pub fn polling(gateway: &Arc<Gateway>, data: Connection) -> Arc<Self> {
        let line = Line::Polling { asking: false, upgrading: false };
        Self::new(Arc::downgrade(gateway), gateway.settings.limits.send_queue, data, line)
    }

    pub fn websocket(gateway: &Arc<Gateway>, data: Connection, wire: Arc<Wire>) -> Arc<Self> {
        let capacity = gateway.settings.limits.send_queue;
        Self::new(Arc::downgrade(gateway), capacity, data, Line::Websocket(wire))
    }

    fn new(gateway: Weak<Gateway>, capacity: usize, data: Connection, line: Line) -> Arc<Self> {
        let core =
            Core { queue: VecDeque::new(), written: 0, line, stalled: false, heard: false, closed: None };
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
            Line::Polling { .. } => TransportType::Polling,
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

    /// Answers what the WebSocket protocol wants answered, unless the client does not read it. Nothing follows what a broken
    /// connection was in the middle of.
    pub fn answer(&self, frames: Vec<u8>) {
        let mut core = self.core();
        if core.closed.is_none() && core.queue.len() < self.capacity + MAX_ANSWERS {
            core.queue.push_back(Packet::control(frames));
            drop(core);
            self.flush();
        }
    }

    /// Moves what waits to the wire, as far as it takes it; a polling client's request is answered.
    pub fn flush(&self) {
        let mut core = self.core();
        let stalled = core.stalled;
        if let Line::Websocket(wire) = &core.line {
            let wire = wire.clone();
            core.write(&wire);
            if core.stalled == stalled {
                return;
            }
        }
        drop(core);
        self.changed.notify_waiters();
    }

    /// The wire has room again.
    pub fn resume(&self) {
        self.core().stalled = false;
        self.flush();
    }

    pub fn is_stalled(&self) -> bool {
        self.core().stalled
    }

    pub fn has_sent_all(&self) -> bool {
        self.core().queue.is_empty()
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
        drop(core);
        self.changed.notify_waiters();
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
            (Line::Polling { .. }, None) => core.heard.then_some(true),
            _ => Some(false),
        })
        .await
    }

    /// Until this is no polling connection any more.
    pub async fn polled_enough(&self) {
        self.until(|core| {
            (!matches!(core.line, Line::Polling { .. }) || core.closed.is_some()).then_some(())
        })
        .await;
    }

    /// A request that waits for packets begins. None: there is one already, or the client has a WebSocket.
    pub fn ask(&self) -> Option<Asking<'_>> {
        match &mut self.core().line {
            Line::Polling { asking, .. } if !*asking => {
                *asking = true;
                Some(Asking(self))
            }
            _ => None,
        }
    }

    /// A client tries a WebSocket. Until it has one its requests are answered at once. Whether it is the first to try.
    pub fn begin_upgrade(&self) -> bool {
        let first = match &mut self.core().line {
            Line::Polling { upgrading, .. } => !std::mem::replace(upgrading, true),
            _ => false,
        };
        self.changed.notify_waiters();
        first
    }

    pub fn abandon_upgrade(&self) {
        if let Line::Polling { upgrading, .. } = &mut self.core().line {
            *upgrading = false;
        }
    }

    /// From now on by this wire. Whether the connection is still there.
    pub fn upgrade(&self, wire: Arc<Wire>) -> bool {
        let mut core = self.core();
        if core.closed.is_some() {
            return false;
        }
        core.line = Line::Websocket(wire);
        drop(core);
        self.flush();
        self.changed.notify_waiters();
        true
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
        self.0.until(Core::polled).await
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Line::Polling { asking, .. } = &mut self.0.core().line {
            *asking = false;
        }
    }
}

impl Core {
    fn polled(&mut self) -> Option<Polled> {
        let upgrading = matches!(self.line, Line::Polling { upgrading: true, .. } | Line::Websocket(_));
        if self.queue.is_empty() || matches!(self.line, Line::Websocket(_)) {
            return match self.closed {
                Some(_) => Some(Polled::Packets(Packet::close().payload().to_vec())),
                None => upgrading.then_some(Polled::Nothing),
            };
        }
        let mut body = Vec::new();
        while let Some(packet) = self.queue.front() {
            let payload = packet.payload();
            if !body.is_empty() {
                if body.len() + payload.len() > MAX_POLLED_BYTES {
                    break;
                }
                body.push(SEPARATOR);
            }
            body.extend_from_slice(payload);
            self.queue.pop_front();
        }
        if self.closed.is_some() && self.queue.is_empty() {
            body.push(SEPARATOR);
            body.extend_from_slice(Packet::close().payload());
        }
        self.give_back();
        Some(Polled::Packets(body))
    }

    fn write(&mut self, wire: &Wire) {
        while !self.stalled && !self.queue.is_empty() {
            match self.write_some(wire) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stalled = true,
                Err(_) => {
                    // Its task finds the end of it.
                    wire.shut();
                    self.queue.clear();
                    self.written = 0;
                }
            }
        }
        self.give_back();
    }

    fn write_some(&self, wire: &Wire) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slice, packet) in slices.iter_mut().zip(&self.queue) {
            let skipped = if count == 0 { self.written } else { 0 };
            *slice = IoSlice::new(packet.frame().get(skipped..).unwrap_or_default());
            count += 1;
        }
        wire.try_write(slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, written: usize) {
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
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{Message, protocol::Role},
    };

    use super::*;
    use crate::gateway::Transport;

    fn polling(capacity: usize) -> Arc<Socket> {
        let line = Line::Polling { asking: false, upgrading: false };
        Socket::new(Weak::new(), capacity, Connection::default(), line)
    }

    /// Both ends of a WebSocket.
    async fn wire() -> (Transport, WebSocketStream<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let transport = Transport::accept(accepted, Duration::from_secs(60)).unwrap();
        (transport, WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    fn send(socket: &Socket, text: &str) -> Result<(), SendError> {
        if socket.send(Packet::message(text))? {
            socket.flush();
        }
        Ok(())
    }

    async fn hears(client: &mut WebSocketStream<TcpStream>, text: &str) {
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text(format!("4{text}")));
    }

    fn packets(text: &str) -> Polled {
        Polled::Packets(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_gets_everything_when_it_does() {
        let (transport, mut client) = wire().await;
        let line = Line::Websocket(transport.wire());
        let socket = Socket::new(Weak::new(), 100, Connection::default(), line);
        let text = |n: usize| format!("{n} {}", "x".repeat(n % 7 * 9_000));
        let mut queued = 0;
        while send(&socket, &text(queued)).is_ok() {
            queued += 1;
        }
        assert!(queued > 100 && socket.is_stalled(), "{queued} packets");
        // On top of a full queue.
        socket.send_now(Packet::message("last"));

        let resumes = tokio::spawn({
            let socket = socket.clone();
            async move {
                while !socket.has_sent_all() {
                    transport.wire().writable().await.unwrap();
                    socket.resume();
                }
                transport
            }
        });
        for n in 0..queued {
            hears(&mut client, &text(n)).await;
        }
        hears(&mut client, "last").await;
        resumes.await.unwrap();
        assert!(!socket.is_stalled());
    }

    #[tokio::test]
    async fn nothing_follows_the_packet_in_which_a_connection_breaks() {
        let (transport, _client) = wire().await;
        let line = Line::Websocket(transport.wire());
        let socket = Socket::new(Weak::new(), 100, Connection::default(), line);
        while !socket.is_stalled() {
            send(&socket, &"x".repeat(50_000)).unwrap();
        }
        socket.close(DisconnectReason::TransportError);
        socket.answer(vec![0x8A, 0]);
        assert!(socket.has_sent_all());
    }

    #[tokio::test]
    async fn one_request_at_a_time_gets_what_waits() {
        let socket = polling(3);
        send(&socket, "a").unwrap();
        send(&socket, "b").unwrap();
        let asking = socket.ask().unwrap();
        assert!(socket.ask().is_none(), "one at a time");
        assert_eq!(asking.answer().await, packets("4a\u{1e}4b"));
        drop(asking);

        // A request that was broken off takes nothing with it.
        let asking = socket.ask().unwrap();
        assert!(futures_util::FutureExt::now_or_never(asking.answer()).is_none());
        drop(asking);
        for text in ["c", "d", "e"] {
            send(&socket, text).unwrap();
        }
        assert!(matches!(send(&socket, "f"), Err(SendError::Full(_))));
        socket.send_now(Packet::ping());
        assert_eq!(socket.ask().unwrap().answer().await, packets("4c\u{1e}4d\u{1e}4e\u{1e}2"));
    }

    #[tokio::test]
    async fn a_waiting_request_hears_of_the_end_behind_what_is_queued() {
        let socket = polling(3);
        let waiting = tokio::spawn({
            let socket = socket.clone();
            async move { socket.ask().unwrap().answer().await }
        });
        while socket.ask().is_some() {
            tokio::task::yield_now().await;
        }
        socket.send(Packet::message("bye")).unwrap();
        socket.close(DisconnectReason::ClosedHere);
        assert_eq!(waiting.await.unwrap(), packets("4bye\u{1e}1"));
        assert!(matches!(send(&socket, "late"), Err(SendError::Closed)));
        let broken = polling(3);
        send(&broken, "lost").unwrap();
        broken.close(DisconnectReason::TransportError);
        assert_eq!(broken.ask().unwrap().answer().await, packets("1"));
    }

    #[tokio::test]
    async fn after_an_upgrade_everything_goes_by_the_websocket() {
        let (transport, mut client) = wire().await;
        let socket = polling(3);
        let asking = socket.ask().unwrap();
        assert!(socket.begin_upgrade() && !socket.begin_upgrade(), "once");
        assert_eq!(asking.answer().await, Polled::Nothing);
        send(&socket, "a").unwrap();
        assert!(socket.upgrade(transport.wire()));
        send(&socket, "b").unwrap();
        hears(&mut client, "a").await;
        hears(&mut client, "b").await;
        drop(asking);
        assert!(socket.ask().is_none(), "no request is for it any more");

        let ended = polling(3);
        ended.close(DisconnectReason::ClosedHere);
        assert!(!ended.upgrade(transport.wire()));
    }

    #[test]
    fn an_id_is_read_back_and_not_shown() {
        let id = Sid::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!((id.to_string().len(), format!("{id:?}")), (20, "Sid(…)".to_owned()));
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAA=", "é"]
        {
            assert!(text.parse::<Sid>().is_err(), "{text}");
        }
    }
}
