//! Socket.IO protocol v5 in Engine.IO text messages: `<type>[<attachments>-][/namespace,][<ack id>][json]`.
//! <https://socket.io/docs/v4/socket-io-protocol/>

use serde_json::value::RawValue;

use super::packet::Packet;
use crate::wire::{Content, Dialect, Message, emitted};

/// A client's packet.
#[derive(Debug)]
pub enum Frame<'a> {
    Connect {
        namespace: &'a str,
        auth: Option<&'a RawValue>,
    },
    Disconnect,
    Event {
        name: String,
        args: Vec<&'a RawValue>,
        ack: Option<u64>,
        binary: bool,
    },
    /// A client's answer to an event of the server. The server requests none.
    Ack,
}

/// The reason why a packet is refused. An unmodified client does not send such packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("unknown packet type")]
    Type,
    #[error("not a Socket.IO packet")]
    Malformed,
    #[error("a message longer than MAX_MESSAGE_BYTES")]
    TooLong,
    #[error("a packet for a namespace that is not connected")]
    Namespace,
}

impl<'a> Frame<'a> {
    pub fn parse(text: &'a str) -> Result<Self, FrameError> {
        let kind = text.as_bytes().first().copied().ok_or(FrameError::Malformed)?;
        let rest = text.get(1..).ok_or(FrameError::Malformed)?;
        let (rest, binary) = match kind {
            b'5' | b'6' => (after_attachments(rest)?, true),
            _ => (rest, false),
        };
        let (namespace, rest) = match rest.starts_with('/') {
            true => rest.split_once(',').unwrap_or((rest, "")),
            false => ("/", rest),
        };
        match kind {
            b'0' => Ok(Frame::Connect { namespace, auth: auth(rest)? }),
            _ if namespace != "/" => Err(FrameError::Namespace),
            b'1' => Ok(Frame::Disconnect),
            b'2' | b'5' => event_frame(rest, binary),
            b'3' | b'6' => Ok(Frame::Ack),
            _ => Err(FrameError::Type),
        }
    }
}

fn after_attachments(rest: &str) -> Result<&str, FrameError> {
    let (count, rest) = rest.split_once('-').ok_or(FrameError::Malformed)?;
    // `parse` alone would also accept a plus sign.
    if count.bytes().all(|byte| byte.is_ascii_digit()) && count.parse::<u32>().is_ok() {
        Ok(rest)
    } else {
        Err(FrameError::Malformed)
    }
}

fn auth(rest: &str) -> Result<Option<&RawValue>, FrameError> {
    if rest.is_empty() {
        Ok(None)
    } else {
        serde_json::from_str(rest).map(Some).map_err(|_| FrameError::Malformed)
    }
}

fn event_frame(rest: &str, binary: bool) -> Result<Frame<'_>, FrameError> {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (id, json) = rest.split_at(digits);
    let ack = match id {
        "" => None,
        id => Some(id.parse().map_err(|_| FrameError::Malformed)?),
    };
    // The arguments stay raw here, because they may be nested deeper than a parser should follow.
    let items: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| FrameError::Malformed)?;
    let (name, args) = items.split_first().ok_or(FrameError::Malformed)?;
    let name = serde_json::from_str(name.get()).map_err(|_| FrameError::Malformed)?;
    Ok(Frame::Event { name, args: args.to_vec(), ack, binary })
}

/// Encodes a message of the server for all clients that get it.
pub fn encode_message(message: &Message) -> Packet {
    Packet::from(message.encoded(Dialect::SocketIo, |content| encode(content).into()))
}

fn encode(content: &Content) -> Packet {
    match content {
        Content::Connected { id, .. } => Packet::message(&[r#"0{"sid":""#, id, r#""}"#]),
        // The names of events need no escapes.
        Content::Event { name, payload, list: None, .. } => {
            Packet::message(&[r#"2[""#, name, r#"","#, payload, "]"])
        }
        Content::Event { name, payload, list: Some(list), .. } => {
            Packet::message(&[r#"2[""#, name, r#"","#, payload, ",", &list.fields, "]"])
        }
        Content::Refused { payload } => Packet::message(&[r#"2[""#, emitted::ERROR, r#"","#, payload, "]"]),
        Content::Reply { id, payload } => Packet::message(&["3", &id.to_string(), "[", payload, "]"]),
    }
}

/// The answer to a refused `Connect`. The JavaScript client does not retry after it.
pub fn connect_error(namespace: &str, message: &str) -> Packet {
    let prefix = if namespace == "/" { String::new() } else { format!("{namespace},") };
    let body = serde_json::json!({ "message": message });
    Packet::message(&["4", &prefix, &body.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        transport::outbox::Packet as _,
        wire::{Position, Refusal},
    };
    use proptest::prelude::*;

    #[test]
    fn events_with_and_without_ack_and_attachments() {
        match Frame::parse(r#"212["task:join",{"taskId":"x"}]"#).expect("valid") {
            Frame::Event { name, args, ack, binary } => {
                assert_eq!((name.as_str(), ack, binary), ("task:join", Some(12), false));
                assert_eq!(args[0].get(), r#"{"taskId":"x"}"#);
            }
            other => panic!("{other:?}"),
        }
        match Frame::parse(r#"51-["a",{"_placeholder":true,"num":0}]"#).expect("valid") {
            Frame::Event { name, ack, binary, .. } => {
                assert_eq!((name.as_str(), ack, binary), ("a", None, true))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn connects_with_namespace_and_auth() {
        match Frame::parse(r#"0/admin,{"token":"t"}"#).expect("valid") {
            Frame::Connect { namespace, auth } => {
                assert_eq!((namespace, auth.map(RawValue::get)), ("/admin", Some(r#"{"token":"t"}"#)));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(Frame::parse("0"), Ok(Frame::Connect { namespace: "/", auth: None })));
        assert!(matches!(Frame::parse("0/admin"), Ok(Frame::Connect { namespace: "/admin", auth: None })));
    }

    #[test]
    fn deep_nesting_is_a_frame_like_any_other() {
        let text = format!(r#"2["x",{}{}]"#, "[".repeat(20_000), "]".repeat(20_000));
        assert!(matches!(Frame::parse(&text), Ok(Frame::Event { .. })));
    }

    #[test]
    fn messages_become_packets() {
        let payload = serde_json::json!({"taskId": "x"});
        for (message, text) in [
            (Message::connected("s1", &"a user", Position::ZERO), r#"0{"sid":"s1"}"#),
            (Message::event("task:state", &payload, None), r#"2["task:state",{"taskId":"x"}]"#),
            (
                Message::list_event("dashboard:state", &[0; 0], "tasks", &payload, Position::ZERO),
                r#"2["dashboard:state",[],{"taskId":"x"}]"#,
            ),
            (Message::reply(12, &payload), r#"312[{"taskId":"x"}]"#),
            (
                Message::refused(&Refusal::invalid("no")),
                r#"2["error",{"code":"invalid_payload","message":"no","event":null}]"#,
            ),
        ] {
            assert_eq!(encode_message(&message).text(), text);
            assert_eq!(
                encode_message(&message).frame().as_ptr(),
                encode_message(&message).frame().as_ptr(),
                "encoded once"
            );
        }
        assert_eq!(connect_error("/x", "no").text(), r#"4/x,{"message":"no"}"#);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9]{0,2}[-/,\\[\\]{}\":a-z0-9]{0,30}|\\PC{0,40}") {
            let _ = Frame::parse(&text);
        }
    }
}
