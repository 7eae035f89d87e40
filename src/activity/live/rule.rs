//! Rules: how an event of a type changes a live entity. A schema file has them in `x-taskcast.live`.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{entity::OWN_NAMES, key::id_text};
use crate::activity::event_type::is_segment;

/// How an event of one type changes one live entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub(super) kind: Arc<str>,
    pub(super) target: Target,
    pub(super) status: Option<StatusRule>,
    pub(super) starts: Option<Starts>,
    pub(super) ends: bool,
    /// The counter that grows by one.
    pub(super) count: Option<Arc<str>>,
    /// After this many milliseconds without news, the entity is stale.
    pub(super) stale_after: Option<i64>,
    /// Payload fields that the entity does not keep.
    pub(super) omit: Vec<String>,
    /// The field of the entity that gets the payload, as an object with its own status and times.
    pub(super) part: Option<Arc<str>>,
}

/// Which entity a rule changes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// The entity whose id is in this payload field. An event without the field changes nothing.
    Field(String),
    /// The only entity of its kind in a project, which has this id.
    Fixed(Arc<str>),
    /// The newest entity of this kind in the same project that has not ended. Without one, nothing changes.
    NewestOpen,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum StatusRule {
    Constant(Arc<str>),
    /// The text in this field, or the other text if the field has no usable one.
    Field {
        field: String,
        otherwise: Option<Arc<str>>,
    },
}

/// When an event begins a new run of an entity. Nothing of an earlier run stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starts {
    /// Always.
    Always,
    /// Only if the entity has ended. Otherwise the event is news of the run that exists.
    AfterEnd,
}

/// A longer status of an event is not used.
const MAX_STATUS_BYTES: usize = 128;
/// A shorter time would make entities flicker. A longer one would not be different from none.
const STALE_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleForm {
    kind: String,
    id: Option<String>,
    fixed_id: Option<String>,
    #[serde(default)]
    open_one: bool,
    status: Option<Value>,
    starts: Option<Starts>,
    #[serde(default)]
    ends: bool,
    count: Option<String>,
    stale_after: Option<String>,
    #[serde(default)]
    omit: Vec<String>,
    part: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusForm {
    field: String,
    #[serde(rename = "else")]
    otherwise: Option<String>,
}

impl Rule {
    /// Reads a rule of a schema file. `is_field` says whether the schema lists a payload field. The error says what to
    /// change.
    pub(in crate::activity) fn parse(value: &Value, is_field: impl Fn(&str) -> bool) -> Result<Self, String> {
        let form = RuleForm::deserialize(value).map_err(|error| error.to_string())?;
        let listed = |field: String| match is_field(&field) {
            true => Ok(field),
            false => Err(format!("the field {field:?} is not in properties of the schema")),
        };
        let named = |what: &str, name: String| match is_segment(&name) && name.len() <= 64 {
            true => Ok(Arc::<str>::from(name)),
            false => {
                Err(format!("{what} must begin with a letter and contain only a-z, 0-9 and _ (at most 64)"))
            }
        };
        let target = match (form.id, form.fixed_id, form.open_one) {
            (Some(field), None, false) => Target::Field(listed(field)?),
            (None, Some(id), false) => {
                Target::Fixed(id_text(&Value::String(id)).ok_or("fixedId must be a text of 1 to 256 bytes")?)
            }
            (None, None, true) => Target::NewestOpen,
            _ => {
                return Err(
                    "a rule needs exactly one of id (a payload field), fixedId and openOne".to_owned()
                );
            }
        };
        let status = match form.status {
            None => None,
            Some(Value::String(text)) => Some(StatusRule::Constant(text.into())),
            Some(other) => {
                let form = StatusForm::deserialize(&other)
                    .map_err(|error| format!("status must be a text or {{field, else?}}: {error}"))?;
                let otherwise = form.otherwise.map(Arc::from);
                Some(StatusRule::Field { field: listed(form.field)?, otherwise })
            }
        };
        let part = form.part.map(|part| named("part", part)).transpose()?;
        if part.as_deref().is_some_and(|part| OWN_NAMES.contains(&part)) {
            return Err("part must not be a name that every entity has".to_owned());
        }
        Ok(Self {
            kind: named("kind", form.kind)?,
            target,
            status,
            starts: form.starts,
            ends: form.ends,
            count: form.count.map(|count| named("count", count)).transpose()?,
            stale_after: form.stale_after.as_deref().map(stale_after).transpose()?,
            omit: form.omit,
            part,
        })
    }

    /// The kind of the entities that this rule changes.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn status_of(&self, payload: &Map<String, Value>) -> Option<Arc<str>> {
        match self.status.as_ref()? {
            StatusRule::Constant(text) => Some(Arc::clone(text)),
            StatusRule::Field { field, otherwise } => payload
                .get(field)
                .and_then(Value::as_str)
                .filter(|text| (1..=MAX_STATUS_BYTES).contains(&text.len()))
                .map(Arc::from)
                .or_else(|| otherwise.clone()),
        }
    }

    /// The fields of a payload that the entity keeps, in an order that does not depend on the payload's.
    pub(super) fn kept<'a>(&self, payload: &'a Map<String, Value>) -> Vec<(&'a str, &'a Value)> {
        let mut kept: Vec<_> = payload
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .filter(|(name, _)| !OWN_NAMES.contains(name) && !self.omit.iter().any(|omitted| omitted == name))
            .collect();
        kept.sort_unstable_by_key(|(name, _)| *name);
        kept
    }
}

fn stale_after(text: &str) -> Result<i64, String> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| STALE_AFTER.contains(duration));
    duration
        .and_then(|duration| i64::try_from(duration.as_millis()).ok())
        .ok_or_else(|| "staleAfter must be a duration from 1s to 365days, such as 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<Rule, String> {
        Rule::parse(&value, |field| ["id", "state"].contains(&field))
    }

    #[test]
    fn a_rule_says_what_to_change_in_it() {
        parse(json!({"kind": "x", "id": "id"})).expect("a rule");
        parse(json!({"kind": "x", "openOne": true, "part": "p", "status": {"field": "state", "else": "s"}}))
            .expect("a rule");
        for (wrong, part) in [
            (json!({"kind": "x"}), "exactly one of id"),
            (json!({"kind": "x", "id": "id", "fixedId": "f"}), "exactly one of id"),
            (json!({"kind": "x", "id": "nothing"}), "\"nothing\" is not in properties"),
            (
                json!({"kind": "x", "id": "id", "status": {"field": "nothing"}}),
                "\"nothing\" is not in properties",
            ),
            (json!({"kind": "x", "id": "id", "status": 7}), "status must be"),
            (json!({"kind": "x", "id": "id", "typo": 1}), "unknown field `typo`"),
            (
                json!({"kind": "x", "id": "id", "status": {"field": "state", "typo": 1}}),
                "unknown field `typo`",
            ),
            (json!({"id": "id"}), "missing field `kind`"),
            (json!({"kind": "X", "id": "id"}), "kind must"),
            (json!({"kind": "x", "id": "id", "count": "a b"}), "count must"),
            (json!({"kind": "x", "id": "id", "staleAfter": "0s"}), "staleAfter must"),
            (json!({"kind": "x", "id": "id", "staleAfter": "soon"}), "staleAfter must"),
            (json!({"kind": "x", "id": "id", "starts": "never"}), "unknown variant `never`"),
            (json!({"kind": "x", "fixedId": ""}), "fixedId must"),
            (json!({"kind": "x", "id": "id", "part": "counters"}), "part must not"),
            (json!([]), "invalid"),
        ] {
            let error = parse(wrong.clone()).expect_err("an error");
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }
}
