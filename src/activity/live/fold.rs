//! The live entities of one scope, as a function of its events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    entity::EntityCopy,
    expiry::removed_at,
    key::{EntityKey, id_text},
    rule::{Rule, Target},
};
use crate::{
    activity::{Audience, Event, Registry},
    position::Position,
};

/// The live entities of one organisation, or of one user without an organisation.
///
/// They follow from the events in the order of positions and from nothing else: time is the greatest timestamp of an event
/// so far. Each audience has its own copy of an entity, so that a viewer sees only what follows from events that it may
/// see. There are at most [`LiveEntities::MAX`] copies.
#[derive(Clone, Debug)]
pub struct LiveEntities {
    pub(super) position: Position,
    /// The greatest timestamp of an event so far.
    pub(super) clock: i64,
    pub(super) entities: BTreeMap<EntityKey, BTreeMap<Audience, EntityCopy>>,
    /// The number of copies.
    count: usize,
    /// No copy expires before this time.
    next_expiry: i64,
}

/// An event changed or removed what an audience sees of an entity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveChange {
    /// The event.
    pub position: Position,
    pub key: EntityKey,
    pub audience: Audience,
}

impl Default for LiveEntities {
    fn default() -> Self {
        Self::restored(Position::ZERO, i64::MIN, BTreeMap::new())
    }
}

impl LiveEntities {
    /// The most copies of entities in one scope. Above that, entities that have ended are dropped first, then those with
    /// the oldest news.
    pub const MAX: usize = 2_000;

    pub(super) fn restored(
        position: Position,
        clock: i64,
        entities: BTreeMap<EntityKey, BTreeMap<Audience, EntityCopy>>,
    ) -> Self {
        let count = entities.values().map(BTreeMap::len).sum();
        let expiries = entities.values().flat_map(BTreeMap::values).filter_map(EntityCopy::expires_at);
        let next_expiry = expiries.min().unwrap_or(i64::MAX);
        Self { position, clock, entities, count, next_expiry }
    }

    /// The newest event that was applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Applies events, in any order. Events at or before [`LiveEntities::position`] are ignored, so events may be read
    /// again. Every event after it, up to the newest one of the batch, must be in the batch.
    ///
    /// Returns each change once per event, in the order of the events. Whether a viewer still sees the entity is what
    /// [`LiveEntities::entity`] says.
    pub fn apply<'a>(
        &mut self,
        registry: &Registry,
        batch: impl IntoIterator<Item = (Audience, &'a Event)>,
    ) -> Vec<LiveChange> {
        let mut batch: Vec<(Audience, &Event)> = batch.into_iter().collect();
        batch.sort_by_key(|(_, event)| event.position);
        let mut changes = Vec::new();
        for (audience, event) in batch {
            if event.position > self.position {
                self.position = event.position;
                let changed = self.apply_next(registry, &audience, event);
                let change = |(key, audience)| LiveChange { position: event.position, key, audience };
                changes.extend(changed.into_iter().map(change));
            }
        }
        changes
    }

    fn apply_next(
        &mut self,
        registry: &Registry,
        audience: &Audience,
        event: &Event,
    ) -> BTreeSet<(EntityKey, Audience)> {
        let mut changed = BTreeSet::new();
        // A notice is for one user, and changes nothing that others see.
        if event.to.is_some() {
            return changed;
        }
        self.clock = self.clock.max(event.timestamp.millis());
        self.expire(&mut changed);
        for rule in registry.rules(&event.event_type) {
            let Some(key) = self.target(rule, audience, event) else { continue };
            let copies = self.entities.entry(key.clone()).or_default();
            let before = copies.remove(audience);
            self.count += usize::from(before.is_none());
            let after = EntityCopy::after(before, rule, event);
            self.next_expiry = self.next_expiry.min(after.expires_at().unwrap_or(i64::MAX));
            copies.insert(audience.clone(), after);
            changed.insert((key, audience.clone()));
        }
        while self.count > Self::MAX && self.drop_one(&mut changed) {}
        changed
    }

    /// The entity that an event changes by a rule.
    fn target(&self, rule: &Rule, audience: &Audience, event: &Event) -> Option<EntityKey> {
        let id = match &rule.target {
            Target::Field(field) => id_text(event.payload.get(field)?)?,
            Target::Fixed(id) => Arc::clone(id),
            Target::NewestOpen => return self.newest_open_key(&rule.kind, audience, event),
        };
        let key = EntityKey { kind: Arc::clone(&rule.kind), id, project: event.project.clone() };
        if key.project.is_some() {
            return Some(key);
        }
        // Some producers name the project only when something begins. An event without a project is about the entity that
        // is known by this id, if there is exactly one.
        let mut known = self
            .entities
            .range(&key..)
            .take_while(|(other, _)| other.kind == key.kind && other.id == key.id)
            .filter(|(_, copies)| copies.contains_key(audience))
            .map(|(other, _)| other);
        match (known.next(), known.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => Some(key),
        }
    }

    fn newest_open_key(&self, kind: &Arc<str>, audience: &Audience, event: &Event) -> Option<EntityKey> {
        self.of_kind(kind)
            .filter(|(key, _)| key.project == event.project)
            .filter_map(|(key, copies)| Some((key, copies.get(audience)?)))
            .filter(|(_, copy)| copy.ended.is_none())
            .max_by_key(|(_, copy)| copy.begun)
            .map(|(key, _)| key.clone())
    }

    pub(super) fn of_kind<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a EntityKey, &'a BTreeMap<Audience, EntityCopy>)> {
        let first = EntityKey { kind: kind.into(), id: "".into(), project: None };
        self.entities.range(first..).take_while(move |(key, _)| &*key.kind == kind)
    }

    /// Removes the copies whose time is over.
    fn expire(&mut self, changed: &mut BTreeSet<(EntityKey, Audience)>) {
        if self.clock < self.next_expiry {
            return;
        }
        let (clock, mut next_expiry) = (self.clock, i64::MAX);
        self.entities.retain(|key, copies| {
            let removal = |(audience, copy): (&Audience, &EntityCopy)| {
                (audience.clone(), removed_at(copies, audience, copy).unwrap_or(i64::MAX))
            };
            let removals: Vec<(Audience, i64)> = copies.iter().map(removal).collect();
            for (audience, removed_at) in removals {
                if removed_at <= clock {
                    copies.remove(&audience);
                    changed.insert((key.clone(), audience));
                } else {
                    next_expiry = next_expiry.min(removed_at);
                }
            }
            !copies.is_empty()
        });
        self.next_expiry = next_expiry;
        self.count = self.entities.values().map(BTreeMap::len).sum();
    }

    /// Drops the copy that matters least. Returns whether there was one.
    fn drop_one(&mut self, changed: &mut BTreeSet<(EntityKey, Audience)>) -> bool {
        let copies = self.entities.iter().flat_map(|(key, copies)| {
            copies.iter().map(move |(audience, copy)| (copy.ended.is_none(), copy.position, key, audience))
        });
        let Some((_, _, key, audience)) = copies.min() else { return false };
        let (key, audience) = (key.clone(), audience.clone());
        if let Some(copies) = self.entities.get_mut(&key) {
            copies.remove(&audience);
            if copies.is_empty() {
                self.entities.remove(&key);
            }
            self.count = self.count.saturating_sub(1);
        }
        changed.insert((key, audience));
        true
    }

    /// The number of copies of entities that are held.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
