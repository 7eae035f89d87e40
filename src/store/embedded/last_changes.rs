//! The last visible change of each task, by which `If-Match` is decided.
//!
//! The table begins empty, with the first start of a release that has it. An earlier release does not update it. This release then finds
//! that the table is out of date, and begins anew.

use redb::{ReadableTable, Table, WriteTransaction};

use super::database::{Fault, LAST_CHANGES, LAST_SEQUENCE, META};
use crate::{feed::Position, task::TaskId};

/// In `meta`: the number of the last change before the table was begun.
const BEGUN_AFTER: &str = "lastChangesBegunAfter";
/// In `meta`: the number of the last change that the table contains.
pub(super) const CHANGES_SEQUENCE: &str = "lastChangesSequence";

/// The table, open for writing.
pub(super) struct LastChanges<'txn> {
    table: Table<'txn, &'static str, u64>,
    begun_after: u64,
}

/// Begins the table if it is missing or out of date.
pub(super) fn prepare(db: &redb::Database) -> Result<(), Fault> {
    let txn = db.begin_write()?;
    let is_current = {
        let mut meta = txn.open_table(META)?;
        let number = |name| Ok::<_, Fault>(meta.get(name)?.map(|number| number.value()));
        let last = number(LAST_SEQUENCE)?.unwrap_or_default();
        let is_current = number(CHANGES_SEQUENCE)? == Some(last);
        if !is_current {
            meta.insert(BEGUN_AFTER, last)?;
            meta.insert(CHANGES_SEQUENCE, last)?;
        }
        is_current
    };
    if is_current {
        return Ok(txn.abort()?);
    }
    txn.delete_table(LAST_CHANGES)?;
    txn.open_table(LAST_CHANGES)?;
    Ok(txn.commit()?)
}

impl<'txn> LastChanges<'txn> {
    pub(super) fn open(
        txn: &'txn WriteTransaction,
        meta: &Table<'txn, &'static str, u64>,
    ) -> Result<Self, Fault> {
        let begun_after = meta.get(BEGUN_AFTER)?.map_or(u64::MAX, |number| number.value());
        Ok(Self { table: txn.open_table(LAST_CHANGES)?, begun_after })
    }

    pub(super) fn changed(&mut self, id: &TaskId, sequence: u64) -> Result<(), Fault> {
        self.table.insert(id.as_str(), sequence)?;
        Ok(())
    }

    /// Returns whether the task is known not to have changed after `since`. `sequence` is the number of the last change of any task.
    pub(super) fn is_unchanged(&self, id: &TaskId, since: Position, sequence: u64) -> Result<bool, Fault> {
        if since.time > sequence {
            // This store has not given out this position.
            return Ok(false);
        }
        Ok(match self.table.get(id.as_str())? {
            Some(last) => last.value() <= since.time,
            None => self.begun_after <= since.time,
        })
    }
}
