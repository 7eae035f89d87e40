//! An entity as a viewer sees it: the copies of all audiences that the viewer belongs to, merged.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{
    entity::{EntityCopy, expires_at},
    key::EntityKey,
    rule::Starts,
};
use crate::position::Position;

/// A live entity as a viewer sees it at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity<'a> {
    pub key: &'a EntityKey,
    /// `stale` if there was no news for too long.
    pub status: Option<&'a str>,
    pub started_at: i64,
    pub updated_at: i64,
    pub ended_at: Option<i64>,
    /// When the entity becomes stale, if nothing happens before.
    pub stale_at: Option<i64>,
    /// The newest event about the entity that the viewer may see.
    pub position: Position,
    pub counters: BTreeMap<&'a str, u64>,
    pub fields: BTreeMap<&'a str, &'a Value>,
    /// The event that began the present run.
    pub(super) begun: Position,
}

/// The status of an entity without news.
const STALE: &str = "stale";

/// Merges the copies of one entity. `None` means that there is nothing to show at the moment `now`.
pub(super) fn merge<'a>(key: &'a EntityKey, all: &[&'a EntityCopy], now: i64) -> Option<Entity<'a>> {
    let copies = present_run(all);
    let newest = copies.iter().max_by_key(|copy| copy.position)?;
    let ended = copies
        .iter()
        .filter_map(|copy| copy.ended.map(|ended| (ended, copy)))
        .max_by_key(|(ended, _)| ended.position);
    let stale_after =
        copies.iter().filter_map(|copy| copy.stale_after).max_by_key(|stale_after| stale_after.position);
    let stale_after = stale_after.map(|stale_after| stale_after.millis);
    let updated_at = copies.iter().map(|copy| copy.updated_at).max()?;
    let ended_at = ended.map(|(ended, _)| ended.at);
    if expires_at(ended_at, updated_at, stale_after).is_some_and(|expires_at| expires_at <= now) {
        return None;
    }
    let stale_at = match ended {
        Some(_) => None,
        None => stale_after.map(|stale_after| updated_at.saturating_add(stale_after)),
    };
    let status = match ended {
        Some((_, copy)) => copy.status.as_ref(),
        None => copies.iter().filter_map(|copy| copy.status.as_ref()).max_by_key(|status| status.position),
    };
    let mut entity = Entity {
        key,
        status: status.map(|status| &*status.text),
        started_at: copies.iter().map(|copy| copy.started_at).min()?,
        updated_at,
        ended_at,
        stale_at,
        position: newest.position,
        counters: BTreeMap::new(),
        fields: BTreeMap::new(),
        begun: copies.iter().map(|copy| copy.begun).min()?,
    };
    if stale_at.is_some_and(|stale_at| stale_at <= now) {
        entity.status = Some(STALE);
    }
    let mut fields: BTreeMap<&str, (Position, &Value)> = BTreeMap::new();
    for copy in copies {
        for (name, count) in &copy.counters {
            let sum = entity.counters.entry(name).or_default();
            *sum = sum.saturating_add(*count);
        }
        for (name, field) in &copy.fields {
            let newest = fields.entry(name).or_insert((field.position, &field.value));
            if field.position > newest.0 {
                *newest = (field.position, &field.value);
            }
        }
    }
    entity.fields = fields.into_iter().map(|(name, (_, value))| (name, value)).collect();
    Some(entity)
}

/// The copies that tell of the present run.
pub(super) fn present_run<'a>(all: &[&'a EntityCopy]) -> Vec<&'a EntityCopy> {
    let is_present = |copy: &&EntityCopy| !all.iter().any(|other| belongs_to_earlier_run(copy, other));
    all.iter().copied().filter(is_present).collect()
}

/// Returns whether a copy tells of a run that was over when the run in another copy began.
fn belongs_to_earlier_run(copy: &EntityCopy, other: &EntityCopy) -> bool {
    other.last_start.is_some_and(|start| match start.starts {
        Starts::Always => copy.position < start.position,
        Starts::AfterEnd => copy.ended.is_some_and(|ended| ended.position < start.position),
    })
}

impl Serialize for Entity<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", &self.key.kind)?;
        map.serialize_entry("id", &self.key.id)?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("startedAt", &self.started_at)?;
        map.serialize_entry("updatedAt", &self.updated_at)?;
        map.serialize_entry("endedAt", &self.ended_at)?;
        map.serialize_entry("staleAt", &self.stale_at)?;
        map.serialize_entry("projectId", &self.key.project)?;
        map.serialize_entry("eventId", &self.position)?;
        map.serialize_entry("counters", &self.counters)?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
