//! What Engine.IO does with the messages of a WebSocket, and how a polling client moves to one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    SocketIo,
    packet::Packet,
    socket::{DisconnectReason, EngineIo, Socket},
};
use crate::{
    config::HeartbeatConfig,
    transport::{
        outbox::Packet as _,
        websocket::{Handled, Handler, WebsocketTask},
    },
};

/// The timeout for the upgrade of a polling client.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct SocketIoHandler(Arc<SocketIo>);

impl SocketIoHandler {
    pub fn new(server: Arc<SocketIo>) -> Self {
        Self(server)
    }
}

impl Handler for SocketIoHandler {
    type Protocol = EngineIo;

    fn heartbeat(&self) -> &HeartbeatConfig {
        &self.0.heartbeat
    }

    fn max_message_bytes(&self) -> usize {
        self.0.read_limits.message()
    }

    fn on_text(&mut self, text: &str, socket: &Arc<Socket>) -> Handled {
        match text.as_bytes().first() {
            Some(b'4') => {
                self.0.on_message(&text[1..], socket);
                Handled::Message
            }
            Some(b'3' | b'2') => Handled::Pong,
            Some(b'1') => Handled::End(DisconnectReason::ClientClose),
            _ => Handled::End(DisconnectReason::Malformed),
        }
    }

    fn on_binary(&mut self, socket: &Arc<Socket>) -> Handled {
        self.0.on_binary(socket);
        Handled::Message
    }

    /// Engine.IO's own pings and pongs are text messages.
    fn on_pong(&mut self) -> Handled {
        Handled::Message
    }

    fn on_end(&mut self, socket: &Arc<Socket>, reason: DisconnectReason) {
        self.0.on_disconnect(socket, reason);
    }
}

/// Runs the upgrade of a polling client after the handshake of its WebSocket. Returns when the client was last pinged. `None`
/// means that the client does not move to this WebSocket.
pub(super) async fn upgrade_client(
    task: &mut WebsocketTask<SocketIoHandler>,
    socket: &Arc<Socket>,
) -> Option<Instant> {
    let mut has_begun = false;
    let upgraded = timeout(UPGRADE_TIMEOUT, async {
        // Until the probe comes, a proxy may let no frame through. Polling requests therefore still wait for packets as before.
        if task.next_text().await.as_deref() != Some("2probe") {
            return false;
        }
        has_begun = socket.begin_upgrade();
        if !has_begun {
            return false;
        }
        // No other task writes to this WebSocket yet.
        let probed = Packet::probed();
        if task.write_alone(probed.frame()).await.is_err() {
            return false;
        }
        task.next_text().await.as_deref() == Some("5")
    });
    let upgraded = tokio::select! {
        upgraded = upgraded => upgraded.unwrap_or(false),
        () = socket.closed() => false,
    };
    if !upgraded {
        if has_begun {
            socket.abandon_upgrade();
        }
        return None;
    }
    // The client may have tried other WebSockets. Only this one becomes its transport.
    socket.client.set_tcp(task.tcp().handle());
    socket.upgrade(task.tcp().shared())
}
