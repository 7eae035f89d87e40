use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    transport::outbox::Packet as _,
    wire::{Position, Refusal},
};

fn position() -> Position {
    Position::change(7, 1).with_index(2)
}

const EVENT_ID: &str = "0000000000000007-000001-000002";

fn encoded(message: &Message) -> Value {
    serde_json::from_str(encode_message(message, || 1_000).text()).expect("JSON")
}

#[test]
fn a_message_has_a_type_and_may_have_a_payload_and_an_id() {
    for (text, name, payload, id) in [
        (
            r#"{"type":"task:join","payload":{"taskId":"x"},"id":7}"#,
            "task:join",
            Some(r#"{"taskId":"x"}"#),
            Some("7"),
        ),
        (r#" {"id":"a\u0062","type":"p\u0069ng"} "#, "ping", None, Some(r#""a\u0062""#)),
        (r#"{"type":"x","payload":null,"id":null}"#, "x", None, None),
        (r#"{"type":"x","id":-1.50e3,"more":[{}]}"#, "x", None, Some("-1.50e3")),
        (r#"{"type":"","payload":[1]}"#, "", Some("[1]"), None),
    ] {
        let message = ClientMessage::parse(text).expect(text);
        assert_eq!(message.name, name);
        assert_eq!(message.payload.map(RawValue::get), payload, "{text}");
        assert_eq!(message.id.map(|id| id.to_string()).as_deref(), id, "{text}");
    }
}

#[test]
fn other_texts_are_malformed() {
    for text in [
        "",
        " ",
        "null",
        "1",
        "\"ping\"",
        "[]",
        r#"["ping"]"#,
        r#"["ping",{},1]"#,
        "{}",
        r#"{"type":1}"#,
        r#"{"type":null}"#,
        r#"{"type":["ping"]}"#,
        r#"{"type":"a","type":"b"}"#,
        r#"{"type":"a"} {}"#,
        r#"{"type":"a""#,
        r#"{"type":"a",}"#,
        r#"{'type':'a'}"#,
        "2[\"task:join\",{}]",
    ] {
        assert_eq!(ClientMessage::parse(text).err(), Some(Malformed::NoMessage), "{text}");
    }
    let long = format!("\"{}\"", "x".repeat(MAX_ID_BYTES - 1));
    for id in ["{}", "[1]", "true", "false", &long] {
        let text = format!(r#"{{"type":"a","id":{id}}}"#);
        assert_eq!(ClientMessage::parse(&text).err(), Some(Malformed::Id), "{id}");
    }
    let longest = format!(r#"{{"type":"a","id":"{}"}}"#, "x".repeat(MAX_ID_BYTES - 2));
    assert!(ClientMessage::parse(&longest).is_ok());
}

#[test]
fn deep_nesting_is_a_message_like_any_other() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for text in [format!(r#"{{"type":"x","payload":{deep}}}"#), format!(r#"{{"other":{deep},"type":"x"}}"#)] {
        assert!(ClientMessage::parse(&text).is_ok());
    }
    assert_eq!(ClientMessage::parse(&format!(r#"{{"type":"x","id":{deep}}}"#)).err(), Some(Malformed::Id));
}

#[test]
fn the_first_message_is_init() {
    let user = json!({"userId": "ann", "name": null, "orgId": "acme"});
    let init = encoded(&Message::connected("s1", &user, position()));
    let payload = json!({"batch": null, "events": [], "live": {}, "user": user, "eventId": EVENT_ID});
    assert_eq!(init, json!({"type": "init", "payload": payload, "timestamp": 1_000}));
}

#[test]
fn an_event_has_the_time_of_its_change_or_else_the_time_of_sending() {
    let payload = json!({"taskId": "x"});
    assert_eq!(
        encoded(&Message::event_at("task:coding", &payload, position(), 1_767_221_517_699)),
        json!({"type": "task:coding", "payload": payload, "timestamp": 1_767_221_517_699_u64, "eventId": EVENT_ID})
    );
    assert_eq!(
        encoded(&Message::event("task:state", &payload, None)),
        json!({"type": "task:state", "payload": payload, "timestamp": 1_000})
    );
}

#[test]
fn a_list_is_a_field_of_the_payload() {
    let fields = json!({"counts": {"activeCount": 1}, "eventId": EVENT_ID});
    assert_eq!(
        encoded(&Message::list_event("dashboard:state", &[1, 2], "tasks", &fields, position()))["payload"],
        json!({"tasks": [1, 2], "counts": {"activeCount": 1}, "eventId": EVENT_ID})
    );
}

#[test]
fn answers_repeat_the_id_as_it_was_written() {
    for id in ["12", "-1.50e3", r#""a\u0062""#] {
        let text = format!(r#"{{"type":"x","id":{id}}}"#);
        let id = ClientMessage::parse(&text).expect("a message").id.expect("an id");
        let answer = encode_message(&Message::reply(id.clone(), &json!({"ok": true})), || 0);
        assert_eq!(answer.text(), format!(r#"{{"type":"ack","id":{id},"payload":{{"ok":true}}}}"#));
    }
    assert_eq!(
        encoded(&Message::refused(&Refusal::invalid("no"))),
        json!({"type": "refused", "payload": {"code": "invalid_payload", "message": "no", "event": null}})
    );
}

#[test]
fn a_message_is_encoded_once_with_one_time_for_all_clients() {
    let message = Message::event("task:state", &json!({}), None);
    let (first, second) = (encode_message(&message, || 1), encode_message(&message, || 2));
    assert_eq!(first.frame().as_ptr(), second.frame().as_ptr());
    assert!(first.text().contains(r#""timestamp":1"#));
}

#[test]
fn only_messages_keep_their_order() {
    assert!(encode_message(&Message::reply(1, &json!({})), || 0).is_message());
    assert_eq!(JsonFrame::pong().text(), r#"{"type":"pong"}"#);
    for frame in [JsonFrame::pong(), JsonFrame::ping(), JsonFrame::control(vec![0x8A, 0])] {
        assert!(!frame.is_message(), "{frame:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[{\\[\"a-z:, 0-9\\]}]{0,40}|\\PC{0,40}") {
        let _ = ClientMessage::parse(&text);
    }
}
