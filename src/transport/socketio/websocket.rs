//! The task of one WebSocket. It reads, keeps the heartbeat, waits when the kernel's send buffer is full, and ends the connection.
//! Other tasks write their packets directly; see [`Socket::flush`].

use std::{
    io::{self, IoSlice, Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    task::{coop::consume_budget, yield_now},
    time::{sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{
    Error, Message, Utf8Bytes,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use super::{
    SocketIo,
    heartbeat::{Beat, Heartbeat, Traffic},
    packet::Packet,
    socket::{DisconnectReason, Socket},
};
use crate::transport::TcpConnection;

/// Each connection holds a buffer of this size as long as it lives.
const READ_BUFFER: usize = 512;
/// The server reads this many messages of one client before other tasks run.
const TURN: usize = 64;
/// The timeout for the upgrade of a polling client.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// An empty close frame.
const CLOSE: [u8; 2] = [0x88, 0];

/// A WebSocket, and the state of its decoder.
pub(super) struct WebsocketTask {
    server: Arc<SocketIo>,
    tcp: TcpConnection,
    context: WebSocketContext,
    /// Bytes received from the client.
    received: u64,
}

/// The result of one read of the WebSocket.
enum Heard {
    Text(Utf8Bytes),
    Binary,
    /// A message that needs no handling here.
    Other,
    /// Everything that has come has been read.
    All,
    End(DisconnectReason),
}

/// The result of reading up to [`TURN`] messages.
struct Turn {
    /// How many pings the client has answered.
    answers: usize,
    has_more: bool,
}

impl WebsocketTask {
    /// `rest` contains bytes that have already been read behind the upgrade request.
    pub fn new(server: Arc<SocketIo>, tcp: TcpConnection, rest: &Bytes) -> Self {
        let max = server.max_read_bytes();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(max))
            .max_frame_size(Some(max));
        let context = WebSocketContext::from_partially_read(rest.to_vec(), Role::Server, Some(config));
        Self { server, tcp, context, received: 0 }
    }

    pub fn tcp(&self) -> &TcpConnection {
        &self.tcp
    }

    /// Runs the upgrade of a polling client after the handshake of its WebSocket. Returns when the client was last pinged. `None`
    /// means that the client does not move to this WebSocket.
    pub async fn upgrade(&mut self, socket: &Arc<Socket>) -> Option<Instant> {
        let mut begun = false;
        let upgraded = timeout(UPGRADE_TIMEOUT, async {
            // Until the probe comes, a proxy may let no frame through. Polling requests therefore still wait for packets as before.
            if self.next().await.as_deref() != Some("2probe") {
                return false;
            }
            begun = socket.begin_upgrade();
            if !begun {
                return false;
            }
            // No other task writes to this WebSocket yet.
            let probed = Packet::probed();
            if self.tcp.write_all(probed.frame()).await.is_err() {
                return false;
            }
            self.next().await.as_deref() == Some("5")
        });
        let upgraded = tokio::select! {
            upgraded = upgraded => upgraded.unwrap_or(false),
            () = socket.closed() => false,
        };
        if !upgraded {
            if begun {
                socket.abandon_upgrade();
            }
            return None;
        }
        // The client may have tried other WebSockets. Only this one becomes its transport.
        socket.client.set_tcp(self.tcp.handle());
        socket.upgrade(self.tcp.shared())
    }

    /// Reads the next text message, while no other task writes to this WebSocket.
    async fn next(&mut self) -> Option<Utf8Bytes> {
        loop {
            // A client that never stops sending always has more data to read. This lets other tasks run.
            consume_budget().await;
            let mut answers = Vec::new();
            let heard = self.hear(&mut answers);
            self.tcp.write_all(&answers).await.ok()?;
            match heard {
                Heard::Text(text) => return Some(text),
                Heard::Binary | Heard::Other => {}
                Heard::All => self.tcp.shared().readable().await.ok()?,
                Heard::End(_) => return None,
            }
        }
    }

    /// Runs until the connection ends. `pinged` is when the client was last pinged, or when its connection began.
    pub async fn run(mut self, socket: Arc<Socket>, pinged: Instant) {
        let reason = self.converse(&socket, Heartbeat::new(pinged)).await;
        // The server may have closed the connection for another reason. Then the client still gets the queued packets.
        let is_closing = !socket.close(reason);
        let reason = socket.closed_for().unwrap_or(reason);
        let is_closing = is_closing && reason.is_orderly();
        if is_closing {
            socket.flush();
            self.drain(&socket).await;
            // The close frame must leave before the connection counts as ended. The kernel has room for it, or the client no longer
            // reads.
            let _ = self.tcp.shared().try_write(&[IoSlice::new(&CLOSE)]);
        }
        socket.hang_up();
        self.server.on_disconnect(&socket, reason);
        if is_closing {
            let _ = self.tcp.shutdown().await;
        }
    }

    async fn converse(&mut self, socket: &Arc<Socket>, mut heartbeat: Heartbeat) -> DisconnectReason {
        let tcp = self.tcp.shared();
        let mut probe = None;
        loop {
            let Turn { answers, has_more } = match self.read(socket) {
                Ok(turn) => turn,
                Err(reason) => return reason,
            };
            // The heartbeat comes after the read, so that answers that have already arrived count.
            let beat = match self.beat(&mut heartbeat, socket, answers) {
                Beat::Wait(until) => until,
                // The next turn of the loop asks what comes after the ping.
                Beat::Ping => continue,
                Beat::Dead if has_more || tcp.has_unread() => Instant::now(),
                Beat::Dead => return DisconnectReason::HeartbeatTimeout,
            };
            if self.is_stuck(socket, &mut probe) {
                self.tcp.abort_stalled();
                return DisconnectReason::TransportError;
            }
            let changed = socket.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(reason) = socket.closed_for() {
                return reason;
            }
            let stalled = socket.is_stalled();
            if has_more {
                // Buffered input does not make the socket readable, so this loops instead of waiting.
                if stalled {
                    socket.resume();
                }
                yield_now().await;
                continue;
            }
            // The kernel's buffer may have become full since the check above.
            match stalled {
                true => _ = probe.get_or_insert_with(|| Instant::now() + self.tcp.write_retry_interval()),
                false => probe = None,
            }
            let due = probe.map_or(beat, |probe| beat.min(probe).min(self.tcp.stall_deadline()));
            // The socket of a client that never stops sending is always readable. This lets other tasks run.
            consume_budget().await;
            tokio::select! {
                ready = tcp.readable() => if ready.is_err() {
                    return DisconnectReason::TransportError;
                },
                _ = tcp.writable(), if stalled => socket.resume(),
                () = changed => {}
                () = sleep_until(due.into()) => {}
            }
        }
    }

    /// Returns what the heartbeat does next. If a ping is due, this function has queued it.
    fn beat(&self, heartbeat: &mut Heartbeat, socket: &Socket, answers: usize) -> Beat {
        let now = Instant::now();
        let (given, stalled) = socket.given();
        let traffic = Traffic { given, stalled, received: self.received };
        (0..answers).for_each(|_| heartbeat.answered(now, traffic));
        let next = heartbeat.next(now, &self.server.heartbeat, traffic);
        if next == Beat::Ping {
            heartbeat.pinged(now, socket.ping(), traffic);
        }
        next
    }

    /// Returns whether the client has read nothing for too long. While the kernel's buffer is full, this function tries to write now
    /// and then. `probe` is the time of the next try.
    fn is_stuck(&self, socket: &Socket, probe: &mut Option<Instant>) -> bool {
        if !socket.is_stalled() {
            return false;
        }
        let now = Instant::now();
        let next = *probe.get_or_insert_with(|| now + self.tcp.write_retry_interval());
        if next > now && self.tcp.stall_deadline() > now {
            return false;
        }
        socket.probe();
        *probe = Some(now + self.tcp.write_retry_interval());
        socket.is_stalled() && self.tcp.stall_deadline() <= now
    }

    /// Reads and handles up to [`TURN`] messages.
    fn read(&mut self, socket: &Arc<Socket>) -> Result<Turn, DisconnectReason> {
        let mut pongs = 0;
        for _ in 0..TURN {
            let mut answers = Vec::new();
            let heard = self.hear(&mut answers);
            match heard {
                _ if answers.is_empty() => {}
                Heard::End(_) => socket.answer_end(answers),
                _ => socket.answer(answers),
            }
            match heard {
                Heard::All => return Ok(Turn { answers: pongs, has_more: false }),
                Heard::Other => {}
                Heard::End(reason) => return Err(reason),
                Heard::Binary => self.server.on_binary(socket),
                Heard::Text(text) => match text.as_bytes().first() {
                    Some(b'4') => self.server.on_message(&text[1..], socket),
                    Some(b'3' | b'2') => pongs += 1,
                    Some(b'1') => return Err(DisconnectReason::ClientClose),
                    _ => return Err(DisconnectReason::Malformed),
                },
            }
            if let Some(reason) = socket.closed_for() {
                return Err(reason);
            }
        }
        Ok(Turn { answers: pongs, has_more: true })
    }

    /// Reads one message. The frames with which the WebSocket protocol answers it are appended to `answers`.
    fn hear(&mut self, answers: &mut Vec<u8>) -> Heard {
        let mut stream = Stream { tcp: &self.tcp, received: &mut self.received, answers };
        match self.context.read(&mut stream) {
            Ok(Message::Text(text)) => Heard::Text(text),
            Ok(Message::Binary(_)) => Heard::Binary,
            Ok(Message::Close(_)) => {
                let _ = self.context.flush(&mut stream);
                Heard::End(DisconnectReason::TransportClose)
            }
            Ok(_) => Heard::Other,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Heard::All,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                Heard::End(DisconnectReason::TransportClose)
            }
            Err(_) => Heard::End(DisconnectReason::TransportError),
        }
    }

    /// Waits until everything is sent, the connection fails, or the client has read nothing for too long.
    async fn drain(&self, socket: &Socket) {
        let tcp = self.tcp.shared();
        while !socket.has_sent_all() {
            // The kernel always has room if the client reads everything at once. This lets other tasks run.
            consume_budget().await;
            match timeout(self.tcp.write_retry_interval(), tcp.writable()).await {
                Ok(Ok(())) => socket.resume(),
                Ok(Err(_)) => return,
                Err(_) => {
                    socket.probe();
                    if self.tcp.stall_deadline() <= Instant::now() {
                        return self.tcp.abort_stalled();
                    }
                }
            }
        }
    }
}

/// The transport as the decoder sees it. Reads never wait, and writes are collected in `answers`, to be queued like other packets.
struct Stream<'a> {
    tcp: &'a TcpConnection,
    received: &'a mut u64,
    answers: &'a mut Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.tcp.try_read(buffer)?;
        *self.received += read as u64;
        Ok(read)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
