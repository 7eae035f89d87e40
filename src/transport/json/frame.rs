//! The messages of `/ws`: a client's `{type, payload?, id?}`, and the server's objects with a `type`.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    transport::{
        outbox,
        text_frame::{TEXT, text_frame, text_of_frame},
    },
    wire::{Content, Dialect, Message, RequestId},
};

/// The maximum length of an `id`, as it is written in JSON.
const MAX_ID_BYTES: usize = 128;

/// A client's message.
#[derive(Debug)]
pub struct ClientMessage<'a> {
    pub name: Cow<'a, str>,
    /// JSON that has not been parsed, because it may be nested deeper than a parser should follow.
    pub payload: Option<&'a RawValue>,
    /// The client waits for an answer with this id.
    pub id: Option<RequestId>,
}

/// A text that is no message. An unmodified client does not send such texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a message must be a JSON object with a type that is a string")]
    NoMessage,
    #[error("the id of a message must be a string or a number of at most 128 bytes")]
    Id,
    #[error("a binary message")]
    Binary,
    #[error("not a WebSocket message")]
    Frame,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(rename = "type", borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

impl<'a> ClientMessage<'a> {
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        // Without this check, serde would also accept an array as the object.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(Malformed::NoMessage);
        }
        let object: Object<'a> = serde_json::from_str(text).map_err(|_| Malformed::NoMessage)?;
        let id = object.id.map(|id| request_id(id.get())).transpose()?;
        Ok(Self { name: object.name, payload: object.payload, id })
    }
}

/// The answer repeats the id as it was written.
fn request_id(json: &str) -> Result<RequestId, Malformed> {
    let is_text_or_number =
        json.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
    if is_text_or_number && json.len() <= MAX_ID_BYTES {
        Ok(RequestId::Json(json.into()))
    } else {
        Err(Malformed::Id)
    }
}

/// A WebSocket frame with a message of the server, or control frames. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonFrame(Bytes);

const PING: &[u8] = &[0x89, 0];
/// The answer to a client's message `ping`, in its frame.
const PONG: &[u8] = b"\x81\x0f{\"type\":\"pong\"}";

impl JsonFrame {
    /// The answer to a client's message `ping`.
    pub fn pong() -> Self {
        Self(Bytes::from_static(PONG))
    }

    /// The JSON in a text frame.
    pub fn text(&self) -> &str {
        std::str::from_utf8(text_of_frame(&self.0)).unwrap_or_default()
    }
}

impl outbox::Packet for JsonFrame {
    fn ping() -> Self {
        Self(Bytes::from_static(PING))
    }

    fn control(frames: Vec<u8>) -> Self {
        Self(frames.into())
    }

    fn frame(&self) -> &[u8] {
        &self.0
    }

    /// Answers to pings overtake messages, in the form of a message, too. Their number is limited in the same way.
    fn is_message(&self) -> bool {
        self.0.first() == Some(&TEXT) && self.0 != PONG
    }
}

impl fmt::Debug for JsonFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JsonFrame").field(&self.text()).finish()
    }
}

/// Encodes a message of the server for all clients that get it. `now` is the time of sending, in milliseconds since 1970, for messages
/// without a time of their own.
pub fn encode_message(message: &Message, now: impl FnOnce() -> u64) -> JsonFrame {
    JsonFrame(message.encoded(Dialect::Json, |content| encode(content, now)))
}

fn encode(content: &Content, now: impl FnOnce() -> u64) -> Bytes {
    match content {
        Content::Connected { user, event_id, .. } => frame(&[
            r#"{"type":"init","payload":{"batch":null,"events":[],"live":{},"user":"#,
            user,
            r#","eventId":""#,
            &event_id.to_string(),
            r#""},"timestamp":"#,
            &now().to_string(),
            "}",
        ]),
        Content::Event { name, payload, list, event_id, occurred_at } => {
            let timestamp = occurred_at.map_or_else(|| now().to_string(), |millis| millis.to_string());
            let event_id = event_id.map(|at| at.to_string());
            // The names of events need no escapes.
            let mut parts = vec![r#"{"type":""#, name, r#"","payload":"#];
            match list {
                None => parts.push(payload),
                Some(list) => {
                    // The other fields are an object, and never an empty one.
                    let fields = list.fields.strip_prefix('{').unwrap_or("}");
                    parts.extend(["{\"", list.name, "\":", payload, ",", fields]);
                }
            }
            parts.extend([r#","timestamp":"#, &timestamp]);
            if let Some(event_id) = &event_id {
                parts.extend([r#","eventId":""#, event_id, "\""]);
            }
            parts.push("}");
            frame(&parts)
        }
        Content::Refused { payload } => frame(&[r#"{"type":"refused","payload":"#, payload, "}"]),
        Content::Reply { id, payload } => {
            frame(&[r#"{"type":"ack","id":"#, &id.to_string(), r#","payload":"#, payload, "}"])
        }
    }
}

fn frame(parts: &[&str]) -> Bytes {
    text_frame(parts.iter().copied())
}

#[cfg(test)]
mod tests;
