//! Snapshots: a read transaction sees the tasks and the number of the last change as of one commit.

use std::cmp::Reverse;

use redb::{ReadTransaction, ReadableTable};

use super::{
    database::{Fault, LAST_SEQUENCE, META, TASKS, TIMELINE},
    record,
};
use crate::{
    feed::Position,
    store::{
        AccessSnapshot, Cursor, DashboardSnapshot, Page, Place, TaskFilter, TaskSnapshot,
        query::{DATES, created_at},
    },
    task::{Counts, DefaultOrg, FullTask, Task, TaskId, TimelineEntry, Viewer},
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

pub(super) fn dashboard(
    txn: &ReadTransaction,
    viewer: &Viewer,
    limit: usize,
    default_org: &DefaultOrg,
) -> Result<DashboardSnapshot, Fault> {
    let mut newest = Newest::new(limit);
    let (mut org_counts, mut own_counts) = (Counts::default(), Counts::default());
    for task in all(txn, default_org)? {
        let task = task?;
        if !task.access.allows(viewer) {
            continue;
        }
        let of_org = viewer.org.is_some() && task.access.public_org() == viewer.org.as_ref();
        if of_org { &mut org_counts } else { &mut own_counts }.add(task.status().class(), 1);
        newest.offer(task);
    }
    let position = Position::end_of(last_sequence(txn)?);
    Ok(DashboardSnapshot { tasks: newest.into_sorted(), org_counts, own_counts, position })
}

pub(super) fn list(
    txn: &ReadTransaction,
    viewer: &Viewer,
    filter: &TaskFilter,
    cursor: Option<&Cursor>,
    limit: usize,
    default_org: &DefaultOrg,
) -> Result<Page, Fault> {
    let place = cursor.and_then(|cursor| cursor.places.iter().find(|place| place.run == DATES));
    let after = place.map(|place| (place.created_at.parse::<i64>().ok(), place.id.clone()));
    // One more than asked for tells whether there is a next page.
    let mut newest = Newest::new(limit + 1);
    for task in all(txn, default_org)? {
        let task = task?;
        if task.access.allows(viewer)
            && filter.matches(&task)
            && after.as_ref().is_none_or(|after| age(&task) < *after)
        {
            newest.offer(task);
        }
    }
    let mut tasks = newest.into_sorted();
    let next = if tasks.len() > limit {
        tasks.truncate(limit);
        tasks.last().map(|task| Cursor { places: vec![place_of(task)] })
    } else {
        None
    };
    Ok(Page { tasks, next })
}

fn all(
    txn: &ReadTransaction,
    default_org: &DefaultOrg,
) -> Result<impl Iterator<Item = Result<Task, Fault>>, Fault> {
    let documents = txn.open_table(TASKS)?.range::<&str>(..)?;
    Ok(documents.map(move |item| record::task(record::decode(item?.1.value())?, default_org)))
}

/// The newest `limit` of the tasks offered, in memory for about twice as many.
struct Newest {
    limit: usize,
    tasks: Vec<Task>,
}

impl Newest {
    fn new(limit: usize) -> Self {
        Self { limit, tasks: Vec::new() }
    }

    fn offer(&mut self, task: Task) {
        self.tasks.push(task);
        if self.tasks.len() > 2 * self.limit + 64 {
            self.cut();
        }
    }

    fn into_sorted(mut self) -> Vec<Task> {
        self.cut();
        self.tasks
    }

    fn cut(&mut self) {
        self.tasks.sort_by_cached_key(|task| Reverse(age(task)));
        self.tasks.truncate(self.limit);
    }
}

/// What lists are ordered by, newest last; a task without a usable `createdAt` is older than all others.
fn age(task: &Task) -> (Option<i64>, TaskId) {
    (created_at(task), task.id.clone())
}

fn place_of(task: &Task) -> Place {
    let created_at = created_at(task).map(|millis| millis.to_string()).unwrap_or_default();
    Place { run: DATES, created_at, id: task.id.clone() }
}
