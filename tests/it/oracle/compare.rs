//! Compares the parser of the gateway with the parser of socketioxide, which is an independent program for the same
//! protocol. A property test and a fuzz target call [`compare`].
//!
//! The two parsers differ on purpose:
//!
//! - **Namespaces.** The gateway serves only `/`. It refuses every packet for another namespace except `CONNECT`, which it
//!   has to answer. socketioxide looks the namespace up after parsing.
//! - **Attachments.** The gateway reads their number (32 bits) and ignores it, because it refuses binary events.
//!   socketioxide waits for that many binary messages.
//! - **Acknowledgements.** The gateway asks for none and ignores them without reading their ids. socketioxide needs an id.
//! - **Ids.** The gateway refuses an event whose id is longer than 64 bits. socketioxide ignores such an id, an id beyond
//!   63 bits, and an id that neither `[` nor `{` follows. It reads an id also where the protocol has none, such as in
//!   `CONNECT`.
//! - **JSON.** The gateway checks all of it while parsing, at any depth. The arguments stay raw, because a parser that
//!   follows them must limit the depth. socketioxide checks the name when it looks for a handler and the arguments when the
//!   handler reads them, and ignores what follows the array. It refuses names of events and of members with an escape
//!   sequence.

use serde_json::{Value, value::RawValue};
use socketioxide_core::{
    Str,
    packet::{Packet, PacketData},
    parser::{Parse, ParseConfig, ParseError, ParserState},
};
use socketioxide_parser_common::CommonParser;
use taskcast::transport::socketio::{Frame, FrameError};

/// Panics if the parsers differ in another way than described above.
pub fn compare(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (ours, theirs) = (Frame::parse(text), theirs(text));
    let agree = match (&ours, &theirs) {
        (Ok(frame), Some(packet)) => is_same(text, frame, packet),
        (Ok(Frame::Ack), None) => true,
        (Ok(_), None) => false,
        (Err(_), None) => true,
        (Err(FrameError::Namespace), Some(packet)) => {
            packet.ns != "/" && !matches!(packet.inner, PacketData::Connect(_))
        }
        (Err(_), Some(packet)) => is_rightly_refused(text, packet),
    };
    assert!(agree, "{text:?}: {ours:?}, but socketioxide reads {theirs:?}");
}

/// What socketioxide reads. A packet with attachments is returned before its attachments have come.
fn theirs(text: &str) -> Option<Packet> {
    let config = ParseConfig { max_incoming_binaries: u32::MAX as usize, ..ParseConfig::default() };
    let state = ParserState::default();
    match CommonParser.decode_str(&config, &state, Str::from(text.to_owned())) {
        Ok(packet) => Some(packet),
        Err(ParseError::NeedsMoreBinaryData) => {
            let waiting = state.partial_bin_packet.lock().expect("no panic").take();
            Some(waiting.expect("a packet that waits").packet)
        }
        Err(_) => None,
    }
}

/// The JSON of a packet.
fn json(packet: &Packet) -> &str {
    match &packet.inner {
        PacketData::Connect(Some(value))
        | PacketData::Event(value, _)
        | PacketData::EventAck(value, _)
        | PacketData::BinaryEvent(value, _)
        | PacketData::BinaryAck(value, _) => value.as_str().map_or("", |text| text.as_str()),
        _ => "",
    }
}

/// Returns whether an id stands in front of the JSON.
fn has_id(text: &str, json: &str) -> bool {
    let head = text.strip_suffix(json).unwrap_or_default();
    head.len() > 1 && head.ends_with(|c: char| c.is_ascii_digit())
}

fn is_same(text: &str, frame: &Frame<'_>, packet: &Packet) -> bool {
    match (frame, &packet.inner) {
        (Frame::Connect { namespace, auth }, PacketData::Connect(value)) => {
            let json = json(packet);
            let is_same_auth = match (auth, value) {
                (None, None) => true,
                (Some(auth), _) if has_id(text, json) => auth.get().ends_with(json.trim_end()),
                (Some(auth), Some(_)) => auth.get() == json.trim(),
                _ => false,
            };
            *namespace == packet.ns.as_str() && is_same_auth
        }
        (Frame::Disconnect, PacketData::Disconnect) => packet.ns == "/",
        (Frame::Ack, PacketData::EventAck(..) | PacketData::BinaryAck(..)) => packet.ns == "/",
        (Frame::Event { name, args, ack, binary }, PacketData::Event(value, id)) => {
            packet.ns == "/"
                && !binary
                && is_same_ack(text, *ack, *id, json(packet))
                && is_same_name(name, value)
                && is_same_argument(args, value)
        }
        (Frame::Event { name, ack, binary, .. }, PacketData::BinaryEvent(value, id)) => {
            packet.ns == "/"
                && *binary
                && is_same_ack(text, *ack, *id, json(packet))
                && is_same_name(name, value)
        }
        _ => false,
    }
}

fn is_same_ack(text: &str, ours: Option<u64>, theirs: Option<i64>, json: &str) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => u64::try_from(theirs) == Ok(ours),
        (None, None) => !has_id(text, json),
        (Some(ours), None) => i64::try_from(ours).is_err() || !json.starts_with('['),
        (None, Some(_)) => false,
    }
}

fn is_same_name(ours: &str, value: &socketioxide_core::Value) -> bool {
    match CommonParser.read_event(value) {
        Ok(theirs) => theirs == ours,
        Err(_) => has_escape(value),
    }
}

fn has_escape(value: &socketioxide_core::Value) -> bool {
    value.as_str().is_some_and(|text| text.contains('\\'))
}

/// Compares the first argument, which is all that socketioxide gives a handler with one parameter.
fn is_same_argument(args: &[&RawValue], value: &socketioxide_core::Value) -> bool {
    let ours = args.first().and_then(|first| serde_json::from_str::<Value>(first.get()).ok());
    // Attachments are put into the place of these objects.
    let Some(ours) = ours.filter(|ours| !ours.to_string().contains("_placeholder")) else { return true };
    match CommonParser.decode_value::<Value>(&mut value.clone(), true) {
        Ok(theirs) => theirs == ours,
        Err(_) => has_escape(value),
    }
}

/// Returns whether the gateway has a reason to refuse a packet that socketioxide has not refused yet.
fn is_rightly_refused(text: &str, packet: &Packet) -> bool {
    let json = json(packet);
    match &packet.inner {
        PacketData::Connect(_) => has_id(text, json) || serde_json::from_str::<&RawValue>(json).is_err(),
        PacketData::Event(_, id) | PacketData::BinaryEvent(_, id) => {
            let has_lost_its_id = id.is_none() && has_id(text, json);
            has_lost_its_id || !is_event(json)
        }
        _ => false,
    }
}

/// Returns whether the text is an array that begins with a string.
fn is_event(json: &str) -> bool {
    let items: Result<Vec<&RawValue>, _> = serde_json::from_str(json);
    items.is_ok_and(|items| {
        items.first().is_some_and(|first| serde_json::from_str::<String>(first.get()).is_ok())
    })
}
