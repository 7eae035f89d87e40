//! Activity events in the embedded store.
//!
//! `activity` holds the events by sequence number. They are counted for themselves, so that an event does not move the positions of tasks.
//! `activityByScope` lists the events of each organisation, and of each user without one. `activityIds` finds an event by the idempotency
//! key of its reporter. `activityHighVolume` lists the events that are kept for a shorter time.

mod append;
mod page;
mod prune;
mod record;
#[cfg(test)]
mod tests;

use redb::TableDefinition;

pub(super) use append::Log;
pub(super) use page::page;

/// By sequence number: a [`record::Record`].
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("activity");
/// By scope and sequence number.
const BY_SCOPE: TableDefinition<(&str, u64), ()> = TableDefinition::new("activityByScope");
/// By organisation, reporter and idempotency key: the sequence number.
const IDS: TableDefinition<(&str, &str, &str), u64> = TableDefinition::new("activityIds");
/// By sequence number.
const HIGH_VOLUME: TableDefinition<u64, ()> = TableDefinition::new("activityHighVolume");
/// In `meta`: the number of the last event.
const LAST_EVENT: &str = "lastEvent";
/// In `meta`: when the last event was stored, in milliseconds since 1970.
const LAST_EVENT_AT: &str = "lastEventAt";
