//! One connection to `/ws`, as its session and the fan-out see it.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::Span;

use super::{CloseCode, JsonFrame, encode_message};
use crate::{
    auth::UnixTime,
    edge::Evict,
    fanout::SendError,
    metrics,
    session::{CloseReason, Connection},
    transport::{
        disconnect_reason::DisconnectReason,
        socket::{Protocol, Socket},
    },
    wire::{Message, RequestId},
};

/// A client whose queue was dropped has this long to read the frame that has begun to leave, and the close frame.
const LAST_FRAME_TIMEOUT: Duration = Duration::from_millis(900);

pub(super) type JsonSocket = Socket<Json>;

/// What `/ws` adds to a connection.
#[derive(Debug)]
pub struct Json {
    pub id: u64,
    /// Why the server closes the connection.
    close_code: OnceLock<CloseCode>,
    /// The id of the message with the token, until it is answered.
    pub auth_id: Mutex<Option<RequestId>>,
}

impl Json {
    pub fn new(id: u64) -> Self {
        Self { id, close_code: OnceLock::new(), auth_id: Mutex::default() }
    }
}

impl Protocol for Json {
    type Packet = JsonFrame;
    type Alternative = Infallible;

    fn encode(message: &Message) -> JsonFrame {
        encode_message(message, || UnixTime::now().as_millis())
    }

    fn close_frame(&self) -> Vec<u8> {
        self.close_code.get().map_or_else(|| CloseCode::ShuttingDown.frame(), |code| code.frame())
    }
}

impl JsonSocket {
    /// Closes the connection after the queued messages. The first code counts.
    pub fn close_with(&self, code: CloseCode) {
        let _ = self.own.close_code.set(code);
        let reason = match code {
            CloseCode::Malformed | CloseCode::TooLarge => DisconnectReason::Malformed,
            _ => DisconnectReason::ClosedHere,
        };
        self.close(reason);
    }
}

// The methods of the same name that are called here are those of `Socket` itself.
impl Connection for JsonSocket {
    fn send(&self, message: Message) -> Result<bool, SendError> {
        self.send(message)
    }

    fn send_now(&self, message: Message) {
        self.send_now(Json::encode(&message));
    }

    fn flush(&self) {
        self.flush();
    }

    fn close_in_order(self: Arc<Self>, reason: CloseReason) {
        self.close_with(reason.into());
    }

    /// The client still gets the close frame, if it reads what has begun to leave.
    fn close_now(self: Arc<Self>, reason: CloseReason) {
        self.close_with(reason.into());
        self.drop_unbegun();
        let tcp = self.client.tcp();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_FRAME_TIMEOUT).await;
            tcp.shut();
        });
    }

    fn last_progress(&self) -> Option<Instant> {
        self.client.tcp().last_progress()
    }

    fn transport(&self) -> metrics::Transport {
        metrics::Transport::PlainWebsocket
    }

    fn span(&self) -> Span {
        self.client.span()
    }
}

impl Evict for JsonSocket {
    fn evict(&self) {
        self.close_with(CloseCode::Overloaded);
    }
}

#[cfg(test)]
mod tests;
