//! Snapshots: a read transaction sees the tasks and the number of the last change as of one commit.

use redb::{ReadTransaction, ReadableTable};

use super::{
    database::{Fault, LAST_SEQUENCE, META, TASKS, TIMELINE},
    record,
};
use crate::{
    feed::Position,
    store::{AccessSnapshot, TaskSnapshot},
    task::{DefaultOrg, FullTask, TaskId, TimelineEntry},
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
    default_org: &DefaultOrg,
) -> Result<TaskSnapshot, Fault> {
    let position = Position::end_of(last_sequence(txn)?);
    let task = match txn.open_table(TASKS)?.get(id.as_str())? {
        None => None,
        Some(bytes) => Some(FullTask {
            task: record::task(record::decode(bytes.value())?, default_org)?,
            timeline: timeline(&txn.open_table(TIMELINE)?, id)?,
        }),
    };
    Ok(TaskSnapshot { task, position })
}

pub(super) fn timeline(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    id: &TaskId,
) -> Result<Vec<TimelineEntry>, Fault> {
    let entries = table.range((id.as_str(), 0)..=(id.as_str(), u64::MAX))?;
    entries.map(|entry| record::entry(entry?.1.value())).collect()
}
