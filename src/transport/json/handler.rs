//! What the server does with the messages of one client. The methods run in the task of the client's WebSocket.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode as SentCode};

use super::{
    CloseCode, Malformed, PlainWebsocket,
    socket::{Json, JsonSocket},
};
use crate::{
    config::HeartbeatConfig,
    transport::{
        decoder::InvalidInput,
        disconnect_reason::DisconnectReason,
        websocket::{Handled, Handler},
    },
};

/// This many messages may wait for the session of a client whose token is being checked. Their bytes are limited, too: a client without
/// a session may only send as much as a token needs.
const MAX_EARLY_MESSAGES: usize = 256;
/// The header of a client's frame has up to this many bytes. A message that is too long is thus noticed before the limit of the TCP
/// connection is reached, and its sender gets a close code.
const FRAME_HEADER: usize = 14;

pub(super) struct JsonHandler {
    server: Arc<PlainWebsocket>,
    /// The client has sent its token, so that its next messages are requests.
    has_sent_token: bool,
    /// The client had a session when its last message was handled.
    has_session: bool,
    /// Messages that came while the token was being checked.
    early: Vec<String>,
}

impl JsonHandler {
    /// `has_sent_token` is true if the token was in the headers of the request.
    pub fn new(server: Arc<PlainWebsocket>, has_sent_token: bool) -> Self {
        Self { server, has_sent_token, has_session: false, early: Vec::new() }
    }

    /// Notices that the session has begun, which means that `init` is queued: answers the message with the token, and handles what came before.
    fn update(&mut self, socket: &Arc<JsonSocket>) {
        if self.has_session || !socket.client.has_begun() {
            return;
        }
        self.has_session = true;
        self.server.acknowledge_token(socket);
        for text in std::mem::take(&mut self.early) {
            if socket.is_closed() {
                return;
            }
            self.server.on_message(&text, socket);
        }
    }
}

impl Handler for JsonHandler {
    type Protocol = Json;

    fn heartbeat(&self) -> &HeartbeatConfig {
        &self.server.heartbeat
    }

    fn max_message_bytes(&self) -> usize {
        let limits = &self.server.read_limits;
        match self.has_session {
            true => limits.message(),
            false => limits.unauthenticated - FRAME_HEADER,
        }
    }

    fn on_text(&mut self, text: &str, socket: &Arc<JsonSocket>) -> Handled {
        self.update(socket);
        if self.has_session {
            self.server.on_message(text, socket);
        } else if socket.is_closed() {
            // The server has refused the client before it read anything.
        } else if !self.has_sent_token {
            self.has_sent_token = true;
            self.server.on_first_message(text, socket);
            self.update(socket);
        } else if self.early.len() < MAX_EARLY_MESSAGES {
            self.early.push(text.to_owned());
        } else {
            self.server.close_for_error(socket, CloseCode::TooMany);
        }
        Handled::Message
    }

    fn on_binary(&mut self, socket: &Arc<JsonSocket>) -> Handled {
        if !socket.is_closed() {
            self.server.close_malformed(socket, Malformed::Binary);
        }
        Handled::Message
    }

    fn on_pong(&mut self) -> Handled {
        Handled::Pong
    }

    fn on_close(&mut self, frame: Option<&CloseFrame>) -> DisconnectReason {
        left_or_lost(frame)
    }

    fn on_invalid(&mut self, input: InvalidInput, socket: &Arc<JsonSocket>) -> DisconnectReason {
        match input {
            _ if socket.is_closed() => {}
            InvalidInput::TooLong => self.server.close_too_large(socket),
            InvalidInput::Malformed => self.server.close_malformed(socket, Malformed::Frame),
        }
        DisconnectReason::Malformed
    }

    fn on_change(&mut self, socket: &Arc<JsonSocket>) {
        self.update(socket);
    }

    fn on_end(&mut self, socket: &Arc<JsonSocket>, reason: DisconnectReason) {
        self.server.on_disconnect(socket, reason);
    }
}

/// A client that closes the connection by itself leaves. A page that is closed or loaded again sends 1001, and is lost: its next
/// connection may get the dashboard again.
fn left_or_lost(frame: Option<&CloseFrame>) -> DisconnectReason {
    match frame.map(|frame| frame.code) {
        None | Some(SentCode::Normal) => DisconnectReason::ClientClose,
        Some(_) => DisconnectReason::TransportClose,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_closes_with_1000_or_without_a_code_has_left() {
        let close = |code| left_or_lost(Some(&CloseFrame { code, reason: "".into() }));
        assert_eq!(left_or_lost(None), DisconnectReason::ClientClose);
        assert_eq!(close(SentCode::Normal), DisconnectReason::ClientClose);
        for code in [SentCode::Away, SentCode::Abnormal, SentCode::Library(4000)] {
            assert_eq!(close(code), DisconnectReason::TransportClose, "{code}");
        }
    }
}
