//! Snapshots: a read transaction sees the tasks and the number of the last change as of one commit.

use std::ops::Range;

use redb::{ReadTransaction, ReadableTable};

use super::{
    database::{Fault, LAST_SEQUENCE, META, TASKS, TIMELINE},
    record,
};
use crate::{
    feed::Position,
    store::{AccessSnapshot, TaskSnapshot},
    task::{DefaultOrg, FullTask, Task, TaskId, Window},
};

pub(super) fn last_sequence(txn: &ReadTransaction) -> Result<u64, Fault> {
    Ok(txn.open_table(META)?.get(LAST_SEQUENCE)?.map_or(0, |number| number.value()))
}

pub(super) fn access(
    txn: &ReadTransaction,
    id: &TaskId,
    default_org: &DefaultOrg,
) -> Result<AccessSnapshot, Fault> {
    let position = Position::end_of(last_sequence(txn)?);
    let found = txn.open_table(TASKS)?.get(id.as_str())?;
    let access = found.map(|bytes| record::access(bytes.value(), default_org)).transpose()?;
    Ok(AccessSnapshot { id: id.clone(), access, position })
}

pub(super) fn task(
    txn: &ReadTransaction,
    id: &TaskId,
    window: Window,
    default_org: &DefaultOrg,
) -> Result<TaskSnapshot, Fault> {
    let position = Position::end_of(last_sequence(txn)?);
    let task = match txn.open_table(TASKS)?.get(id.as_str())? {
        None => None,
        Some(bytes) => {
            let task = record::task(record::decode(bytes.value())?, default_org)?;
            Some(with_timeline(&txn.open_table(TIMELINE)?, task, window)?)
        }
    };
    Ok(TaskSnapshot { task, position })
}

/// Adds the timeline entries in `window` to a task, and reads no others.
pub(super) fn with_timeline(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    task: Task,
    window: Window,
) -> Result<FullTask, Fault> {
    let length = usize::try_from(length(table, &task.id)?).unwrap_or(usize::MAX);
    let Range { start, end } = window.of(length);
    let entries = table.range((task.id.as_str(), start as u64)..(task.id.as_str(), end as u64))?;
    let timeline = entries.map(|entry| record::entry(entry?.1.value())).collect::<Result<_, Fault>>()?;
    Ok(FullTask::with_part(task, timeline, window, length))
}

/// The number of entries of a timeline. A timeline only grows, and each new entry gets the next index.
pub(super) fn length(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    id: &TaskId,
) -> Result<u64, Fault> {
    let last = table.range((id.as_str(), 0)..=(id.as_str(), u64::MAX))?.next_back();
    Ok(last.transpose()?.map_or(0, |(key, _)| key.value().1 + 1))
}
