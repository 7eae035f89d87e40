//! The part of a live entity that one audience sees, and how an event changes it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rule::{Rule, Starts};
use crate::{
    activity::{Event, report::compact_bytes},
    position::Position,
};

/// The names that every entity has. A payload field with such a name is not kept.
pub(super) const OWN_NAMES: [&str; 10] = [
    "kind",
    "id",
    "status",
    "startedAt",
    "updatedAt",
    "endedAt",
    "staleAt",
    "projectId",
    "eventId",
    "counters",
];

/// The payload fields of an entity have at most this many bytes together, as names and compact JSON.
pub(super) const MAX_FIELD_BYTES: usize = 8 * 1024;
pub(super) const MAX_FIELDS: usize = 64;
/// An entity that has ended is removed after this many milliseconds.
const KEEP_ENDED_MS: i64 = 60 * 60 * 1000;

/// What follows from the events of one audience about one entity. Times are milliseconds since 1970.
///
/// Each value knows the position of the event that it comes from, so that the copies of several audiences can be merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntityCopy {
    /// The event that began the present run, or by which the entity became known.
    pub begun: Position,
    /// The newest event that a rule lets begin a run, also if it was only news of the present one. Another audience may
    /// have seen the end of a run that it was not the news of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_start: Option<Start>,
    /// The newest event.
    pub position: Position,
    pub started_at: i64,
    pub updated_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_after: Option<StaleAfter>,
    pub counters: BTreeMap<Arc<str>, u64>,
    pub fields: BTreeMap<Arc<str>, Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Start {
    pub position: Position,
    pub starts: Starts,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StaleAfter {
    pub position: Position,
    pub millis: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Status {
    pub position: Position,
    pub text: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub position: Position,
    pub at: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Field {
    pub position: Position,
    /// The size of name and value.
    pub bytes: usize,
    pub value: Value,
}

impl EntityCopy {
    fn begin(event: &Event) -> Self {
        let at = event.timestamp.millis();
        Self {
            begun: event.position,
            last_start: None,
            position: event.position,
            started_at: at,
            updated_at: at,
            status: None,
            ended: None,
            stale_after: None,
            counters: BTreeMap::new(),
            fields: BTreeMap::new(),
        }
    }

    /// The copy after an event that a rule applies to.
    pub fn after(before: Option<Self>, rule: &Rule, event: &Event) -> Self {
        let begins = |copy: &Self| {
            rule.part.is_none()
                && match rule.starts {
                    Some(Starts::Always) => true,
                    Some(Starts::AfterEnd) => copy.ended.is_some(),
                    None => false,
                }
        };
        let mut copy = before.filter(|copy| !begins(copy)).unwrap_or_else(|| Self::begin(event));
        copy.change(rule, event);
        copy
    }

    fn change(&mut self, rule: &Rule, event: &Event) {
        let at = event.timestamp.millis();
        self.position = event.position;
        self.started_at = self.started_at.min(at);
        self.updated_at = self.updated_at.max(at);
        if let Some(millis) = rule.stale_after {
            self.stale_after = Some(StaleAfter { position: event.position, millis });
        }
        if let Some(counter) = &rule.count {
            let count = self.counters.entry(Arc::clone(counter)).or_default();
            *count = count.saturating_add(1);
        }
        let status = rule.status_of(&event.payload);
        let kept = rule.kept(&event.payload);
        if let Some(part) = &rule.part {
            let part_after = self.part_after(part, rule, kept, status, at);
            return self.set(Arc::clone(part), part_after, event.position);
        }
        if let Some(starts) = rule.starts {
            self.last_start = Some(Start { position: event.position, starts });
        }
        // A late event of an entity that has ended does not bring it back. Another end corrects the status.
        if let Some(text) = status.filter(|_| self.ended.is_none() || rule.ends) {
            self.status = Some(Status { position: event.position, text });
        }
        if rule.ends {
            self.ended = Some(Ended { position: event.position, at });
        }
        for (name, value) in kept {
            self.set(name.into(), value.clone(), event.position);
        }
    }

    /// The value of a part after an event: the kept payload fields, and a status and times of its own.
    fn part_after(
        &self,
        part: &str,
        rule: &Rule,
        kept: Vec<(&str, &Value)>,
        status: Option<Arc<str>>,
        at: i64,
    ) -> Value {
        let mut map = match self.fields.get(part).map(|field| &field.value) {
            Some(Value::Object(before)) if rule.starts.is_none() => before.clone(),
            _ => Map::from_iter([("startedAt".to_owned(), json!(at)), ("endedAt".to_owned(), Value::Null)]),
        };
        map.extend(kept.into_iter().map(|(name, value)| (name.to_owned(), value.clone())));
        if let Some(status) = status {
            map.insert("status".to_owned(), json!(status));
        }
        if rule.ends {
            map.insert("endedAt".to_owned(), json!(at));
        }
        Value::Object(map)
    }

    /// Sets a field. A value that has no room is left out, together with its older value, which would be wrong now.
    fn set(&mut self, name: Arc<str>, value: Value, position: Position) {
        self.fields.remove(&name);
        let bytes = name.len() + compact_bytes(&value);
        let total: usize = self.fields.values().map(|field| field.bytes).sum();
        if self.fields.len() < MAX_FIELDS && total.saturating_add(bytes) <= MAX_FIELD_BYTES {
            self.fields.insert(name, Field { position, bytes, value });
        }
    }

    /// When the entity is removed, if nothing happens before. `None` means never.
    pub fn expires_at(&self) -> Option<i64> {
        expires_at(
            self.ended.map(|ended| ended.at),
            self.updated_at,
            self.stale_after.map(|stale_after| stale_after.millis),
        )
    }
}

/// When an entity is removed: an hour after its end, or when `stale_after` has passed twice without news.
pub(super) fn expires_at(ended_at: Option<i64>, updated_at: i64, stale_after: Option<i64>) -> Option<i64> {
    match ended_at {
        Some(at) => Some(at.saturating_add(KEEP_ENDED_MS)),
        None => stale_after.map(|stale_after| updated_at.saturating_add(stale_after.saturating_mul(2))),
    }
}
