//! What the server sends to a client, without the framing of a transport.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::Serialize;

use super::{Position, Refusal, RequestId};

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
    /// The client has a session. `event_id` is the position of this node at that moment.
    Connected { id: Box<str>, user: Box<str>, event_id: Position },
    Event {
        name: &'static str,
        payload: Box<str>,
        /// What belongs to a payload that is a list.
        list: Option<ListFields>,
        event_id: Option<Position>,
        /// The time of the change, in milliseconds since 1970. `None` means that the time of sending counts.
        occurred_at: Option<i64>,
    },
    /// A request without an id was refused, or the session has ended.
    Refused { payload: Box<str> },
    /// The answer to the client's request with this id.
    Reply { id: RequestId, payload: Box<str> },
}

/// What a payload that is a list cannot carry. Some dialects send a second argument, which handlers with one parameter ignore. Others
/// send one object, in which the list is a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFields {
    /// The name of the field with the list.
    pub name: &'static str,
    /// The other fields, as an object that is not empty.
    pub fields: Box<str>,
}

/// The ways in which messages are encoded. The transports know what each of them looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    SocketIo,
    /// JSON objects with a `type`.
    Json,
}

impl Dialect {
    const COUNT: usize = 2;
}

impl Message {
    /// `user` describes the session's user to its client.
    pub fn connected(id: &str, user: &impl Serialize, event_id: Position) -> Self {
        Self::new(Content::Connected { id: id.into(), user: json(user), event_id })
    }

    /// An event that has no time of its own.
    pub fn event(
        name: &'static str,
        payload: &impl Serialize,
        event_id: impl Into<Option<Position>>,
    ) -> Self {
        Self::new(Content::Event {
            name,
            payload: json(payload),
            list: None,
            event_id: event_id.into(),
            occurred_at: None,
        })
    }

    /// An event of a change that was committed at this time, in milliseconds since 1970.
    pub fn event_at(
        name: &'static str,
        payload: &impl Serialize,
        event_id: Position,
        occurred_at: i64,
    ) -> Self {
        Self::new(Content::Event {
            name,
            payload: json(payload),
            list: None,
            event_id: Some(event_id),
            occurred_at: Some(occurred_at),
        })
    }

    /// An event whose payload is a list. `list_name` and `fields` are described at [`ListFields`].
    pub fn list_event(
        name: &'static str,
        list: &impl Serialize,
        list_name: &'static str,
        fields: &impl Serialize,
        event_id: Position,
    ) -> Self {
        Self::new(Content::Event {
            name,
            payload: json(list),
            list: Some(ListFields { name: list_name, fields: json(fields) }),
            event_id: Some(event_id),
            occurred_at: None,
        })
    }

    pub fn refused(refusal: &Refusal) -> Self {
        Self::new(Content::Refused { payload: json(refusal) })
    }

    pub fn reply(id: impl Into<RequestId>, payload: &impl Serialize) -> Self {
        Self::new(Content::Reply { id: id.into(), payload: json(payload) })
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
            Content::Connected { id, user, .. } => id.len() + user.len(),
            Content::Event { name, payload, list, .. } => {
                name.len() + payload.len() + list.as_ref().map_or(0, |list| list.fields.len())
            }
            Content::Refused { payload } | Content::Reply { payload, .. } => payload.len(),
        }
    }

    /// The memory that the message needs when it is encoded for every dialect: the JSON, and its encodings.
    pub fn held_bytes(&self) -> usize {
        (1 + Dialect::COUNT) * self.size() + size_of::<Shared>()
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
        let message = Message::event("task:updated", &json!({"taskId": "x"}), Position::ZERO);
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
