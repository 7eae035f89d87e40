//! Why the server closes a plain WebSocket. A client sees the code, and knows from it whether it should reconnect.

use crate::session::CloseReason;

/// The code of a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The node shuts down. The client reconnects.
    ShuttingDown = 1001,
    /// The client is too slow, or the server has no room for it. The client reconnects, and resyncs.
    Overloaded = 1013,
    /// The client has sent something that is no message.
    Malformed = 4400,
    /// The token is missing, invalid or expired. The client reconnects with a new token.
    Unauthorized = 4401,
    FeatureDisabled = 4403,
    /// The client has sent no token in time. The client reconnects.
    NoToken = 4408,
    TooLarge = 4413,
    /// The client sends too much, or its user has too many connections. The client reconnects later.
    TooMany = 4429,
}

impl CloseCode {
    /// The code as a word, for people who read the frame.
    fn word(self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting_down",
            Self::Overloaded => "overloaded",
            Self::Malformed => "malformed_message",
            Self::Unauthorized => "unauthorized",
            Self::FeatureDisabled => "feature_disabled",
            Self::NoToken => "no_token_in_time",
            Self::TooLarge => "message_too_large",
            Self::TooMany => "too_many_requests",
        }
    }

    /// The close frame with this code (RFC 6455 section 5.5.1).
    pub fn frame(self) -> Vec<u8> {
        let word = self.word();
        // The body of a control frame has up to 125 bytes. Every word is shorter.
        let mut frame = vec![0x88, 2 + word.len() as u8];
        frame.extend_from_slice(&(self as u16).to_be_bytes());
        frame.extend_from_slice(word.as_bytes());
        frame
    }
}

impl From<CloseReason> for CloseCode {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::TokenEnded => Self::Unauthorized,
            CloseReason::TooMany => Self::TooMany,
            CloseReason::Overloaded => Self::Overloaded,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::{
        Message,
        protocol::{Role, WebSocketContext},
    };

    use super::*;

    #[test]
    fn a_client_reads_the_code_and_the_word() {
        for code in [
            CloseCode::ShuttingDown,
            CloseCode::Overloaded,
            CloseCode::Malformed,
            CloseCode::Unauthorized,
            CloseCode::FeatureDisabled,
            CloseCode::NoToken,
            CloseCode::TooLarge,
            CloseCode::TooMany,
        ] {
            let mut stream = std::io::Cursor::new(code.frame());
            let read = WebSocketContext::new(Role::Client, None).read(&mut stream).expect("a frame");
            let Message::Close(Some(close)) = read else { panic!("{read:?}") };
            assert_eq!((u16::from(close.code), close.reason.as_str()), (code as u16, code.word()));
        }
    }
}
