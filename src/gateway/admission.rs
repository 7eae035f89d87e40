//! From a `CONNECT` to a session, or to the reason why there is none.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::Instrument;

use crate::{
    auth::{AuthError, Identity, UnixTime, without_scheme},
    seldom::seldom,
};

use super::{
    Gateway,
    socket::{DisconnectReason, Socket},
};

/// For the next fetch of keys that may begin, and its answer. Clients take a refusal as final: one whose key has not
/// been fetched yet waits.
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
        // Of two `CONNECT`s, one waits.
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
                // Its place is for others.
                () = socket.closed() => {}
            }
        };
        tokio::spawn(waiting.instrument(span));
    }

    fn decide(&self, socket: &Arc<Socket>, decided: Result<Identity, AuthError>) {
        match decided {
            Ok(identity) => self.accept(socket, identity),
            Err(error) if error.is_passing() => {
                seldom!(warn, %error, "closed a connection: it may try again");
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

/// A token that is too long is a matter of a setting. Its line must not be one of those that are left out because others are
/// refused at the same time.
pub(super) fn log_refused(error: &AuthError, what: &'static str) {
    match error {
        AuthError::TooLong { .. } => seldom!(warn, %error, "{what}"),
        _ => seldom!(info, %error, "{what}"),
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
