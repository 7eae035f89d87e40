//! How a connection ended.

use std::io;

pub(super) enum Outcome {
    /// The client tries again.
    Lost(String),
    /// A retry would not help. The text says what to do.
    Refused(String),
    /// The reader of the output has closed it.
    OutputClosed,
    OutputFailed(io::Error),
}

impl Outcome {
    pub(super) fn lost(reason: impl Into<String>) -> Self {
        Self::Lost(reason.into())
    }

    /// The outcome of a `connect_error`. `code` is its message.
    pub(super) fn connect_error(code: &str) -> Self {
        let advice = match code {
            "unauthorized" => {
                "the gateway does not accept the token: sign it with its secret, issuer and audience \
                 (`taskcast token` with the gateway's settings does); the gateway's log has the reason"
            }
            "token_expired" => "the token has expired: use a fresh one (`taskcast token`)",
            "feature_disabled" => "Socket.IO is switched off on the gateway (FEATURE_WEBSOCKET_ENABLED)",
            _ => "the gateway refuses the connection; its log has the reason",
        };
        Self::Refused(format!("{}: {advice}", shown(code)))
    }
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::OutputFailed(error),
        }
    }
}

/// A text from the server, shortened and escaped for a terminal.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(200).collect();
    short.escape_debug().to_string()
}
