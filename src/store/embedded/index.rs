//! The index: three tables that are derived from the documents. They list, count and find tasks, so that a read loads no
//! task that it does not return. A write changes them in the transaction that changes the document.
//!
//! A release that changes the contents of the index ([`Indexed`] and its inputs) must raise
//! [`FORMAT`](super::migrate::FORMAT). It then indexes the files of earlier releases again.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{
    database::Fault,
    ranges::{Indexed, Range},
};
use crate::task::{Counts, StatusClass};

/// A range, and the position of a task in it: `createdAt` in milliseconds, and the id.
pub(super) type ListKey = (u8, &'static str, &'static str, &'static str, Option<i64>, &'static str);
/// A range without a status.
type CountKey = (u8, &'static str, &'static str);
/// A text that deliveries look up, whether the task is open, its `createdAt` in milliseconds, and its id. If a text has
/// several entries, the last one is the best match.
type LookupKey = (&'static str, bool, Option<i64>, &'static str);

pub(super) const LISTS: TableDefinition<ListKey, ()> = TableDefinition::new("lists");
/// How many tasks of a range are active, completed and failed.
pub(super) const COUNTS: TableDefinition<CountKey, (u64, u64, u64)> = TableDefinition::new("counts");
pub(super) const LOOKUPS: TableDefinition<LookupKey, ()> = TableDefinition::new("finds");

/// The index, open for writing.
pub(super) struct Index<'txn> {
    lists: Table<'txn, ListKey, ()>,
    counts: Table<'txn, CountKey, (u64, u64, u64)>,
    lookups: Table<'txn, LookupKey, ()>,
}

impl<'txn> Index<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            lists: txn.open_table(LISTS)?,
            counts: txn.open_table(COUNTS)?,
            lookups: txn.open_table(LOOKUPS)?,
        })
    }

    /// Updates the index after a change of a task. `None` means that there is no document, or that it can't be read as a
    /// task.
    pub(super) fn update(&mut self, before: Option<&Indexed>, after: Option<&Indexed>) -> Result<(), Fault> {
        if before == after {
            return Ok(());
        }
        let (removed, added) = difference(before, after, |task| {
            task.listed().into_iter().map(|range| (range, task.created_at)).collect()
        });
        for (task, (range, created_at)) in removed {
            self.lists.remove(list_key(range, created_at, &task.id))?;
        }
        for (task, (range, created_at)) in added {
            self.lists.insert(list_key(range, created_at, &task.id), ())?;
        }
        let (removed, added) = difference(before, after, |task| {
            task.counted().into_iter().map(|range| (range, task.class)).collect()
        });
        for (_, (range, class)) in removed {
            self.count(range, class, Counts::remove_one)?;
        }
        for (_, (range, class)) in added {
            self.count(range, class, |counts, class| counts.add(class, 1))?;
        }
        let (removed, added) = difference(before, after, |task| {
            let lookups = task.lookups.iter();
            lookups.map(|lookup| (lookup.as_str(), task.is_open, task.created_at)).collect()
        });
        for (task, (lookup, is_open, created_at)) in removed {
            self.lookups.remove((lookup, is_open, created_at, &*task.id))?;
        }
        for (task, (lookup, is_open, created_at)) in added {
            self.lookups.insert((lookup, is_open, created_at, &*task.id), ())?;
        }
        Ok(())
    }

    /// The ids of the tasks that `lookup` finds, the best match first.
    pub(super) fn task_ids(
        &self,
        lookup: &str,
    ) -> Result<impl Iterator<Item = Result<String, Fault>>, Fault> {
        let first = (lookup, false, None, "");
        let end = (lookup, true, Some(i64::MAX), "");
        let entries = self.lookups.range(first..end)?;
        Ok(entries.rev().map(|entry| Ok(entry?.0.value().3.to_owned())))
    }

    fn count(
        &mut self,
        range: Range<'_>,
        class: StatusClass,
        change: impl FnOnce(&mut Counts, StatusClass),
    ) -> Result<(), Fault> {
        let key = count_key(range);
        let mut counts =
            self.counts.get(key)?.map_or_else(Counts::default, |counts| counts_of(counts.value()));
        change(&mut counts, class);
        if counts == Counts::default() {
            self.counts.remove(key)?;
        } else {
            self.counts.insert(key, (counts.active, counts.completed, counts.failed))?;
        }
        Ok(())
    }
}

pub(super) fn list_key<'a>(
    range: Range<'a>,
    created_at: Option<i64>,
    id: &'a str,
) -> (u8, &'a str, &'a str, &'a str, Option<i64>, &'a str) {
    let (kind, scope, creator, status) = range.key();
    (kind, scope, creator, status, created_at, id)
}

pub(super) fn count_key(range: Range<'_>) -> (u8, &str, &str) {
    let (kind, scope, creator, _) = range.key();
    (kind, scope, creator)
}

pub(super) fn counts_of((active, completed, failed): (u64, u64, u64)) -> Counts {
    Counts { active, completed, failed }
}

type EntriesOfTask<'a, T> = Vec<(&'a Indexed, T)>;

/// Returns the entries that only `before` has, and the entries that only `after` has. A task keeps its id.
fn difference<'a, T: PartialEq>(
    before: Option<&'a Indexed>,
    after: Option<&'a Indexed>,
    entries: impl Fn(&'a Indexed) -> Vec<T>,
) -> (EntriesOfTask<'a, T>, EntriesOfTask<'a, T>) {
    let of = |task: Option<&'a Indexed>| -> EntriesOfTask<'a, T> {
        task.map_or_else(Vec::new, |task| entries(task).into_iter().map(|entry| (task, entry)).collect())
    };
    let (mut removed, mut added) = (of(before), of(after));
    let has = |entries: &EntriesOfTask<'a, T>, entry: &T| entries.iter().any(|(_, other)| other == entry);
    let is_kept: Vec<bool> = removed.iter().map(|(_, entry)| has(&added, entry)).collect();
    added.retain(|(_, entry)| !has(&removed, entry));
    let mut is_kept = is_kept.into_iter();
    removed.retain(|_| !is_kept.next().unwrap_or_default());
    (removed, added)
}
