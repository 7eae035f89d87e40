//! The task of one WebSocket. It reads, keeps the heartbeat, waits when the kernel's send buffer is full, and ends the connection.
//! Other tasks write their packets directly; see [`Socket::flush`]. What the messages of a client mean is the [`Handler`]'s part.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    time::Instant,
};

use tokio::{
    io::AsyncWriteExt,
    task::{coop::consume_budget, yield_now},
    time::{sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{Utf8Bytes, protocol::CloseFrame};

use super::{
    TcpConnection,
    decoder::{Decoder, InvalidInput, ReadOutcome},
    disconnect_reason::DisconnectReason,
    heartbeat::{Heartbeat, HeartbeatAction, Traffic},
    socket::{Protocol, Socket},
};
use crate::config::HeartbeatConfig;

/// The server reads this many messages of one client before other tasks run.
const MAX_BATCH: usize = 64;

/// What a protocol does with the messages of one client. Its methods run in the task of the WebSocket, one after the other.
pub(super) trait Handler: Send + 'static {
    type Protocol: Protocol;

    fn heartbeat(&self) -> &HeartbeatConfig;

    /// The longest message that is read at the moment.
    fn max_message_bytes(&self) -> usize;

    fn on_text(&mut self, text: &str, socket: &Arc<Socket<Self::Protocol>>) -> Handled;

    fn on_binary(&mut self, socket: &Arc<Socket<Self::Protocol>>) -> Handled;

    /// The client has sent a pong frame.
    fn on_pong(&mut self) -> Handled;

    /// The client has sent a close frame.
    fn on_close(&mut self, _: Option<&CloseFrame>) -> DisconnectReason {
        DisconnectReason::TransportClose
    }

    /// The client has sent something that is no WebSocket message, or a message that is too long.
    fn on_invalid(&mut self, _: InvalidInput, _: &Arc<Socket<Self::Protocol>>) -> DisconnectReason {
        DisconnectReason::TransportError
    }

    /// The state of the socket may have changed.
    fn on_change(&mut self, _: &Arc<Socket<Self::Protocol>>) {}

    /// The connection has ended.
    fn on_end(&mut self, socket: &Arc<Socket<Self::Protocol>>, reason: DisconnectReason);
}

/// What was done with a message of a client.
pub(super) enum Handled {
    Message,
    /// The message was an answer to the heartbeat.
    Pong,
    End(DisconnectReason),
}

/// A WebSocket, and the state of its decoder.
pub(super) struct WebsocketTask<H> {
    handler: H,
    tcp: TcpConnection,
    decoder: Decoder,
}

/// The result of reading up to [`MAX_BATCH`] messages.
struct ReadBatch {
    /// How many pings the client has answered.
    pongs: usize,
    has_more: bool,
}

impl<H: Handler> WebsocketTask<H> {
    /// `rest` contains bytes that have already been read behind the upgrade request.
    pub fn new(handler: H, tcp: TcpConnection, rest: Vec<u8>) -> Self {
        let decoder = Decoder::new(rest, handler.max_message_bytes());
        Self { handler, tcp, decoder }
    }

    pub fn tcp(&self) -> &TcpConnection {
        &self.tcp
    }

    /// Writes a whole frame, while no other task writes to this WebSocket.
    pub async fn write_alone(&mut self, frame: &[u8]) -> io::Result<()> {
        self.tcp.write_all(frame).await
    }

    /// Reads the next text message, while no other task writes to this WebSocket.
    pub async fn next_text(&mut self) -> Option<Utf8Bytes> {
        loop {
            // A client that never stops sending always has more data to read. This lets other tasks run.
            consume_budget().await;
            let mut control_frames = Vec::new();
            let outcome = self.decoder.read(&self.tcp, &mut control_frames);
            self.tcp.write_all(&control_frames).await.ok()?;
            match outcome {
                ReadOutcome::Text(text) => return Some(text),
                ReadOutcome::Binary | ReadOutcome::Pong | ReadOutcome::Other => {}
                ReadOutcome::Drained => self.tcp.shared().readable().await.ok()?,
                ReadOutcome::Close(_) | ReadOutcome::Invalid(_) | ReadOutcome::Failed(_) => return None,
            }
        }
    }

    /// Runs until the connection ends. `last_ping` is when the client was last pinged, or when its connection began.
    pub async fn run(mut self, socket: Arc<Socket<H::Protocol>>, last_ping: Instant) {
        let reason = self.run_until_end(&socket, Heartbeat::new(last_ping)).await;
        // The server may have closed the connection for another reason. Then the client still gets the queued packets.
        let was_closed = !socket.close(reason);
        let reason = socket.closed_for().unwrap_or(reason);
        let closes_orderly = was_closed && reason.is_orderly();
        if closes_orderly {
            socket.flush();
            self.drain(&socket).await;
            // The close frame must leave before the connection counts as ended. The kernel has room for it, or the client no longer
            // reads.
            let _ = self.tcp.shared().write_directly(&[IoSlice::new(&socket.own.close_frame())]);
        }
        socket.end_transport();
        self.handler.on_end(&socket, reason);
        if closes_orderly {
            let _ = self.tcp.shutdown().await;
        }
    }

    async fn run_until_end(
        &mut self,
        socket: &Arc<Socket<H::Protocol>>,
        mut heartbeat: Heartbeat,
    ) -> DisconnectReason {
        let tcp = self.tcp.shared();
        let mut next_retry = None;
        loop {
            self.handler.on_change(socket);
            let ReadBatch { pongs, has_more } = match self.read_batch(socket) {
                Ok(batch) => batch,
                Err(reason) => return reason,
            };
            // The heartbeat comes after the read, so that answers that have already arrived count.
            let wake_at = match self.next_heartbeat_action(&mut heartbeat, socket, pongs) {
                HeartbeatAction::Wait(until) => until,
                // The next iteration determines the action after the ping.
                HeartbeatAction::Ping => continue,
                HeartbeatAction::Dead if has_more || tcp.has_unread() => Instant::now(),
                HeartbeatAction::Dead => return DisconnectReason::HeartbeatTimeout,
            };
            if self.is_stalled_too_long(socket, &mut next_retry) {
                self.tcp.abort_stalled();
                return DisconnectReason::TransportError;
            }
            let changed = socket.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            self.handler.on_change(socket);
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
                true => {
                    _ = next_retry.get_or_insert_with(|| Instant::now() + self.tcp.write_retry_interval())
                }
                false => next_retry = None,
            }
            let due = next_retry
                .map_or(wake_at, |next_retry| wake_at.min(next_retry).min(self.tcp.stall_deadline()));
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

    /// Returns the next action of the heartbeat. If a ping is due, this function has queued it.
    fn next_heartbeat_action(
        &self,
        heartbeat: &mut Heartbeat,
        socket: &Socket<H::Protocol>,
        pongs: usize,
    ) -> HeartbeatAction {
        let now = Instant::now();
        let (written, stalled) = socket.write_progress();
        let traffic = Traffic { written, stalled, received: self.decoder.received() };
        (0..pongs).for_each(|_| heartbeat.record_pong(now, traffic));
        let next = heartbeat.next(now, self.handler.heartbeat(), traffic);
        if next == HeartbeatAction::Ping {
            heartbeat.record_ping(now, socket.ping(), traffic);
        }
        next
    }

    /// Returns whether the client has read nothing for too long. While the kernel's buffer is full, this function tries to write now
    /// and then. `next_retry` is the time of the next try.
    fn is_stalled_too_long(&self, socket: &Socket<H::Protocol>, next_retry: &mut Option<Instant>) -> bool {
        if !socket.is_stalled() {
            return false;
        }
        let now = Instant::now();
        let next = *next_retry.get_or_insert_with(|| now + self.tcp.write_retry_interval());
        if next > now && self.tcp.stall_deadline() > now {
            return false;
        }
        socket.retry_write();
        *next_retry = Some(now + self.tcp.write_retry_interval());
        socket.is_stalled() && self.tcp.stall_deadline() <= now
    }

    /// Reads and handles up to [`MAX_BATCH`] messages.
    fn read_batch(&mut self, socket: &Arc<Socket<H::Protocol>>) -> Result<ReadBatch, DisconnectReason> {
        let mut pongs = 0;
        for _ in 0..MAX_BATCH {
            self.decoder.set_limit(self.handler.max_message_bytes());
            let mut control_frames = Vec::new();
            let outcome = self.decoder.read(&self.tcp, &mut control_frames);
            match outcome {
                _ if control_frames.is_empty() => {}
                ReadOutcome::Close(_) | ReadOutcome::Invalid(_) | ReadOutcome::Failed(_) => {
                    socket.queue_close_frame(control_frames);
                }
                _ => socket.queue_control_frames(control_frames),
            }
            let handled = match outcome {
                ReadOutcome::Drained => return Ok(ReadBatch { pongs, has_more: false }),
                ReadOutcome::Other => Handled::Message,
                ReadOutcome::Text(text) => self.handler.on_text(&text, socket),
                ReadOutcome::Binary => self.handler.on_binary(socket),
                ReadOutcome::Pong => self.handler.on_pong(),
                ReadOutcome::Close(frame) => Handled::End(self.handler.on_close(frame.as_ref())),
                ReadOutcome::Invalid(input) => Handled::End(self.handler.on_invalid(input, socket)),
                ReadOutcome::Failed(reason) => Handled::End(reason),
            };
            match handled {
                Handled::Message => {}
                Handled::Pong => pongs += 1,
                Handled::End(reason) => return Err(reason),
            }
            if let Some(reason) = socket.closed_for() {
                return Err(reason);
            }
        }
        Ok(ReadBatch { pongs, has_more: true })
    }

    /// Waits until everything is sent, the connection fails, or the client has read nothing for too long.
    async fn drain(&self, socket: &Socket<H::Protocol>) {
        let tcp = self.tcp.shared();
        while !socket.has_sent_all() {
            // The kernel always has room if the client reads everything at once. This lets other tasks run.
            consume_budget().await;
            match timeout(self.tcp.write_retry_interval(), tcp.writable()).await {
                Ok(Ok(())) => socket.resume(),
                Ok(Err(_)) => return,
                Err(_) => {
                    socket.retry_write();
                    if self.tcp.stall_deadline() <= Instant::now() {
                        return self.tcp.abort_stalled();
                    }
                }
            }
        }
    }
}
