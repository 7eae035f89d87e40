//! Authenticates a `CONNECT`, which then becomes a session or is refused.

use std::{sync::Arc, time::Duration};

use serde_json::value::RawValue;
use tracing::Instrument;

use super::{
    Auth, SocketIo,
    frame::connect_error,
    socket::{DisconnectReason, Socket},
};
use crate::{
    auth::{AuthError, Identity, without_scheme},
    metrics::HandshakeOutcome,
    rate_limited_log::rate_limited_log,
    session::log_refused,
};

/// A client whose key has not been fetched yet waits this long: for the next fetch that may begin, and for its answer. Clients
/// treat a refusal as final.
const KEY_WAIT_TIMEOUT: Duration = Duration::from_secs(70);
/// A connection may send this many `CONNECT` packets.
const MAX_CONNECTS: u32 = 3;
/// A connection without a session is closed after this time, unless it waits for its token's key.
pub(in crate::transport) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
            self.authenticate(socket, auth);
        }
    }

    fn authenticate(self: &Arc<Self>, socket: &Arc<Socket>, auth: Option<&RawValue>) {
        let token = token(socket, auth);
        match self.sessions.verify(&token) {
            Err(AuthError::NoKey { .. }) => self.wait_for_key(socket, token),
            result => self.finish_connect(socket, result),
        }
    }

    fn wait_for_key(self: &Arc<Self>, socket: &Arc<Socket>, token: String) {
        // If a client sends two `CONNECT`s, only one of them waits.
        if !socket.client.begin_key_wait() {
            return;
        }
        let (span, socket, server) = (socket.client.span(), socket.clone(), self.clone());
        let key_wait = async move {
            tokio::select! {
                result = server.sessions.admit(&token, KEY_WAIT_TIMEOUT) => {
                    socket.client.end_key_wait();
                    server.finish_connect(&socket, result);
                    if socket.client.session().is_none() {
                        Self::close_without_connect(&socket);
                    }
                }
                // The connection has closed. This frees a slot for another client that waits for keys.
                () = socket.closed() => {}
            }
        };
        tokio::spawn(key_wait.instrument(span));
    }

    fn finish_connect(&self, socket: &Arc<Socket>, result: Result<Identity, AuthError>) {
        match result {
            Ok(identity) => self.accept(socket, identity),
            Err(error) if error.is_temporary() => {
                rate_limited_log!(warn, %error, "closed a connection: its client may try again");
                self.metrics.clients.handshakes.inc(HandshakeOutcome::Unavailable);
                socket.close(DisconnectReason::ClosedHere);
            }
            Err(error) => {
                log_refused(&error, "refused a connection");
                self.reject(socket, "/", error.outcome());
            }
        }
    }

    fn accept(&self, socket: &Arc<Socket>, identity: Identity) {
        let session = self.sessions.open(socket.clone(), identity);
        let previous = socket.client.set_session(&session);
        self.sessions.begin(&session);
        if let Some(previous) = previous {
            self.sessions.end(&previous, false);
        }
        if socket.is_closed() {
            // `on_disconnect` may have run before the session was set.
            self.sessions.end(&session, true);
        }
    }

    /// Closes the socket after [`CONNECT_TIMEOUT`] if it has no session by then and waits for no key.
    pub(super) fn close_without_connect(socket: &Arc<Socket>) {
        let socket = Arc::downgrade(socket);
        tokio::spawn(async move {
            tokio::time::sleep(CONNECT_TIMEOUT).await;
            if let Some(socket) = socket.upgrade()
                && socket.client.session().is_none()
                && !socket.client.is_waiting_for_key()
            {
                socket.close(DisconnectReason::TransportClose);
            }
        });
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

fn token(socket: &Socket, auth: Option<&RawValue>) -> String {
    let auth = auth.and_then(|auth| serde_json::from_str::<Auth>(auth.get()).ok());
    match auth.and_then(|auth| auth.token) {
        Some(token_text) => without_scheme(&token_text).to_owned(),
        None => socket.client.bearer.clone().unwrap_or_default(),
    }
}
