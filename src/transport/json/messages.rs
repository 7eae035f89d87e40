//! The messages of the clients of `/ws`, and the answers that only this transport gives.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{
    ClientMessage, CloseCode, JsonFrame, Malformed, PlainWebsocket,
    socket::{Json, JsonSocket},
};
use crate::{
    auth::without_scheme,
    json::replace_lone_surrogates,
    metrics::HandshakeOutcome,
    rate_limited_log::rate_limited_log,
    session::{Connection, Incoming},
    transport::{admission::authenticate, socket::Protocol},
    wire::{ClientEventName, Code, Message, Refusal},
};

/// The names of messages that only this transport has.
pub(super) const AUTH: &str = "auth";
const PING: &str = "ping";

/// The payload of a message `auth`.
#[derive(Deserialize)]
struct Auth {
    token: String,
}

impl PlainWebsocket {
    /// Handles the first message of a client that has sent no token in its request.
    pub(super) fn on_first_message(self: &Arc<Self>, text: &str, socket: &Arc<JsonSocket>) {
        let _span = socket.client.span().entered();
        let text = replace_lone_surrogates(text);
        let message = match ClientMessage::parse(&text) {
            Ok(message) => message,
            Err(error) => return self.close_malformed(socket, error),
        };
        *socket.own.auth_id.lock() = message.id;
        let auth = message.payload.and_then(|payload| serde_json::from_str::<Auth>(payload.get()).ok());
        match auth.filter(|_| message.name == AUTH) {
            Some(Auth { token }) => authenticate(self, socket, without_scheme(&token).to_owned()),
            None => {
                self.sessions.metrics().clients.handshakes.inc(HandshakeOutcome::Unauthorized);
                let refusal = Refusal::new(
                    Code::Unauthorized,
                    "Send {type: \"auth\", payload: {token}} as the first message",
                );
                let event = match &*message.name {
                    AUTH => Some(AUTH),
                    name => name.parse().ok().map(|name: ClientEventName| name.into()),
                };
                // Only the answer to a message with an id names the event. Without an id, the client learns the reason from the close code.
                let event = event.filter(|_| socket.own.auth_id.lock().is_some());
                self.refuse_token(socket, Refusal { event, ..refusal }, CloseCode::Unauthorized);
            }
        }
    }

    /// Handles a message of a client with a session.
    pub(super) fn on_message(&self, text: &str, socket: &Arc<JsonSocket>) {
        let _span = socket.client.span().entered();
        // The session may have ended while more messages were in the read buffer.
        let Some(session) = socket.client.session() else { return };
        let text = replace_lone_surrogates(text);
        let message = match ClientMessage::parse(&text) {
            Ok(message) => message,
            Err(error) => return self.close_malformed(socket, error),
        };
        let contains_token = message.name.parse() == Ok(ClientEventName::AuthRefresh);
        if text.len() > self.read_limits.plain_message && !contains_token {
            return self.close_too_large(socket);
        }
        let ClientMessage { name, payload, id } = message;
        let arguments: Vec<_> = payload.into_iter().collect();
        let incoming = Incoming { name: &name, arguments: &arguments, id, is_binary: false };
        if !self.sessions.may_send(&session, Some(&incoming)) {
            return;
        }
        match incoming.name {
            PING => {
                socket.send_before_messages(JsonFrame::pong());
                if let Some(id) = incoming.id {
                    self.sessions.reply(&session, &Message::reply(id, &json!({"ok": true})));
                }
            }
            AUTH => {
                let refusal =
                    Refusal::new(Code::Conflict, "The session has begun: auth:refresh sends another token");
                let refusal = Refusal { event: Some(AUTH), ..refusal };
                self.sessions.refuse(&session, incoming.id, &refusal);
            }
            _ => self.sessions.receive(&session, incoming),
        }
    }

    /// The session has begun, and `init` was sent. If the message with the token has an id, its client gets the answer.
    pub(super) fn acknowledge_token(&self, socket: &JsonSocket) {
        if let Some(id) = socket.own.auth_id.lock().take() {
            socket.send_now(Json::encode(&Message::reply(id, &json!({"ok": true}))));
        }
    }

    /// Tells a client why it gets no session, and closes its connection.
    pub(super) fn refuse_token(&self, socket: &JsonSocket, refusal: Refusal, code: CloseCode) {
        self.sessions.metrics().clients.errors.inc();
        let message = match socket.own.auth_id.lock().take() {
            Some(id) => Message::reply(id, &json!({"ok": false, "error": refusal})),
            None => Message::refused(&refusal),
        };
        Connection::send_now(socket, message);
        socket.close_with(code);
    }

    pub(super) fn close_malformed(&self, socket: &JsonSocket, error: Malformed) {
        rate_limited_log!(info, %error, "closed a plain WebSocket because of a malformed message");
        self.close_for_error(socket, CloseCode::Malformed);
    }

    pub(super) fn close_too_large(&self, socket: &JsonSocket) {
        rate_limited_log!(
            info,
            "closed a plain WebSocket: its message is longer than MAX_MESSAGE_BYTES, or than MAX_TOKEN_BYTES allows before a token"
        );
        self.close_for_error(socket, CloseCode::TooLarge);
    }

    /// Closes a connection because of what its client has sent.
    pub(super) fn close_for_error(&self, socket: &JsonSocket, code: CloseCode) {
        self.sessions.metrics().clients.errors.inc();
        socket.close_with(code);
    }
}
