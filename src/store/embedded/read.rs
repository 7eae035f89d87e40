//! Snapshots: a read transaction sees the tasks and the number of the last change as of one commit.

use std::{collections::HashMap, ops::Range};

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

pub(super) fn accesses(
    txn: &ReadTransaction,
    ids: &[TaskId],
    default_org: &DefaultOrg,
) -> Result<HashMap<TaskId, AccessSnapshot>, Fault> {
    let position = Position::end_of(last_sequence(txn)?);
    let tasks = txn.open_table(TASKS)?;
    let access = |id: &TaskId| {
        let found = tasks.get(id.as_str())?;
        let access = found.map(|bytes| record::access(bytes.value(), default_org)).transpose()?;
        Ok((id.clone(), AccessSnapshot { id: id.clone(), access, position }))
    };
    ids.iter().map(access).collect()
}

/// Leaves out the tasks whose records are damaged, unless there is only one task.
pub(super) fn tasks(
    txn: &ReadTransaction,
    ids: &[TaskId],
    window: Window,
    default_org: &DefaultOrg,
) -> Result<HashMap<TaskId, TaskSnapshot>, Fault> {
    let position = Position::end_of(last_sequence(txn)?);
    let (tasks, timelines) = (txn.open_table(TASKS)?, txn.open_table(TIMELINE)?);
    let task = |id: &TaskId| {
        let Some(bytes) = tasks.get(id.as_str())? else { return Ok(None) };
        let task = record::task(record::decode(bytes.value())?, default_org)?;
        with_timeline(&timelines, task, window).map(Some)
    };
    let mut snapshots = HashMap::new();
    for id in ids {
        match task(id) {
            Ok(task) => snapshots.insert(id.clone(), TaskSnapshot { task, position }),
            Err(Fault::Record(_) | Fault::Document(_)) if ids.len() > 1 => None,
            Err(fault) => return Err(fault),
        };
    }
    Ok(snapshots)
}

/// Adds the timeline entries in `window` to a task, and reads no others.
pub(super) fn with_timeline(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    task: Task,
    window: Window,
) -> Result<FullTask, Fault> {
    let length = usize::try_from(length(table, &task.id)?).unwrap_or(usize::MAX);
    let Range { start, end } = window.range_in(length);
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
