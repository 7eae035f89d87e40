//! How a connection ended.

use std::io;

pub(super) enum Outcome {
    /// Worth another try.
    Lost(String),
    /// For good; the text says what to do.
    Refused(String),
    /// Whoever read the output has enough.
    OutputClosed,
    OutputFailed(io::Error),
}

impl Outcome {
    pub(super) fn lost(reason: impl Into<String>) -> Self {
        Self::Lost(reason.into())
    }

    /// What a `connect_error` means. Its message is a code.
    pub(super) fn connect_error(code: &str) -> Self {
        let advice = match code {
            "unauthorized" => {
                "the gateway does not accept the token: sign it with its secret, issuer and audience \
                 (`taskcast token` with the gateway's settings does); the gateway's log has the reason"
            }
            "token_expired" => "the token has expired: give a fresh one (`taskcast token`)",
            "feature_disabled" => "Socket.IO is switched off there (FEATURE_WEBSOCKET_ENABLED)",
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

/// A text of the server's, fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(200).collect();
    short.escape_debug().to_string()
}
