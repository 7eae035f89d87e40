//! Authenticates a `CONNECT`, before the library answers it.

use std::{fmt, sync::Arc};

use serde_json::Value;
use socketioxide::{adapter::LocalAdapter, socket::Socket};

use super::{Attached, client::Client};
use crate::{
    auth::{AuthError, Identity, bearer, without_scheme},
    metrics::HandshakeOutcome,
    rate_limited_log::rate_limited_log,
    session::log_refused,
    transport::{admission::CONNECT_TIMEOUT, socketio::Auth},
};

/// A socket whose token is valid. The socket holds it until the connect handler runs.
#[derive(Clone)]
pub(super) struct Admitted {
    pub client: Arc<Client>,
    pub identity: Identity,
}

/// The code that the client gets as the message of its `connect_error`.
pub(super) struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

pub(super) async fn admit(
    attached: Arc<Attached>,
    socket: Arc<Socket<LocalAdapter>>,
    auth: Option<Value>,
) -> Result<(), Refused> {
    let refused = |outcome: HandshakeOutcome| {
        attached.metrics.clients.handshakes.inc(outcome);
        attached.metrics.clients.errors.inc();
        Err(Refused(outcome.into()))
    };
    let sessions = &attached.sessions;
    if !sessions.are_enabled() {
        return refused(HandshakeOutcome::FeatureDisabled);
    }
    let token_text =
        auth.and_then(|auth| serde_json::from_value::<Auth>(auth).ok()).and_then(|auth| auth.token);
    let token = match &token_text {
        Some(token_text) => without_scheme(token_text),
        None => bearer(&socket.req_parts().headers).unwrap_or_default(),
    };
    let result = match sessions.verify(token) {
        Err(AuthError::NoKey { .. }) => sessions.admit(token, CONNECT_TIMEOUT).await,
        result => result,
    };
    match result {
        Ok(identity) => {
            let client = attached.register(&socket);
            socket.extensions.insert(Admitted { client, identity });
            Ok(())
        }
        Err(error) if error.is_temporary() => {
            rate_limited_log!(warn, %error, "closed a connection: its client may try again");
            attached.metrics.clients.handshakes.inc(HandshakeOutcome::Unavailable);
            // A client does not try again after a refusal. The library closes a connection without a namespace after this time, and the
            // client then reconnects.
            tokio::time::sleep(2 * CONNECT_TIMEOUT).await;
            Err(Refused(HandshakeOutcome::Unavailable.into()))
        }
        Err(error) => {
            log_refused(&error, "refused a connection");
            refused(error.outcome())
        }
    }
}
