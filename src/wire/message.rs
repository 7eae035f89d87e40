//! What the server sends to a client, without the framing of a transport.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::Serialize;

/// An event or a reply, shared by all clients that get it. Each dialect that is in use encodes it once. Clones share everything.
#[derive(Clone)]
pub struct Message(Arc<Shared>);

struct Shared {
    content: Content,
    encodings: [OnceLock<Bytes>; Dialect::COUNT],
}

/// The texts are JSON, except for names and ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The client has a session.
    Connected { id: Box<str> },
    Event {
        name: &'static str,
        payload: Box<str>,
        /// A second argument. Handlers that take one argument ignore it.
        extra: Option<Box<str>>,
    },
    /// The answer to the client's request with this id.
    Reply { id: u64, payload: Box<str> },
}

/// The ways in which messages are encoded. The transports know what each of them looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    SocketIo,
}

impl Dialect {
    const COUNT: usize = 1;
}

impl Message {
    pub fn connected(id: &str) -> Self {
        Self::new(Content::Connected { id: id.into() })
    }

    pub fn event(name: &'static str, payload: &impl Serialize) -> Self {
        Self::new(Content::Event { name, payload: json(payload), extra: None })
    }

    pub fn event_with(name: &'static str, payload: &impl Serialize, extra: &impl Serialize) -> Self {
        Self::new(Content::Event { name, payload: json(payload), extra: Some(json(extra)) })
    }

    pub fn reply(id: u64, payload: &impl Serialize) -> Self {
        Self::new(Content::Reply { id, payload: json(payload) })
    }

    fn new(content: Content) -> Self {
        Self(Arc::new(Shared { content, encodings: Default::default() }))
    }

    pub fn content(&self) -> &Content {
        &self.0.content
    }

    /// The message in this dialect. `encode` is called when the first client of this dialect gets the message.
    pub fn encoded(&self, dialect: Dialect, encode: impl FnOnce(&Content) -> Bytes) -> Bytes {
        self.0.encodings[dialect as usize].get_or_init(|| encode(&self.0.content)).clone()
    }

    /// The number of bytes of the JSON and the name, without any framing.
    pub fn size(&self) -> usize {
        match &self.0.content {
            Content::Connected { id } => id.len(),
            Content::Event { name, payload, extra } => {
                name.len() + payload.len() + extra.as_ref().map_or(0, |extra| extra.len())
            }
            Content::Reply { payload, .. } => payload.len(),
        }
    }

    /// The memory that the message needs: the JSON, and its encoding for one dialect.
    pub fn held_bytes(&self) -> usize {
        2 * self.size() + size_of::<Shared>()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.0.content == other.0.content
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.content.fmt(f)
    }
}

/// The initial capacity of a buffer. Most payloads fit into it. A buffer that grows is copied each time.
const USUAL_PAYLOAD: usize = 1000;

fn json(value: &impl Serialize) -> Box<str> {
    let mut buffer = Vec::with_capacity(USUAL_PAYLOAD);
    // Views, replies and refusals are maps with string keys, so the serialization can't fail. JSON is UTF-8.
    let written = serde_json::to_writer(&mut buffer, value);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8(buffer).unwrap_or_default().into_boxed_str()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_dialect_encodes_a_message_once_for_all_its_clones() {
        let message = Message::event("task:updated", &json!({"taskId": "x"}));
        let times = Cell::new(0);
        for clone in [message.clone(), message.clone()] {
            let encoded = clone.encoded(Dialect::SocketIo, |content| {
                times.set(times.get() + 1);
                Bytes::from(format!("{content:?}"))
            });
            assert!(!encoded.is_empty());
        }
        assert_eq!(times.get(), 1);
        assert_eq!(message.size(), "task:updated".len() + r#"{"taskId":"x"}"#.len());
    }
}
