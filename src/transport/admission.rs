//! Turns a client with a token into a session. The protocols differ in how a client sends its token and in how it is refused.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use super::socket::{Protocol, Socket};
use crate::{
    auth::{AuthError, Identity},
    metrics::HandshakeOutcome,
    rate_limited_log::rate_limited_log,
    session::{Connection, Sessions, log_refused},
};

/// A client whose key has not been fetched yet waits this long: for the next fetch that may begin, and for its answer. Clients
/// treat a refusal as final.
const KEY_WAIT_TIMEOUT: Duration = Duration::from_secs(70);
/// A connection without a session is closed after this time, unless it waits for its token's key.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that admits clients.
pub(super) trait Admission: Send + Sync + 'static {
    type Protocol: Protocol;

    fn sessions(&self) -> &Arc<Sessions>;

    /// The token is not accepted.
    fn refuse(&self, socket: &Socket<Self::Protocol>, error: &AuthError);

    /// Closes the connection of a client whose token cannot be checked at the moment. The client may try again.
    fn close_for_retry(socket: &Socket<Self::Protocol>);

    /// Closes the connection of a client that has sent no token in time.
    fn close_without_token(socket: &Socket<Self::Protocol>);
}

/// Checks the token of a client, which then gets a session or is refused. The client may have to wait for its token's key.
pub(super) fn authenticate<A: Admission>(server: &Arc<A>, socket: &Arc<Socket<A::Protocol>>, token: String)
where
    Socket<A::Protocol>: Connection,
{
    match server.sessions().verify(&token) {
        Err(AuthError::NoKey { .. }) => wait_for_key(server, socket, token),
        result => finish(&**server, socket, result),
    }
}

fn wait_for_key<A: Admission>(server: &Arc<A>, socket: &Arc<Socket<A::Protocol>>, token: String)
where
    Socket<A::Protocol>: Connection,
{
    // If a client sends two tokens, only one of them waits.
    if !socket.client.begin_key_wait() {
        return;
    }
    let (span, socket, server) = (socket.client.span(), socket.clone(), server.clone());
    let key_wait = async move {
        tokio::select! {
            result = server.sessions().admit(&token, KEY_WAIT_TIMEOUT) => {
                socket.client.end_key_wait();
                finish(&*server, &socket, result);
                if socket.client.session().is_none() {
                    close_without_session::<A>(&socket);
                }
            }
            // The connection has closed. This frees a slot for another client that waits for keys.
            () = socket.closed() => {}
        }
    };
    tokio::spawn(key_wait.instrument(span));
}

fn finish<A: Admission>(server: &A, socket: &Arc<Socket<A::Protocol>>, result: Result<Identity, AuthError>)
where
    Socket<A::Protocol>: Connection,
{
    match result {
        Ok(identity) => accept(server, socket, identity),
        Err(error) if error.is_temporary() => {
            rate_limited_log!(warn, %error, "closed a connection: its client may try again");
            server.sessions().metrics().clients.handshakes.inc(HandshakeOutcome::Unavailable);
            A::close_for_retry(socket);
        }
        Err(error) => {
            log_refused(&error, "refused a connection");
            server.refuse(socket, &error);
        }
    }
}

fn accept<A: Admission>(server: &A, socket: &Arc<Socket<A::Protocol>>, identity: Identity)
where
    Socket<A::Protocol>: Connection,
{
    let sessions = server.sessions();
    let session = sessions.open(socket.clone(), identity);
    let previous = socket.client.set_session(&session);
    sessions.begin(&session);
    socket.client.mark_begun();
    if let Some(previous) = previous {
        sessions.end(&previous, false);
    }
    if socket.is_closed() {
        // The connection may have ended before the session was set.
        sessions.end(&session, true);
    }
    socket.wake();
}

/// Closes the socket after [`CONNECT_TIMEOUT`] if it has no session by then and waits for no key.
pub(super) fn close_without_session<A: Admission>(socket: &Arc<Socket<A::Protocol>>) {
    let socket = Arc::downgrade(socket);
    tokio::spawn(async move {
        tokio::time::sleep(CONNECT_TIMEOUT).await;
        if let Some(socket) = socket.upgrade()
            && socket.client.session().is_none()
            && !socket.client.is_waiting_for_key()
        {
            A::close_without_token(&socket);
        }
    });
}
