//! What identifies a live entity.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What identifies a live entity. Keys are ordered by kind, then by id, then by project.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntityKey {
    pub kind: Arc<str>,
    pub id: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Arc<str>>,
}

const MAX_ID_BYTES: usize = 256;
/// From here on, a number with a fraction part cannot be told from its neighbours.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The id of an entity as text, from a text of 1 to 256 bytes or a whole number. The number 7 and the text "7" are the same
/// id.
pub(super) fn id_text(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::String(text) => (1..=MAX_ID_BYTES).contains(&text.len()).then(|| text.as_str().into()),
        Value::Number(number) if number.is_f64() => number
            .as_f64()
            .filter(|number| number.fract() == 0.0 && number.abs() < MAX_EXACT)
            .map(|number| (number as i64).to_string().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_a_text_or_a_whole_number() {
        for (value, id) in [
            (json!("a"), "a"),
            (json!(7), "7"),
            (json!(7.0), "7"),
            (json!(-0.0), "0"),
            (json!(u64::MAX), "18446744073709551615"),
        ] {
            assert_eq!(id_text(&value).as_deref(), Some(id));
        }
        for value in [
            json!(""),
            json!(1.5),
            json!(1e300),
            json!(null),
            json!([1]),
            json!(true),
            json!("x".repeat(257)),
        ] {
            assert_eq!(id_text(&value), None, "{value}");
        }
    }
}
