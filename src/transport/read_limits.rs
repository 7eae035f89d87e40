//! How many bytes the server reads from a client, before and after the client has shown a token.

use http::Method;

use crate::{edge::max_token_message_bytes, session::Sessions};

/// The minimum limit for the body of a polling request, which carries several messages.
const MAX_BODY_BYTES: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLimits {
    /// The limit before the client has a session: for everything that it sends on a WebSocket, or for one body of a polling request.
    pub unauthenticated: usize,
    /// The limit for a message that contains no token: `MAX_MESSAGE_BYTES`.
    pub plain_message: usize,
}

impl ReadLimits {
    pub fn of(sessions: &Sessions) -> Self {
        Self {
            unauthenticated: max_token_message_bytes(sessions.max_token_bytes()),
            plain_message: sessions.limits().max_message_bytes,
        }
    }

    /// The limit for any message, because it may contain a token.
    pub fn message(&self) -> usize {
        self.unauthenticated.max(self.plain_message)
    }

    /// The limit for the body of a polling request from a client with a session.
    pub fn body(&self) -> usize {
        MAX_BODY_BYTES.max(self.message())
    }

    /// The limit for the body of a request. Only a `POST` has one.
    pub fn request_body(&self, method: &Method, is_authenticated: bool) -> usize {
        match (method, is_authenticated) {
            (&Method::POST, true) => self.body(),
            (&Method::POST, false) => self.unauthenticated,
            _ => 0,
        }
    }
}
