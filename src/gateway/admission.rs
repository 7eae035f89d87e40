//! Authenticates a `CONNECT`, which then becomes a session or is refused.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::Instrument;

use crate::{
    auth::{AuthError, Identity, UnixTime, without_scheme},
    rate_limited_log::rate_limited_log,
};

use super::{
    Gateway,
    socket::{DisconnectReason, Socket},
};

/// A client whose key has not been fetched yet waits this long: for the next fetch that may begin, and for its answer. Clients
/// treat a refusal as final.
const KEY_PATIENCE: Duration = Duration::from_secs(70);

#[derive(Deserialize)]
struct Auth {
    token: Option<String>,
}

impl Gateway {
    pub(super) fn authenticate(&self, socket: &Arc<Socket>, auth: Option<&RawValue>) {
        let token = token(socket, auth);
        match self.tokens.verify(&token, UnixTime::now()) {
            Err(AuthError::NoKey { .. }) => self.await_key(socket, token),
            decided => self.decide(socket, decided),
        }
    }

    fn await_key(&self, socket: &Arc<Socket>, token: String) {
        // If a client sends two `CONNECT`s, only one of them waits.
        let Some(gateway) = self.this.upgrade().filter(|_| socket.data.wait()) else { return };
        let (span, socket) = (socket.data.span(), socket.clone());
        let waiting = async move {
            tokio::select! {
                decided = gateway.tokens.admit(&token, KEY_PATIENCE) => {
                    socket.data.end_wait();
                    gateway.decide(&socket, decided);
                    if socket.data.session().is_none() {
                        Self::await_connect(&socket);
                    }
                }
                // The connection has closed. Another client can wait for keys in its place.
                () = socket.closed() => {}
            }
        };
        tokio::spawn(waiting.instrument(span));
    }

    fn decide(&self, socket: &Arc<Socket>, decided: Result<Identity, AuthError>) {
        match decided {
            Ok(identity) => self.accept(socket, identity),
            Err(error) if error.is_passing() => {
                rate_limited_log!(warn, %error, "closed a connection: its client may try again");
                self.metrics.clients.handshakes.inc(["unavailable"]);
                socket.close(DisconnectReason::ClosedHere);
            }
            Err(error) => {
                log_refused(&error, "refused a connection");
                self.reject(socket, "/", error.code());
            }
        }
    }
}

/// A token that is too long points to a setting. Its log line has a rate limit of its own, so that other refusals at the same time
/// do not suppress it.
pub(super) fn log_refused(error: &AuthError, what: &'static str) {
    match error {
        AuthError::TooLong { .. } => rate_limited_log!(warn, %error, "{what}"),
        _ => rate_limited_log!(info, %error, "{what}"),
    }
}

fn token(socket: &Socket, auth: Option<&RawValue>) -> String {
    let given =
        auth.and_then(|auth| serde_json::from_str::<Auth>(auth.get()).ok()).and_then(|auth| auth.token);
    match given {
        Some(given) => without_scheme(&given).to_owned(),
        None => socket.data.bearer.clone().unwrap_or_default(),
    }
}
