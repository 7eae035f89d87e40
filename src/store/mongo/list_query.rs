//! Reads lists of tasks: the newest tasks that match a filter.
//!
//! This node checks again each task that MongoDB returns. A task that does not pass this check is neither returned nor counted.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, DateTime, Document, RawDocumentBuf, doc},
    error::Error,
    options::Hint,
};

use super::{
    MongoStore,
    failure::{store_error, with_timeout},
    runs::{Key, Run, has_other_time, invalid_times, newest_first, run_cursor_at},
    select::{IndexedFilter, exactly, has_usable_id, visible_fields},
    task_document,
};
use crate::{
    rate_limited_log::rate_limited_log,
    store::{Cursor, RunCursor, StoreError},
    task::{Counts, Task},
};

/// The maximum number of reads for one run of a page. More than one read is needed if documents do not pass the check.
const MAX_READS: usize = 20;

/// A task with its sort key.
#[derive(Clone, Debug)]
pub(super) struct ListedTask {
    pub(super) key: Key,
    pub(super) task: Task,
}

/// A query for a list of tasks.
pub(super) struct ListQuery<'a> {
    pub(super) store: &'a MongoStore,
    /// A task that several filters match is listed only once.
    pub(super) filters: Vec<IndexedFilter>,
    pub(super) conditions: Vec<Document>,
    /// Checks again that a task matches.
    pub(super) matches: &'a (dyn Fn(&Task) -> bool + Sync),
}

/// Tasks of one run, in its order.
struct TasksOfRun {
    run: Run,
    found: Vec<(ListedTask, Option<RunCursor>)>,
}

impl ListQuery<'_> {
    /// Returns the newest tasks at one moment, and whether these are all tasks. `false` also means that this is not known.
    pub(super) async fn newest(
        &self,
        session: &mut ClientSession,
        limit: usize,
    ) -> Result<(Vec<ListedTask>, bool), StoreError> {
        // A limit of 0 means no limit in MongoDB. A limit of 1 is used, because the caller needs the snapshot time of this read.
        let read_limit = limit.max(1);
        if let [indexed_filter] = &self.filters[..] {
            let documents = self.find(session, indexed_filter, &[], Some(newest_first()), read_limit).await?;
            let mut listed = self.decode_matching(&documents);
            if documents.len() < read_limit {
                listed.sort_by(|a, b| b.key.cmp(&a.key));
                let is_complete = listed.len() <= limit;
                listed.truncate(limit);
                return Ok((listed, is_complete));
            }
            // The index order is the list order only if all times are dates.
            let are_dates = documents.iter().all(|document| Run::of(document) == Run::Dates);
            if listed.len() == read_limit && are_dates && !self.has_any(session, &has_other_time()).await? {
                listed.truncate(limit);
                return Ok((listed, false));
            }
        }
        Ok((self.page(session, &Cursor::default(), limit).await?.0, false))
    }

    /// Returns at most `most` tasks of each filter, not necessarily the newest ones. The result is sorted, the newest task first.
    pub(super) async fn any(
        &self,
        session: &mut ClientSession,
        limit: usize,
    ) -> Result<Vec<ListedTask>, StoreError> {
        let mut all: Vec<ListedTask> = Vec::new();
        for indexed_filter in &self.filters {
            all.extend(self.decode_matching(&self.find(session, indexed_filter, &[], None, limit).await?));
        }
        all.sort_by(|a, b| b.key.cmp(&a.key));
        all.dedup_by(|a, b| a.task.id.is_same_document(&b.task.id));
        Ok(all)
    }

    /// Returns the tasks after a cursor, and the next cursor if there are more tasks.
    pub(super) async fn page(
        &self,
        session: &mut ClientSession,
        after: &Cursor,
        limit: usize,
    ) -> Result<(Vec<ListedTask>, Option<Cursor>), StoreError> {
        // One task more than requested shows whether there is a next page.
        let wanted = limit.saturating_add(1);
        let mut dated =
            vec![self.tasks_of_run(session, Run::Dates, Run::Dates.filter(), after, wanted).await?];
        if self.has_any(session, &has_other_time()).await? {
            for run in Run::DATED.into_iter().skip(1) {
                dated.push(self.tasks_of_run(session, run, run.filter(), after, wanted).await?);
            }
        }
        let mut merged = merge(dated, wanted);
        if merged.len() < wanted {
            let rest = wanted - merged.len();
            merged.extend(
                self.tasks_of_run(session, Run::Missing, Run::Missing.filter(), after, rest).await?.found,
            );
        }
        if merged.len() < wanted {
            // MongoDB sorts these documents in memory, so this function first checks whether there are any.
            let (rest, filter) = (wanted - merged.len(), invalid_times(has_arrays(self.store).await?));
            if self.has_any(session, &filter).await? {
                merged.extend(self.tasks_of_run(session, Run::Invalid, filter, after, rest).await?.found);
            }
        }
        let has_more = merged.len() > limit;
        merged.truncate(limit);
        let mut run_cursors = after.run_cursors.clone();
        for run_cursor in merged.iter().filter_map(|(_, run_cursor)| run_cursor.as_ref()) {
            run_cursors.retain(|other| other.run != run_cursor.run);
            run_cursors.push(run_cursor.clone());
        }
        let next = (has_more && !run_cursors.is_empty()).then_some(Cursor { run_cursors });
        Ok((merged.into_iter().map(|(listed, _)| listed).collect(), next))
    }

    /// Returns the tasks of one run after a cursor, from all filters.
    async fn tasks_of_run(
        &self,
        session: &mut ClientSession,
        run: Run,
        filter: Document,
        after: &Cursor,
        wanted: usize,
    ) -> Result<TasksOfRun, StoreError> {
        let mut found = Vec::new();
        for indexed_filter in &self.filters {
            found.extend(self.read_run(session, indexed_filter, run, &filter, after, wanted).await?);
        }
        if self.filters.len() > 1 {
            found.sort_by(|(a, _), (b, _)| b.key.order_in_run(&a.key));
            found.dedup_by(|(a, _), (b, _)| a.task.id.is_same_document(&b.task.id));
            found.truncate(wanted);
        }
        Ok(TasksOfRun { run, found })
    }

    /// Reads the tasks of one run and one filter until there are enough tasks, or no more documents.
    async fn read_run(
        &self,
        session: &mut ClientSession,
        indexed_filter: &IndexedFilter,
        run: Run,
        filter: &Document,
        after: &Cursor,
        wanted: usize,
    ) -> Result<Vec<(ListedTask, Option<RunCursor>)>, StoreError> {
        let mut found = Vec::new();
        let mut run_cursor = run.find(&after.run_cursors).cloned();
        let mut usable = None;
        for _ in 0..MAX_READS {
            let mut conditions = vec![filter.clone()];
            conditions.extend(usable.clone());
            conditions.extend(run_cursor.as_ref().and_then(|run_cursor| run.after(run_cursor)));
            let read_limit = wanted - found.len();
            let documents =
                self.find(session, indexed_filter, &conditions, Some(run.order()), read_limit).await?;
            for document in &documents {
                let Ok(task) = task_document::task(document, &self.store.config.default_org) else {
                    usable.get_or_insert_with(has_usable_id);
                    continue;
                };
                run_cursor = run_cursor_at(run, document, &task.id);
                if (self.matches)(&task) {
                    found.push((ListedTask { key: Key::of(document), task }, run_cursor.clone()));
                }
            }
            if found.len() == wanted || documents.len() < read_limit {
                break;
            }
        }
        Ok(found)
    }

    async fn has_any(&self, session: &mut ClientSession, condition: &Document) -> Result<bool, StoreError> {
        for indexed_filter in &self.filters {
            if !self.find(session, indexed_filter, std::slice::from_ref(condition), None, 1).await?.is_empty()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads documents without their timelines.
    async fn find(
        &self,
        session: &mut ClientSession,
        indexed_filter: &IndexedFilter,
        conditions: &[Document],
        order: Option<Document>,
        limit: usize,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let mut hint = self.store.hints.of(indexed_filter.index);
        loop {
            match self
                .find_with(session, indexed_filter, conditions, order.clone(), limit, hint.clone())
                .await
            {
                Err(error) if self.store.hints.is_gone(&mut hint, &error) => {}
                found => return found.map_err(store_error),
            }
        }
    }

    async fn find_with(
        &self,
        session: &mut ClientSession,
        indexed_filter: &IndexedFilter,
        conditions: &[Document],
        order: Option<Document>,
        limit: usize,
        hint: Option<Hint>,
    ) -> Result<Vec<RawDocumentBuf>, Error> {
        let collection = self.store.snapshot_collection().await.map_err(Error::custom)?;
        let batch = u32::try_from(limit).unwrap_or(u32::MAX);
        let all: Vec<Document> = self.conditions.iter().chain(conditions).cloned().collect();
        let mut find = collection
            .find(indexed_filter.and(&all))
            .limit(i64::from(batch))
            .batch_size(batch)
            .projection(visible_fields())
            .collation(exactly());
        if let Some(order) = order {
            find = find.sort(order);
        }
        if let Some(hint) = hint {
            find = find.hint(hint);
        }
        with_timeout(async { find.session(&mut *session).await?.stream(&mut *session).try_collect().await })
            .await
    }

    fn decode_matching(&self, documents: &[RawDocumentBuf]) -> Vec<ListedTask> {
        let tasks = documents.iter().filter_map(|document| {
            let task = task_document::task(document, &self.store.config.default_org);
            let task = task.inspect_err(|error| rate_limited_log!(warn, %error, "a task was left out of a list: its document can't be read")).ok()?;
            (self.matches)(&task).then(|| ListedTask { key: Key::of(document), task })
        });
        tasks.collect()
    }
}

/// The counts of a complete list of tasks.
pub(super) fn count_tasks<'a>(listed: impl IntoIterator<Item = &'a ListedTask>) -> Counts {
    let mut counts = Counts::default();
    for listed_task in listed {
        counts.add(listed_task.task.status().class(), 1);
    }
    counts
}

/// Merges runs: it repeatedly takes the newest of the first tasks of all runs. At equal times, it takes the task of the first run.
fn merge(runs: Vec<TasksOfRun>, wanted: usize) -> Vec<(ListedTask, Option<RunCursor>)> {
    let mut runs: Vec<_> =
        runs.into_iter().map(|TasksOfRun { run, found }| (run, found.into_iter().peekable())).collect();
    let mut merged = Vec::new();
    while merged.len() < wanted {
        let first = runs
            .iter_mut()
            .filter_map(|(run, found)| {
                let millis = found.peek()?.0.key.millis;
                Some((millis, std::cmp::Reverse(*run), found))
            })
            .max_by_key(|(millis, run, _)| (*millis, *run));
        let Some(next) = first.and_then(|(_, _, found)| found.next()) else { break };
        merged.push(next);
    }
    merged
}

/// Returns whether the `createdAt` of a document may be an array. MongoDB remembers for each index whether it ever contained an array.
async fn has_arrays(store: &MongoStore) -> Result<bool, StoreError> {
    let find = doc! {
        "find": &store.config.collection,
        "filter": {"createdAt": DateTime::MIN},
        "collation": {"locale": "simple"},
    };
    let database = store.database().await?;
    let explain = database.run_command(doc! {"explain": find, "verbosity": "queryPlanner"});
    let plan = with_timeout(explain).await.map_err(store_error)?;
    let known = flags("isMultiKey", &Bson::Document(plan));
    Ok(known.is_empty() || known.contains(&true))
}

/// All boolean values of this field name, at any depth.
fn flags(name: &str, value: &Bson) -> Vec<bool> {
    match value {
        Bson::Array(items) => items.iter().flat_map(|item| flags(name, item)).collect(),
        Bson::Document(document) => {
            let own = document.get_bool(name).ok();
            own.into_iter().chain(document.values().flat_map(|item| flags(name, item))).collect()
        }
        _ => Vec::new(),
    }
}
