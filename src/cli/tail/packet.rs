//! Parses Engine.IO and Socket.IO packets from a WebSocket: one digit for each protocol, an optional ack id, then JSON.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::json::replace_lone_surrogates;

#[derive(Debug, PartialEq)]
pub(super) enum Packet {
    /// The duration is the longest time that the server may be silent.
    Open(Duration),
    Close,
    Ping,
    Connected,
    ConnectError(String),
    Disconnected,
    Event {
        name: String,
        payload: Value,
    },
    Ack {
        id: u64,
        answer: Value,
    },
    /// A packet that the client ignores or does not know.
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    ping_interval: u64,
    ping_timeout: u64,
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

impl Packet {
    pub(super) fn parse(text: &str) -> Self {
        let text = &*replace_lone_surrogates(text);
        let mut characters = text.chars();
        let kind = characters.next();
        let rest = characters.as_str();
        match kind {
            Some('0') => Self::open(rest),
            Some('1') => Self::Close,
            Some('2') => Self::Ping,
            Some('4') => Self::message(rest),
            _ => Self::Other,
        }
    }

    fn open(json: &str) -> Self {
        let Ok(open) = serde_json::from_str::<Open>(json) else { return Self::Other };
        let idle_timeout = Duration::from_millis(open.ping_interval.saturating_add(open.ping_timeout));
        Self::Open(idle_timeout.clamp(Duration::from_secs(1), Duration::from_secs(60 * 60)))
    }

    /// Parses a Socket.IO packet of the namespace `/`, whose name is not written in the packet.
    fn message(text: &str) -> Self {
        let mut characters = text.chars();
        let kind = characters.next();
        let rest = characters.as_str();
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (id, json) = rest.split_at(digits);
        match kind {
            Some('0') => Self::Connected,
            Some('1') if rest.is_empty() => Self::Disconnected,
            Some('2') => match arguments(json) {
                Some(mut list) if list.first().is_some_and(Value::is_string) => {
                    let payload = if list.len() > 1 { list.swap_remove(1) } else { Value::Null };
                    let name = list[0].as_str().unwrap_or_default().to_owned();
                    Self::Event { name, payload }
                }
                _ => Self::Other,
            },
            Some('3') => match (id.parse(), arguments(json)) {
                (Ok(id), Some(list)) => {
                    Self::Ack { id, answer: list.into_iter().next().unwrap_or(Value::Null) }
                }
                _ => Self::Other,
            },
            Some('4') => {
                let error = serde_json::from_str::<Message>(rest);
                Self::ConnectError(error.map(|error| error.message).unwrap_or_default())
            }
            _ => Self::Other,
        }
    }
}

fn arguments(json: &str) -> Option<Vec<Value>> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn each_kind_of_packet_is_recognised() {
        let event = |name: &str, payload| Packet::Event { name: name.into(), payload };
        for (text, packet) in [
            (
                r#"0{"sid":"x","pingInterval":25000,"pingTimeout":20000}"#,
                Packet::Open(Duration::from_secs(45)),
            ),
            ("1", Packet::Close),
            ("2", Packet::Ping),
            ("6", Packet::Other),
            (r#"40{"sid":"y"}"#, Packet::Connected),
            (r#"44{"message":"unauthorized"}"#, Packet::ConnectError("unauthorized".into())),
            ("44", Packet::ConnectError(String::new())),
            ("41", Packet::Disconnected),
            ("41/admin,", Packet::Other),
            (r#"42["task:coding",{"taskId":"t"}]"#, event("task:coding", json!({"taskId": "t"}))),
            (r#"4217["a"]"#, event("a", Value::Null)),
            (r#"42["a",{"t":"cut \ud83d"}]"#, event("a", json!({"t": "cut \u{fffd}"}))),
            (r#"42/admin,["a"]"#, Packet::Other),
            (r#"431[{"ok":true},2]"#, Packet::Ack { id: 1, answer: json!({"ok": true}) }),
            ("437[]", Packet::Ack { id: 7, answer: Value::Null }),
            ("43[]", Packet::Other),
            ("43999999999999999999999[]", Packet::Other),
            ("42[1]", Packet::Other),
            ("42{}", Packet::Other),
            ("42", Packet::Other),
            ("0null", Packet::Other),
            ("", Packet::Other),
            ("é", Packet::Other),
        ] {
            assert_eq!(Packet::parse(text), packet, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-6]{0,3}[0-9]{0,30}.{0,60}") {
            Packet::parse(&text);
        }
    }
}
