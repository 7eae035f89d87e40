//! The timeline of a task (its `events`): an entry as a client receives it, and windows that select entries.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Timestamp;

const REDACTED: &str = "[redacted]";
/// A key names a secret if it contains one of these words, in upper or lower case, with or without separators.
const SECRETS: [&str; 7] = ["token", "secret", "password", "apikey", "authorization", "credential", "cookie"];

/// A timeline entry as a client receives it: secrets redacted, `payload` always an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    event_type: Value,
    payload: Map<String, Value>,
    created_at: Value,
}

impl TimelineEntry {
    /// Converts an element of a document's `events`. An element may have any type; a client can always iterate over the
    /// `payload` of the result.
    pub fn from_document(value: Value) -> Self {
        let Value::Object(mut map) = value else {
            return Self {
                event_type: Value::Null,
                payload: wrap(redact_in(value)),
                created_at: Value::Null,
            };
        };
        Self {
            event_type: map.remove("eventType").filter(Value::is_string).unwrap_or(Value::Null),
            payload: wrap(redact_in(map.remove("payload").unwrap_or(Value::Null))),
            created_at: Timestamp::normalise(map.remove("createdAt").unwrap_or(Value::Null)),
        }
    }
}

/// A selection of successive entries of a timeline: the last `limit` of the first `before` entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub before: usize,
    pub limit: usize,
}

impl Window {
    pub const ALL: Self = Self::newest(usize::MAX);

    pub const fn newest(limit: usize) -> Self {
        Self { before: usize::MAX, limit }
    }

    /// The indexes of the selected entries in a timeline of this length.
    pub fn range_in(self, length: usize) -> Range<usize> {
        let end = self.before.min(length);
        end - self.limit.min(end)..end
    }
}

/// The React client of an existing dashboard calls `Object.entries(payload)`, so a value that is not an object goes under the key `value`.
fn wrap(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

fn redact_in(mut value: Value) -> Value {
    redact(&mut value, Redacted::AllButTokenCounts);
    value
}

/// The values that are replaced under a key that names a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redacted {
    /// All values, except numbers under keys like `tokensUsed` or `tokenCount`, which count tokens.
    AllButTokenCounts,
    /// Texts, arrays and objects. Numbers, booleans and null stay.
    TextsAndContainers,
}

/// Replaces the values under keys that name a secret, at any depth. A second call changes nothing.
pub fn redact(value: &mut Value, redacted: Redacted) {
    match value {
        Value::Object(map) => redact_map(map, redacted),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, redacted)),
        _ => {}
    }
}

/// The same as [`redact`] for the entries of an object.
pub fn redact_map(map: &mut Map<String, Value>, redacted: Redacted) {
    for (key, inner) in map.iter_mut() {
        if redacted.names_a_secret(key, inner) {
            *inner = Value::from(REDACTED);
        } else {
            redact(inner, redacted);
        }
    }
}

impl Redacted {
    fn names_a_secret(self, key: &str, value: &Value) -> bool {
        let plain: String =
            key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let is_kept = || match self {
            Self::AllButTokenCounts => {
                value.is_number() && plain.contains("token") && !plain.ends_with("token")
            }
            Self::TextsAndContainers => value.is_number() || value.is_boolean() || value.is_null(),
        };
        SECRETS.iter().any(|secret| plain.contains(secret)) && !is_kept()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_redacted_at_any_depth_and_in_any_case() {
        let entry = TimelineEntry::from_document(json!({
            "eventType": "x",
            "payload": {"a": [{"API_KEY": 1, "apiKey": {"deep": 2}}], "Set-Cookie": "c", "note": "token",
                        "tokensUsed": 7, "promptTokens": 8, "accessToken": 9, "tokens": ["t"]},
            "createdAt": 0,
            "internal": "never sent",
        }));
        assert_eq!(
            serde_json::to_value(entry).expect("serialises"),
            json!({
                "eventType": "x",
                "payload": {"a": [{"API_KEY": "[redacted]", "apiKey": "[redacted]"}],
                            "Set-Cookie": "[redacted]", "note": "token",
                            "tokensUsed": 7, "promptTokens": 8, "accessToken": "[redacted]", "tokens": "[redacted]"},
                "createdAt": "1970-01-01T00:00:00.000Z",
            })
        );
    }

    #[test]
    fn a_window_is_within_the_timeline() {
        for (window, length, places) in [
            (Window::ALL, 0, 0..0),
            (Window::ALL, 7, 0..7),
            (Window::newest(3), 7, 4..7),
            (Window::newest(8), 7, 0..7),
            (Window { before: 4, limit: 3 }, 7, 1..4),
            (Window { before: 1, limit: 3 }, 7, 0..1),
            (Window { before: 0, limit: 3 }, 7, 0..0),
            (Window { before: 9, limit: 3 }, 7, 4..7),
        ] {
            assert_eq!(window.range_in(length), places, "{window:?} in {length}");
        }
    }

    #[test]
    fn a_payload_is_always_an_object() {
        for (payload, expected) in [
            (json!(null), json!({})),
            (json!([1]), json!({"value": [1]})),
            (json!("s"), json!({"value": "s"})),
        ] {
            let entry = TimelineEntry::from_document(json!({"payload": payload}));
            assert_eq!(serde_json::to_value(entry).expect("serialises")["payload"], expected);
        }
        let odd = TimelineEntry::from_document(json!(7));
        assert_eq!(serde_json::to_value(odd).expect("serialises")["payload"], json!({"value": 7}));
    }
}
