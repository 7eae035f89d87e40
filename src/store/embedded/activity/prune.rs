//! Removes events whose retention has ended.

use redb::ReadableTable;

use super::{
    super::database::Fault,
    append::Log,
    record::{Record, id_key, scope_key},
};
use crate::{store::RetentionLimits, task::Timestamp};

/// One transaction removes at most this many events of high-volume types, and as many others, so that no write waits for long.
const MAX_REMOVED: usize = 1_000;

impl Log<'_> {
    /// Returns whether there may be more to remove.
    pub(in super::super) fn prune(&mut self, limits: RetentionLimits) -> Result<bool, Fault> {
        let (mut high_volume, mut others) = (0, 0);
        // The times of the events have the order of their numbers, so the first event that is kept ends the search.
        while high_volume < MAX_REMOVED && self.remove_oldest(true, limits.high_volume)? {
            high_volume += 1;
        }
        while others < MAX_REMOVED && self.remove_oldest(false, limits.events)? {
            others += 1;
        }
        self.has_changed |= high_volume + others > 0;
        Ok(high_volume == MAX_REMOVED || others == MAX_REMOVED)
    }

    /// Removes the oldest event, or the oldest one of a high-volume type, if it was stored before the limit. Returns whether it did.
    fn remove_oldest(&mut self, high_volume: bool, limit: Timestamp) -> Result<bool, Fault> {
        let oldest = match high_volume {
            true => self.high_volume.first()?.map(|(number, _)| number.value()),
            false => self.events.first()?.map(|(number, _)| number.value()),
        };
        match oldest {
            Some(number) => self.remove_if_stored_before(number, limit),
            None => Ok(false),
        }
    }

    /// Returns whether the event was removed.
    fn remove_if_stored_before(&mut self, number: u64, limit: Timestamp) -> Result<bool, Fault> {
        let record = self.events.get(number)?.map(|bytes| Record::decode(bytes.value())).transpose()?;
        if let Some(Record { event, .. }) = record {
            if event.timestamp >= limit {
                return Ok(false);
            }
            if let Some(scope) = event.scope() {
                self.by_scope.remove((&*scope_key(&scope), number))?;
            }
            // A later event may have the same key, if the earlier one had already expired for the store.
            if let Some(id) = &event.id
                && self.ids.get(id_key(&event.origin, id))?.is_some_and(|found| found.value() == number)
            {
                self.ids.remove(id_key(&event.origin, id))?;
            }
        }
        self.events.remove(number)?;
        self.high_volume.remove(number)?;
        Ok(true)
    }
}
