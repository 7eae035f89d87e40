//! The task of one WebSocket: it reads, keeps the heartbeat, waits for the wire when that is full, and ends the connection.
//! What is sent does not pass through it: see [`Socket::flush`].

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::{
    Error, Message, Utf8Bytes,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use super::{
    Gateway, Transport,
    socket::{DisconnectReason, Socket},
};
use crate::protocol::Packet;

/// Of each connection, for as long as it lives.
const READ_BUFFER: usize = 512;
/// Messages that one client is read before others have their turn.
const TURN: usize = 64;
/// From the upgrade of a polling client to its end.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// An empty close frame.
const CLOSE: [u8; 2] = [0x88, 0];

/// A WebSocket, and what is kept for its next bytes.
pub(super) struct Conversation {
    gateway: Arc<Gateway>,
    transport: Transport,
    context: WebSocketContext,
}

/// What a read of the WebSocket came to.
enum Heard {
    Text(Utf8Bytes),
    Binary,
    /// Nothing that concerns us.
    Other,
    /// All that there is has been read.
    All,
    End(DisconnectReason),
}

struct Turn {
    /// A heartbeat was.
    is_answered: bool,
    has_more: bool,
}

impl Conversation {
    /// `rest` was read behind the request.
    pub fn new(gateway: Arc<Gateway>, transport: Transport, rest: &Bytes) -> Self {
        let max = gateway.settings.limits.max_message_bytes;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(max))
            .max_frame_size(Some(max));
        let context = WebSocketContext::from_partially_read(rest.to_vec(), Role::Server, Some(config));
        Self { gateway, transport, context }
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// From the handshake of a polling client's WebSocket to the moment from which it goes by it. Whether it does.
    pub async fn upgrade(&mut self, socket: &Arc<Socket>) -> bool {
        if !socket.begin_upgrade() {
            return false;
        }
        let upgraded = timeout(UPGRADE_TIMEOUT, async {
            if self.next().await.as_deref() != Some("2probe") {
                return false;
            }
            // Nothing else is on this wire yet.
            let probed = Packet::probed();
            if self.transport.write_all(probed.frame()).await.is_err() {
                return false;
            }
            self.next().await.as_deref() == Some("5")
        });
        let upgraded = tokio::select! {
            upgraded = upgraded => upgraded.unwrap_or(false),
            () = socket.closed() => false,
        };
        if !upgraded {
            socket.abandon_upgrade();
            return false;
        }
        socket.upgrade(self.transport.wire())
    }

    /// The next text, before there is a connection that others write to.
    async fn next(&mut self) -> Option<Utf8Bytes> {
        loop {
            let mut answers = Vec::new();
            match self.hear(&mut answers) {
                Heard::Text(text) => return Some(text),
                Heard::Binary | Heard::Other => {}
                Heard::All => self.transport.wire().readable().await.ok()?,
                Heard::End(_) => return None,
            }
            self.transport.write_all(&answers).await.ok()?;
        }
    }

    /// To the end of the connection.
    pub async fn run(mut self, socket: Arc<Socket>) {
        let reason = self.converse(&socket).await;
        // It may have been closed here, for another reason: then it gets what is still waiting.
        let is_closing = !socket.set_closed(reason);
        let reason = socket.closed_for().unwrap_or(reason);
        let is_closing = is_closing && reason.is_orderly();
        if is_closing {
            socket.flush();
            self.drain(&socket).await;
        }
        socket.hang_up();
        self.gateway.on_disconnect(&socket, reason);
        if is_closing && self.transport.write_all(&CLOSE).await.is_ok() {
            let _ = self.transport.shutdown().await;
        }
    }

    async fn converse(&mut self, socket: &Arc<Socket>) -> DisconnectReason {
        let heartbeat = self.gateway.settings.heartbeat.clone();
        let wire = self.transport.wire();
        let mut pinged = false;
        let mut beat = Instant::now() + heartbeat.interval;
        loop {
            let turn = match self.read(socket) {
                Ok(turn) => turn,
                Err(reason) => return reason,
            };
            if turn.is_answered {
                pinged = false;
                beat = Instant::now() + heartbeat.interval;
            }
            if turn.has_more {
                // What has been read already makes nothing readable.
                tokio::task::yield_now().await;
                continue;
            }
            let changed = socket.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(reason) = socket.closed_for() {
                return reason;
            }
            let stalled = socket.is_stalled();
            let patience = stalled.then(|| Instant::from_std(self.transport.patience_ends()));
            let due = patience.map_or(beat, |patience| patience.min(beat));
            tokio::select! {
                ready = wire.readable() => if ready.is_err() {
                    return DisconnectReason::TransportError;
                },
                _ = wire.writable(), if stalled => socket.resume(),
                () = changed => {}
                () = sleep_until(due) => {
                    if patience.is_some_and(|patience| patience <= Instant::now()) {
                        self.transport.give_up();
                        return DisconnectReason::TransportError;
                    }
                    if beat <= Instant::now() {
                        if pinged {
                            return DisconnectReason::HeartbeatTimeout;
                        }
                        pinged = true;
                        beat = Instant::now() + heartbeat.timeout;
                        socket.send_now(Packet::ping());
                    }
                }
            }
        }
    }

    /// What has come, up to a turn of it.
    fn read(&mut self, socket: &Arc<Socket>) -> Result<Turn, DisconnectReason> {
        let mut turn = Turn { is_answered: false, has_more: true };
        for _ in 0..TURN {
            let mut answers = Vec::new();
            let heard = self.hear(&mut answers);
            if !answers.is_empty() {
                socket.answer(answers);
            }
            match heard {
                Heard::All => {
                    turn.has_more = false;
                    break;
                }
                Heard::Other => {}
                Heard::End(reason) => return Err(reason),
                Heard::Binary => self.gateway.on_binary(socket),
                Heard::Text(text) => match text.as_bytes().first() {
                    Some(b'4') => self.gateway.on_message(&text[1..], socket),
                    Some(b'3' | b'2') => turn.is_answered = true,
                    Some(b'1') => return Err(DisconnectReason::TransportClose),
                    _ => return Err(DisconnectReason::Malformed),
                },
            }
            if let Some(reason) = socket.closed_for() {
                return Err(reason);
            }
        }
        Ok(turn)
    }

    /// Reads one message, and puts down what the protocol wants answered.
    fn hear(&mut self, answers: &mut Vec<u8>) -> Heard {
        let mut stream = Stream { transport: &self.transport, answers };
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

    /// Until everything is sent, or the peer takes nothing any more.
    async fn drain(&self, socket: &Socket) {
        let wire = self.transport.wire();
        while !socket.has_sent_all() {
            match timeout_at(Instant::from_std(self.transport.patience_ends()), wire.writable()).await {
                Ok(Ok(())) => socket.resume(),
                Ok(Err(_)) => return,
                Err(_) => return self.transport.give_up(),
            }
        }
    }
}

/// The transport for a reader that must not wait, and whose answers go the way of everything else.
struct Stream<'a> {
    transport: &'a Transport,
    answers: &'a mut Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.transport.try_read(buffer)
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
