//! Fuzz targets: functions that pass untrusted bytes to the code that receives them first. Fuzzers call them (`fuzz/`),
//! and so do the tests below, with the fuzzers' seeds and with mutations of those by proptest. A target panics when it
//! finds an error.
//!
//! This module is compiled only under `cfg(fuzzing)` and for tests, never into a gateway.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, value::RawValue};

use crate::{
    auth::UnixTime,
    config::{Config, Sources},
    feed::{Change, Position, TimelineChange, translate},
    github::{DeliveryId, EventName, KnownFacts, Received},
    json::replace_lone_surrogates,
    store::decode_change,
    task::{Answers, DefaultOrg, Field, FullTask, FullView, NewTask, Summary, Task, TaskPatch, Timestamp},
    transport::{
        json::{self, ClientMessage},
        socketio::{Frame, Packet, encode_message},
    },
    wire::{ClientEvent, ClientEventName, Message},
};

mod activity;

pub use activity::activity;

pub type Target = fn(&[u8]);

/// All targets, by the names of their folders in `fuzz/seeds`.
pub const TARGETS: [(&str, Target); 9] = [
    ("activity", activity),
    ("change", change),
    ("client", client),
    ("config", config),
    ("document", document),
    ("http", http),
    ("plain", plain),
    ("token", token),
    ("webhook", webhook),
];

const SECRET: &str = "a-secret-of-more-than-32-bytes-for-fuzzing";
/// No error may repeat this text. Seeds contain it in values of settings.
const CANARY: &str = "canary-7f3a";

/// An event of the change stream, in BSON as MongoDB sends it.
pub fn change(data: &[u8]) {
    if let Some(change) = decode_change(data, Position::change(1, 0), &DefaultOrg::default()) {
        translated(&change);
    }
}

/// A packet of a Socket.IO client.
pub fn client(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = well_formed(text);
    match Frame::parse(&text) {
        Ok(Frame::Event { name, args, ack: id, .. }) => {
            let Ok(name) = name.parse::<ClientEventName>() else { return };
            match ClientEvent::parse(name, &args) {
                Ok(ClientEvent::TaskJoin { task } | ClientEvent::TaskLeave { task }) => {
                    assert!(!task.is_empty() && !task.chars().any(char::is_control));
                }
                Ok(_) => {}
                Err(refusal) => {
                    let message = Message::reply(id.unwrap_or_default(), &refusal);
                    let packet = encode_message(&message);
                    is_packet(&packet, '3');
                    assert!(message.size() < 1_000, "a refusal repeats what it refuses: {packet:?}");
                }
            }
        }
        Ok(Frame::Connect { namespace, .. }) => assert!(namespace.starts_with('/')),
        Ok(Frame::Disconnect | Frame::Ack) | Err(_) => {}
    }
}

/// Lines `NAME=value` of an environment.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let settings: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        // The operator chooses the names of files. The fuzzer must not, because reading /dev/zero does not end.
        .filter(|(_, value)| !value.contains('@'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if let Err(error) = Config::read(&Sources::new(settings)) {
        assert!(!error.to_string().contains(CANARY), "an error repeats a value: {error}");
    }
}

/// A task's document, as JSON.
pub fn document(data: &[u8]) {
    let Ok(Value::Object(document)) = serde_json::from_slice(data) else { return };
    let Ok(full) = FullTask::from_document(document.clone(), &DefaultOrg::default()) else { return };
    checked_view(&full);
    let summary = json_of(&Summary(&full.task));
    assert!(["events", "questions", "clarificationAnswers"].iter().all(|name| summary.get(name).is_none()));
    translated(&Change {
        position: Position::change(1, 0),
        occurred_at: Timestamp::now(),
        task: full.task.id.clone(),
        before: None,
        after: Some(full.task),
        timeline: TimelineChange::Added(full.timeline),
    });
}

/// A body of the task API.
pub fn http(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(body) = serde_json::from_str::<Value>(&well_formed(text)) else { return };
    let now = Timestamp::now();
    let _ = NewTask::parse(body.clone());
    if let Ok(answers) = Answers::parse(body.clone()) {
        answers.writes(now);
    }
    if let Ok(patch) = TaskPatch::parse(body) {
        let writes = patch.writes(|_| true, now);
        let writable = |name: &str| {
            name == "updatedAt" || Field::ALL.iter().any(|field| field.document_names().contains(&name))
        };
        let hidden = ["description", "creatorName"];
        assert!(writes.set.iter().all(|(name, _)| writable(name) || hidden.contains(name)));
    }
}

/// A message of a client of `/ws`.
pub fn plain(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = well_formed(text);
    let Ok(ClientMessage { name, payload, id }) = ClientMessage::parse(&text) else { return };
    if let Some(id) = id {
        let written = id.to_string();
        assert!(written.len() <= 128 && text.contains(&written), "an id that was not sent: {written}");
        let answer = json::encode_message(&Message::reply(id, &written), || 0);
        let fields: BTreeMap<&str, &RawValue> =
            serde_json::from_str(answer.text()).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        let texts: Vec<_> = fields.into_iter().map(|(name, json)| (name, json.get())).collect();
        assert_eq!(texts.first(), Some(&("id", &*written)));
        assert_eq!((texts.len(), texts.last()), (3, Some(&("type", r#""ack""#))));
    }
    let arguments: Vec<&RawValue> = payload.into_iter().collect();
    if let Some(Err(refusal)) = name.parse().ok().map(|name| ClientEvent::parse(name, &arguments)) {
        let refused = json::encode_message(&Message::refused(&refusal), || 0);
        assert!(refused.text().len() < 1_000, "a refusal repeats what it refuses: {refused:?}");
    }
}

/// A token. Only the verifier has the secret, so every token must be refused.
pub fn token(data: &[u8]) {
    static TOKENS: std::sync::LazyLock<crate::config::Tokens> = std::sync::LazyLock::new(|| {
        let sources = Sources::new([("JWT_SECRET".to_owned(), SECRET.to_owned())]);
        let config = Config::read(&sources).unwrap_or_else(|error| panic!("{error}"));
        config.tokens().unwrap_or_else(|error| panic!("{error}"))
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(identity) = TOKENS.verifier.verify(text, UnixTime::from_millis(0)) {
        panic!("a token was accepted for {}", identity.viewer.user);
    }
}

/// The event's name, a line break, and the body of a delivery.
pub fn webhook(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let (event, body) = data.split_at(end);
    let event = std::str::from_utf8(event).unwrap_or(EventName::PullRequest.into());
    let Some(id) = DeliveryId::parse("d") else { return };
    match Received::parse(id, event, body) {
        Ok((Received::Delivery(delivery), _)) => {
            let fields = [("_id", "t"), ("repo", "acme/web"), ("status", "coding")];
            let document: Map<String, Value> =
                fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
            let Ok(task) = Task::from_document(document.clone(), &DefaultOrg::default()) else { return };
            let mut known = KnownFacts::default();
            known.add(delivery.missing_keys(&known), []);
            let new_facts = delivery.new_facts(&known, Timestamp::now());
            assert!(new_facts.iter().all(|record| record.id.len() < 4_000), "a fact without bounds");
            known.add_facts(new_facts.into_iter().map(|record| record.fact));
            let delivery = delivery.with_known_facts(&known);
            delivery.search.matches(&task);
            let writes = delivery.writes(&task, &document, Timestamp::now());
            let entry = writes.push_event.map(|entry| Value::from(entry.payload));
            assert!(entry.is_some_and(|entry| entry.to_string().len() < 100_000), "an entry without bounds");
        }
        Ok(_) => {}
        Err(error) => assert!(error.to_string().len() < 200, "an error quotes the body: {error}"),
    }
}

/// Replaces lone surrogates. A second pass must change nothing, and valid JSON must stay as it is.
fn well_formed(text: &str) -> Cow<'_, str> {
    let replaced = replace_lone_surrogates(text);
    assert_eq!(replaced.len(), text.len());
    assert!(matches!(replace_lone_surrogates(&replaced), Cow::Borrowed(_)), "a half is left: {replaced}");
    if serde_json::from_str::<Value>(text).is_ok() {
        assert!(matches!(replaced, Cow::Borrowed(_)), "valid JSON was changed: {text}");
    }
    replaced
}

fn translated(change: &Change) {
    for step in translate(change, 3) {
        for event in step.events() {
            is_packet(&encode_message(&event.message), '2');
        }
    }
}

fn is_packet(packet: &Packet, kind: char) {
    let text = packet.text().trim_start_matches(kind).trim_start_matches(|c: char| c.is_ascii_digit());
    let parts: Result<Vec<&RawValue>, _> = serde_json::from_str(text);
    assert!(
        packet.text().starts_with(kind) && parts.is_ok_and(|parts| !parts.is_empty()),
        "no packet: {packet:?}"
    );
}

fn json_of(view: &impl serde::Serialize) -> Value {
    serde_json::to_value(view).unwrap_or_else(|error| panic!("a view that is not JSON: {error}"))
}

/// Checks the view that clients receive: its shape, and that it contains no other field and no secret.
fn checked_view(full: &FullTask) {
    let view = json_of(&FullView(full));
    let allowed = |name: &str| {
        ["_id", "taskId", "events"].contains(&name)
            || Field::ALL.iter().any(|field| field.sent_names().contains(&name))
    };
    let Value::Object(view) = view else { panic!("a view is an object") };
    assert!(view.keys().all(|name| allowed(name)), "{:?}", view.keys().collect::<Vec<_>>());
    let Some(Value::Array(events)) = view.get("events") else { panic!("events is an array") };
    for event in events {
        assert!(event["payload"].is_object(), "a payload is an object");
        redacted(&event["payload"]);
    }
}

fn redacted(value: &Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = key.to_ascii_lowercase();
                let names =
                    ["secret", "password", "apikey", "api_key", "authorization", "credential", "cookie"];
                if names.iter().any(|name| key.contains(name)) {
                    assert_eq!(inner, "[redacted]", "{key}");
                } else {
                    redacted(inner);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(redacted),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let seeds: Vec<_> = files.map(|file| fs::read(file.expect("a file").path()).expect("read")).collect();
        assert!(!seeds.is_empty(), "{} is empty", folder.display());
        seeds
    }

    #[test]
    fn seeds_pass() {
        for (name, target) in TARGETS {
            seeds(name).iter().for_each(|seed| target(seed));
        }
    }

    /// A seed with some bytes changed, removed or inserted, or with the end of another seed.
    fn mutated() -> impl Strategy<Value = (usize, Vec<u8>)> {
        (0..TARGETS.len()).prop_flat_map(|target| {
            let seeds = seeds(TARGETS[target].0);
            let seed = proptest::sample::select(seeds.clone());
            let other = proptest::sample::select(seeds);
            let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..8);
            (seed, other, edits, any::<prop::sample::Index>()).prop_map(
                move |(mut bytes, other, edits, cut)| {
                    for (place, byte, kind) in
                        edits.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>()
                    {
                        let place = place.index(bytes.len().max(1));
                        match kind {
                            0 => bytes.insert(place, byte),
                            1 if bytes.len() > 1 => drop(bytes.remove(place)),
                            2 => {
                                let cut = cut.index(other.len() + 1);
                                bytes.truncate(place);
                                bytes.extend_from_slice(&other[cut..]);
                            }
                            _ => {
                                if let Some(old) = bytes.get_mut(place) {
                                    *old ^= byte;
                                }
                            }
                        }
                    }
                    (target, bytes)
                },
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn mutated_seeds_pass((target, bytes) in mutated()) {
            TARGETS[target].1(&bytes);
        }
    }
}
