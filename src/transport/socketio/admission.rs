//! Authenticates a `CONNECT`, which then becomes a session or is refused.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{
    Auth, SocketIo,
    frame::connect_error,
    socket::{DisconnectReason, EngineIo, Socket},
};
use crate::{
    auth::{AuthError, without_scheme},
    metrics::HandshakeOutcome,
    session::Sessions,
    transport::admission::{Admission, authenticate},
};

/// A connection may send this many `CONNECT` packets.
const MAX_CONNECTS: u32 = 3;

impl SocketIo {
    /// Handles a `CONNECT`.
    pub(super) fn connect(self: &Arc<Self>, socket: &Arc<Socket>, namespace: &str, auth: Option<&RawValue>) {
        let namespace = namespace.split('?').next().unwrap_or_default();
        if socket.client.session().is_some() {
            // The client already has a session, and requests another namespace. It must learn that this namespace does not exist.
            if namespace != "/" {
                self.reject(socket, namespace, HandshakeOutcome::InvalidNamespace);
            }
            return;
        }
        if socket.client.count_connect() > MAX_CONNECTS {
            self.count_error();
            socket.close(DisconnectReason::Malformed);
            return;
        }
        if namespace != "/" {
            self.reject(socket, namespace, HandshakeOutcome::InvalidNamespace);
        } else if !self.sessions.are_enabled() {
            self.reject(socket, "/", HandshakeOutcome::FeatureDisabled);
        } else {
            authenticate(self, socket, token(socket, auth));
        }
    }

    fn reject(&self, socket: &Socket, namespace: &str, outcome: HandshakeOutcome) {
        self.metrics.clients.handshakes.inc(outcome);
        self.count_error();
        let message = match outcome {
            HandshakeOutcome::InvalidNamespace => "Invalid namespace",
            outcome => outcome.into(),
        };
        socket.send_now(connect_error(namespace, message));
    }
}

impl Admission for SocketIo {
    type Protocol = EngineIo;

    fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    fn refuse(&self, socket: &Socket, error: &AuthError) {
        self.reject(socket, "/", error.outcome());
    }

    fn close_for_retry(socket: &Socket) {
        socket.close(DisconnectReason::ClosedHere);
    }

    fn close_without_token(socket: &Socket) {
        socket.close(DisconnectReason::TransportClose);
    }
}

fn token(socket: &Socket, auth: Option<&RawValue>) -> String {
    let auth = auth.and_then(|auth| serde_json::from_str::<Auth>(auth.get()).ok());
    match auth.and_then(|auth| auth.token) {
        Some(token_text) => without_scheme(&token_text).to_owned(),
        None => socket.client.bearer.clone().unwrap_or_default(),
    }
}
