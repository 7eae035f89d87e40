//! Dashboards and lists. They use the index, so that they load only the tasks that they return.

use std::{cell::Cell, collections::HashMap, iter::Rev, sync::Arc};

use redb::{ReadOnlyTable, ReadTransaction};

use super::{
    database::{Fault, TASKS},
    index::{self, COUNTS, LISTS, ListKey},
    ranges::Range,
    read, record,
};
use crate::{
    feed::Position,
    rate_limited_log::rate_limited_log,
    store::{
        Cursor, DashboardSnapshot, Page, RunCursor, TaskFilter,
        query::{DATED_RUN, created_at},
    },
    task::{Counts, DefaultOrg, Task, UserId, Viewer},
};

/// The viewers belong to one organisation, or all belong to none. Those who see only what the whole organisation sees share one snapshot.
pub(super) fn dashboards(
    txn: &ReadTransaction,
    viewers: Vec<Viewer>,
    limit: usize,
    default_org: &DefaultOrg,
) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, Fault> {
    let position = Position::end_of(read::last_sequence(txn)?);
    let lists = Lists::open(txn, default_org)?;
    let mut shared: Option<Arc<DashboardSnapshot>> = None;
    let mut dashboards = HashMap::new();
    for viewer in viewers {
        let (org_counts, own_counts) = lists.dashboard_counts(&viewer)?;
        let has_own = own_counts != Counts::default();
        let snapshot = match &shared {
            Some(shared) if !has_own => shared.clone(),
            _ => {
                let tasks = lists.newest(&viewer, &TaskFilter::default(), None, limit)?;
                Arc::new(DashboardSnapshot { tasks, org_counts, own_counts, position })
            }
        };
        if !has_own {
            shared.get_or_insert_with(|| snapshot.clone());
        }
        dashboards.insert(viewer.user, snapshot);
    }
    Ok(dashboards)
}

pub(super) fn list(
    txn: &ReadTransaction,
    viewer: &Viewer,
    filter: &TaskFilter,
    cursor: Option<&Cursor>,
    limit: usize,
    default_org: &DefaultOrg,
) -> Result<Page, Fault> {
    // One task more than requested shows whether there is a next page.
    let page_limit = limit.saturating_add(1);
    let after = cursor.and_then(sort_key_after);
    let mut tasks = Lists::open(txn, default_org)?.newest(viewer, filter, after, page_limit)?;
    let next = if tasks.len() > limit {
        tasks.truncate(limit);
        tasks.last().map(cursor_after)
    } else {
        None
    };
    Ok(Page { tasks, next, position: Position::end_of(read::last_sequence(txn)?) })
}

/// A list of this store is one run. Tasks without a date come last in it, with an empty text instead of the date.
pub(super) fn cursor_after(task: &Task) -> Cursor {
    let created_at = created_at(task).map(|millis| millis.to_string()).unwrap_or_default();
    Cursor { run_cursors: vec![RunCursor { run: DATED_RUN, created_at, id: task.id.clone() }] }
}

/// Returns `None` if the cursor is from another store. The list then starts from its beginning.
pub(super) fn sort_key_after(cursor: &Cursor) -> Option<(Option<i64>, &str)> {
    let run_cursor = cursor.run_cursors.iter().find(|run_cursor| run_cursor.run == DATED_RUN)?;
    Some((run_cursor.created_at.parse().ok(), run_cursor.id.as_str()))
}

/// The tables that lists are read from.
pub(super) struct Lists<'a> {
    tasks: ReadOnlyTable<&'static str, &'static [u8]>,
    lists: ReadOnlyTable<ListKey, ()>,
    counts: ReadOnlyTable<(u8, &'static str, &'static str), (u64, u64, u64)>,
    default_org: &'a DefaultOrg,
    read_counts: Cell<ReadCounts>,
}

/// How many entries and documents were read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ReadCounts {
    /// Entries of the index.
    pub(super) entries: usize,
    pub(super) documents: usize,
}

/// The position of a task in lists. The newest task has the greatest one.
type SortKey = (Option<i64>, String);

/// A read of one range from its newest task to its oldest.
struct Run {
    entries: Rev<redb::Range<'static, ListKey, ()>>,
    next: Option<SortKey>,
}

impl<'a> Lists<'a> {
    pub(super) fn open(txn: &ReadTransaction, default_org: &'a DefaultOrg) -> Result<Self, Fault> {
        Ok(Self {
            tasks: txn.open_table(TASKS)?,
            lists: txn.open_table(LISTS)?,
            counts: txn.open_table(COUNTS)?,
            default_org,
            read_counts: Cell::default(),
        })
    }

    /// The newest `limit` tasks that the viewer sees, all older than `after`. A task can be in two ranges: as a task of the
    /// organisation and as the viewer's own. Its position is the same in both, so both runs reach it in the same step.
    pub(super) fn newest(
        &self,
        viewer: &Viewer,
        filter: &TaskFilter,
        after: Option<(Option<i64>, &str)>,
        limit: usize,
    ) -> Result<Vec<Task>, Fault> {
        let mut runs = Vec::new();
        for range in self.ranges(viewer, filter) {
            runs.push(self.run(range, after)?);
        }
        let mut tasks = Vec::new();
        while tasks.len() < limit {
            let Some(newest) = runs.iter().filter_map(|run| run.next.as_ref()).max().cloned() else { break };
            for run in runs.iter_mut().filter(|run| run.next.as_ref() == Some(&newest)) {
                self.advance(run)?;
            }
            let task = self.task(&newest.1)?;
            tasks.extend(task.filter(|task| task.access.allows(viewer) && filter.matches(task)));
        }
        Ok(tasks)
    }

    /// The counts of the tasks that the viewer's whole organisation sees, and of the viewer's other tasks.
    fn dashboard_counts(&self, viewer: &Viewer) -> Result<(Counts, Counts), Fault> {
        let user = viewer.user.as_str();
        let (mut org_counts, mut own_in_org) = (Counts::default(), Counts::default());
        for org in self.orgs(viewer) {
            org_counts = org_counts.plus(self.counts(Range::Public { org, creator: None, status: None })?);
            own_in_org =
                own_in_org.plus(self.counts(Range::Public { org, creator: Some(user), status: None })?);
        }
        let own = self.counts(Range::Own { creator: user, status: None })?;
        Ok((org_counts, own.minus(own_in_org)))
    }

    /// The counts of a range.
    pub(super) fn counts(&self, range: Range<'_>) -> Result<Counts, Fault> {
        self.count_reads(1, 0);
        let counts = self.counts.get(index::count_key(range))?;
        Ok(counts.map_or_else(Counts::default, |counts| index::counts_of(counts.value())))
    }

    /// The organisations whose public tasks the viewer sees, as documents name them. `None` stands for the documents that name
    /// no organisation.
    pub(super) fn orgs<'v>(&self, viewer: &'v Viewer) -> impl Iterator<Item = Option<&'v str>> + use<'v> {
        let org = viewer.org.as_ref();
        let is_default = org.is_some() && org == self.default_org.0.as_ref();
        org.map(|org| Some(org.as_str())).into_iter().chain(is_default.then_some(None))
    }

    /// The ranges that contain all tasks that the viewer sees and the filter accepts.
    fn ranges<'v>(&self, viewer: &'v Viewer, filter: &'v TaskFilter) -> Vec<Range<'v>> {
        let status = filter.status.as_deref();
        let own = Range::Own { creator: viewer.user.as_str(), status };
        let creator = match &filter.creator {
            Some(creator) if *creator == viewer.user => return vec![own],
            Some(creator) => Some(creator.as_str()),
            None => None,
        };
        let public = self.orgs(viewer).map(|org| Range::Public { org, creator, status });
        public.chain(creator.is_none().then_some(own)).collect()
    }

    fn run(&self, range: Range<'_>, after: Option<(Option<i64>, &str)>) -> Result<Run, Fault> {
        let oldest = index::list_key(range, None, "");
        // No task has a time this late, because years have four digits.
        let (created_at, id) = after.unwrap_or((Some(i64::MAX), ""));
        let entries = self.lists.range(oldest..index::list_key(range, created_at, id))?.rev();
        let mut run = Run { entries, next: None };
        self.advance(&mut run)?;
        Ok(run)
    }

    fn advance(&self, run: &mut Run) -> Result<(), Fault> {
        run.next = match run.entries.next().transpose()? {
            None => None,
            Some((key, _)) => {
                self.count_reads(1, 0);
                let (.., created_at, id) = key.value();
                Some((created_at, id.to_owned()))
            }
        };
        Ok(())
    }

    /// Returns `None` for a document that can't be read as a task, so that the other tasks are still listed.
    fn task(&self, id: &str) -> Result<Option<Task>, Fault> {
        self.count_reads(0, 1);
        let Some(document) = self.tasks.get(id)? else { return Ok(None) };
        let task =
            record::decode(document.value()).and_then(|document| record::task(document, self.default_org));
        Ok(task
            .inspect_err(
                |error| rate_limited_log!(warn, %error, "a task was left out of a list: its document can't be read"),
            )
            .ok())
    }

    fn count_reads(&self, entries: usize, documents: usize) {
        let so_far = self.read_counts.get();
        let [entries, documents] = [so_far.entries + entries, so_far.documents + documents];
        self.read_counts.set(ReadCounts { entries, documents });
    }

    #[cfg(test)]
    pub(super) fn read_counts(&self) -> ReadCounts {
        self.read_counts.get()
    }
}
