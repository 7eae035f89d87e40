//! What a handler reads of a message: its raw text and the id of its acknowledgement.

use std::{convert::Infallible, fmt, sync::Arc};

use serde_json::value::RawValue;
use socketioxide::{
    adapter::Adapter,
    handler::{FromConnectParts, FromMessageParts},
    socket::Socket,
};
use socketioxide_core::Value;

/// A message as the library received it. The library's own extractors would parse the arguments, and drop those that do not fit.
pub(super) struct RawMessage {
    /// A JSON array: the name of the event and its arguments.
    text: String,
    pub ack: Option<i64>,
    pub is_binary: bool,
}

impl<A: Adapter> FromMessageParts<A> for RawMessage {
    type Error = Infallible;

    fn from_message_parts(
        _: &Arc<Socket<A>>,
        value: &mut Value,
        ack: &Option<i64>,
    ) -> Result<Self, Infallible> {
        let (text, is_binary) = match value {
            Value::Str(text, attachments) => (text.to_string(), attachments.is_some()),
            Value::Bytes(_) => (String::new(), true),
        };
        Ok(Self { text, ack: *ack, is_binary })
    }
}

impl RawMessage {
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// The name of the event and its arguments. `None` means that the text is no event.
    pub fn event(&self) -> Option<(String, Vec<&RawValue>)> {
        let items: Vec<&RawValue> = serde_json::from_str(&self.text).ok()?;
        let (name, arguments) = items.split_first()?;
        Some((serde_json::from_str(name.get()).ok()?, arguments.to_vec()))
    }
}

/// Without the text, which may contain a token.
impl fmt::Debug for RawMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMessage")
            .field("bytes", &self.len())
            .field("ack", &self.ack)
            .finish_non_exhaustive()
    }
}

/// The socket itself. The library's own reference to it cannot make acknowledgements.
pub(super) struct OwnedSocket<A: Adapter>(pub Arc<Socket<A>>);

impl<A: Adapter> FromConnectParts<A> for OwnedSocket<A> {
    type Error = Infallible;

    fn from_connect_parts(socket: &Arc<Socket<A>>, _: &Option<Value>) -> Result<Self, Infallible> {
        Ok(Self(socket.clone()))
    }
}
