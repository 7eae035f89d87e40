//! A report: an event as a producer sends it, before it is stored.

use std::{io, sync::Arc};

use serde_json::{Map, Value};

use crate::task::{Redacted, UserId, redact_map};

use super::{EventProblem, EventType, TypeError, same_json::same_map};

/// An event as a producer sends it. Values under keys that name a secret are already redacted.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub event_type: EventType,
    pub payload: Map<String, Value>,
    /// The producer's idempotency key.
    pub id: Option<Arc<str>>,
    pub project: Option<Arc<str>>,
    pub source: Option<Arc<str>>,
    /// The only user who receives the event.
    pub to: Option<UserId>,
}

/// What an idempotency key stands for. An event with the same key and another content is a conflict.
pub(super) struct Content<'a> {
    pub event_type: &'a EventType,
    pub payload: &'a Map<String, Value>,
    pub project: &'a Option<Arc<str>>,
    pub source: &'a Option<Arc<str>>,
    pub to: &'a Option<UserId>,
}

impl Content<'_> {
    pub fn is_same(&self, other: &Content<'_>) -> bool {
        self.event_type == other.event_type
            && self.project == other.project
            && self.source == other.source
            && self.to == other.to
            && same_map(self.payload, other.payload)
    }
}

impl Report {
    /// The size of a payload as compact JSON, as it was sent and also after secrets have been redacted.
    pub const MAX_PAYLOAD_BYTES: usize = 32 * 1024;
    /// The levels of objects and arrays in a payload. The payload itself is the first level.
    pub const MAX_DEPTH: usize = 32;
    pub const MAX_LABEL_BYTES: usize = 128;
    pub const MAX_USER_BYTES: usize = 1024;

    /// Reads an event from JSON. Top-level keys that are not part of a report are ignored, for example a producer's own
    /// `timestamp`.
    ///
    /// The form of the payload is checked, but not its schema: [`super::Registry::check`] does that.
    pub fn parse(value: Value) -> Result<Self, Vec<EventProblem>> {
        let Value::Object(mut map) = value else {
            return Err(vec![EventProblem::new("", "an event must be an object with type and payload")]);
        };
        let mut problems = Vec::new();
        let event_type = keep(&mut problems, "/type", read_type(map.get("type")));
        let payload = keep(&mut problems, "/payload", read_payload(map.remove("payload")));
        let id = keep(&mut problems, "/id", read_id(map.get("id")));
        let project = keep(&mut problems, "/projectId", read_label(map.get("projectId")));
        let source = keep(&mut problems, "/source", read_label(map.get("source")));
        let to = keep(&mut problems, "/to", read_user(map.get("to")));
        let (Some(event_type), Some(payload), Some(id), Some(project), Some(source), Some(to)) =
            (event_type, payload, id, project, source, to)
        else {
            return Err(problems);
        };
        // Daemons write the project into the payload of each event. An unusable value there is only a payload field.
        let project = project.or_else(|| read_label(payload.get("project_id")).ok().flatten());
        Ok(Self { event_type, payload, id, project, source, to })
    }

    /// Returns whether another report with the same idempotency key says the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.content().is_same(&other.content())
    }

    pub(super) fn content(&self) -> Content<'_> {
        let Self { event_type, payload, project, source, to, .. } = self;
        Content { event_type, payload, project, source, to }
    }

    /// The type that a value names, for an answer about an event that is refused. A text that has not the form of a type
    /// is not repeated.
    pub fn named_type(value: &Value) -> Option<&str> {
        let named = value.get("type")?.as_str()?;
        matches!(EventType::parse(named), Ok(_) | Err(TypeError::Reserved)).then_some(named)
    }
}

fn keep<T>(problems: &mut Vec<EventProblem>, path: &str, read: Result<T, String>) -> Option<T> {
    read.map_err(|message| problems.push(EventProblem::new(path, message))).ok()
}

fn read_type(value: Option<&Value>) -> Result<EventType, String> {
    match value {
        Some(Value::String(text)) => EventType::parse(text).map_err(|error| error.to_string()),
        Some(_) => Err("must be a text".to_owned()),
        None => Err("is required".to_owned()),
    }
}

fn read_payload(value: Option<Value>) -> Result<Map<String, Value>, String> {
    let mut payload = match value {
        Some(Value::Object(payload)) => payload,
        Some(_) => return Err("must be an object".to_owned()),
        None => return Err("is required; send an empty object if there is nothing to say".to_owned()),
    };
    if !payload.values().all(|value| has_depth(value, Report::MAX_DEPTH - 1)) {
        return Err(format!("must not be nested more deeply than {} levels", Report::MAX_DEPTH));
    }
    let too_large = || format!("must be at most {} bytes of JSON", Report::MAX_PAYLOAD_BYTES);
    if compact_bytes(&payload) > Report::MAX_PAYLOAD_BYTES {
        return Err(too_large());
    }
    // In an activity event, a number, a boolean or null is no secret: `metrics.tokens` says how many tokens a command
    // used, and dashboards show it. A timeline is stricter, because any program may write it.
    redact_map(&mut payload, Redacted::TextsAndContainers);
    // A short secret becomes a longer text. The same limit then holds when a stored event is read again.
    if compact_bytes(&payload) > Report::MAX_PAYLOAD_BYTES { Err(too_large()) } else { Ok(payload) }
}

fn read_id(value: Option<&Value>) -> Result<Option<Arc<str>>, String> {
    let id = read_label(value)?;
    if id.as_ref().is_some_and(|id| id.chars().any(char::is_control)) {
        return Err("must have no control characters".to_owned());
    }
    Ok(id)
}

fn read_label(value: Option<&Value>) -> Result<Option<Arc<str>>, String> {
    Ok(read_text(value, Report::MAX_LABEL_BYTES)?.map(Arc::from))
}

fn read_user(value: Option<&Value>) -> Result<Option<UserId>, String> {
    Ok(read_text(value, Report::MAX_USER_BYTES)?.and_then(UserId::parse))
}

/// Null counts as absent, because many programs write absent values as null.
fn read_text(value: Option<&Value>, max_bytes: usize) -> Result<Option<&str>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (1..=max_bytes).contains(&text.len()) => Ok(Some(text)),
        Some(_) => Err(format!("must be a text of 1 to {max_bytes} bytes, or absent")),
    }
}

/// Returns whether a value has at most this many levels of objects and arrays.
fn has_depth(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(map) => levels > 0 && map.values().all(|inner| has_depth(inner, levels - 1)),
        Value::Array(items) => levels > 0 && items.iter().all(|inner| has_depth(inner, levels - 1)),
        _ => true,
    }
}

/// The number of bytes of a value as compact JSON.
pub(super) fn compact_bytes(value: &impl serde::Serialize) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // A JSON value always serialises, and the counter does not fail. Another result counts as too large.
    serde_json::to_writer(&mut counter, value).map_or(usize::MAX, |()| counter.0)
}

#[cfg(test)]
mod tests;
