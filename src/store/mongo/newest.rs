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
    failure::{answer, store_error},
    meaning,
    runs::{Key, Run, has_other_time, newest, odd, place_of},
    select::{Way, exactly, has_usable_id, visible_fields},
};
use crate::{
    rate_limited_log::rate_limited_log,
    store::{Cursor, Place, StoreError},
    task::{Counts, Task},
};

/// The maximum number of reads for one run of a page. More than one read is needed if documents do not pass the check.
const MOST_READS: usize = 20;

/// A task with its sort key.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) key: Key,
    pub(super) task: Task,
}

/// A query for a list of tasks.
pub(super) struct Looked<'a> {
    pub(super) store: &'a MongoStore,
    /// A task that is visible in several ways is listed only once.
    pub(super) ways: Vec<Way>,
    pub(super) conditions: Vec<Document>,
    /// Checks again that a task matches.
    pub(super) passes: &'a (dyn Fn(&Task) -> bool + Sync),
}

/// Tasks of one run, in its order.
struct OfRun {
    run: Run,
    found: Vec<(Listed, Option<Place>)>,
}

impl Looked<'_> {
    /// Returns the newest tasks at one moment, and whether these are all tasks. `false` also means that this is not known.
    pub(super) async fn newest(
        &self,
        session: &mut ClientSession,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool), StoreError> {
        // A limit of 0 means no limit in MongoDB. A limit of 1 is used, because the caller needs the snapshot time of this read.
        let asked = limit.max(1);
        if let [way] = &self.ways[..] {
            let documents = self.find(session, way, &[], Some(newest()), asked).await?;
            let mut listed = self.checked(&documents);
            if documents.len() < asked {
                listed.sort_by(|a, b| b.key.cmp(&a.key));
                let is_all = listed.len() <= limit;
                listed.truncate(limit);
                return Ok((listed, is_all));
            }
            // The index order is the list order only if all times are dates.
            let are_dates = documents.iter().all(|document| Run::of(document) == Run::Dates);
            if listed.len() == asked && are_dates && !self.has_any(session, &has_other_time()).await? {
                listed.truncate(limit);
                return Ok((listed, false));
            }
        }
        Ok((self.page(session, &Cursor::default(), limit).await?.0, false))
    }

    /// Returns at most `most` tasks of each way, not necessarily the newest ones. The result is sorted, the newest task first.
    pub(super) async fn any(
        &self,
        session: &mut ClientSession,
        most: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut all: Vec<Listed> = Vec::new();
        for way in &self.ways {
            all.extend(self.checked(&self.find(session, way, &[], None, most).await?));
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
    ) -> Result<(Vec<Listed>, Option<Cursor>), StoreError> {
        // One task more than requested shows whether there is a next page.
        let wanted = limit.saturating_add(1);
        let mut dated = vec![self.run(session, Run::Dates, Run::Dates.filter(), after, wanted).await?];
        if self.has_any(session, &has_other_time()).await? {
            for run in Run::DATED.into_iter().skip(1) {
                dated.push(self.run(session, run, run.filter(), after, wanted).await?);
            }
        }
        let mut merged = merge(dated, wanted);
        if merged.len() < wanted {
            let rest = wanted - merged.len();
            merged.extend(self.run(session, Run::Nothing, Run::Nothing.filter(), after, rest).await?.found);
        }
        if merged.len() < wanted {
            // MongoDB sorts these documents in memory, so this function first checks whether there are any.
            let (rest, filter) = (wanted - merged.len(), odd(has_arrays(self.store).await?));
            if self.has_any(session, &filter).await? {
                merged.extend(self.run(session, Run::Odd, filter, after, rest).await?.found);
            }
        }
        let has_more = merged.len() > limit;
        merged.truncate(limit);
        let mut places = after.places.clone();
        for place in merged.iter().filter_map(|(_, place)| place.as_ref()) {
            places.retain(|other| other.run != place.run);
            places.push(place.clone());
        }
        let next = (has_more && !places.is_empty()).then_some(Cursor { places });
        Ok((merged.into_iter().map(|(listed, _)| listed).collect(), next))
    }

    /// Returns the tasks of one run after a cursor, from all ways.
    async fn run(
        &self,
        session: &mut ClientSession,
        run: Run,
        filter: Document,
        after: &Cursor,
        wanted: usize,
    ) -> Result<OfRun, StoreError> {
        let mut found = Vec::new();
        for way in &self.ways {
            found.extend(self.run_of(session, way, run, &filter, after, wanted).await?);
        }
        if self.ways.len() > 1 {
            found.sort_by(|(a, _), (b, _)| b.key.order_in_run(&a.key));
            found.dedup_by(|(a, _), (b, _)| a.task.id.is_same_document(&b.task.id));
            found.truncate(wanted);
        }
        Ok(OfRun { run, found })
    }

    /// Reads the tasks of one run and one way until there are enough tasks, or no more documents.
    async fn run_of(
        &self,
        session: &mut ClientSession,
        way: &Way,
        run: Run,
        filter: &Document,
        after: &Cursor,
        wanted: usize,
    ) -> Result<Vec<(Listed, Option<Place>)>, StoreError> {
        let mut found = Vec::new();
        let mut place = run.find(&after.places).cloned();
        let mut usable = None;
        for _ in 0..MOST_READS {
            let mut conditions = vec![filter.clone()];
            conditions.extend(usable.clone());
            conditions.extend(place.as_ref().and_then(|place| run.after(place)));
            let asked = wanted - found.len();
            let documents = self.find(session, way, &conditions, Some(run.order()), asked).await?;
            for document in &documents {
                let Ok(task) = meaning::task(document, &self.store.config.default_org) else {
                    usable.get_or_insert_with(has_usable_id);
                    continue;
                };
                place = place_of(run, document, &task.id);
                if (self.passes)(&task) {
                    found.push((Listed { key: Key::of(document), task }, place.clone()));
                }
            }
            if found.len() == wanted || documents.len() < asked {
                break;
            }
        }
        Ok(found)
    }

    async fn has_any(&self, session: &mut ClientSession, condition: &Document) -> Result<bool, StoreError> {
        for way in &self.ways {
            if !self.find(session, way, std::slice::from_ref(condition), None, 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads documents without their timelines.
    async fn find(
        &self,
        session: &mut ClientSession,
        way: &Way,
        conditions: &[Document],
        order: Option<Document>,
        limit: usize,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let mut hint = self.store.hints.of(way.index);
        loop {
            match self.find_with(session, way, conditions, order.clone(), limit, hint.clone()).await {
                Err(error) if self.store.hints.is_gone(&mut hint, &error) => {}
                found => return found.map_err(store_error),
            }
        }
    }

    async fn find_with(
        &self,
        session: &mut ClientSession,
        way: &Way,
        conditions: &[Document],
        order: Option<Document>,
        limit: usize,
        hint: Option<Hint>,
    ) -> Result<Vec<RawDocumentBuf>, Error> {
        let collection = self.store.snapshot_collection().await.map_err(Error::custom)?;
        let batch = u32::try_from(limit).unwrap_or(u32::MAX);
        let all: Vec<Document> = self.conditions.iter().chain(conditions).cloned().collect();
        let mut find = collection
            .find(way.with(&all))
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
        answer(async { find.session(&mut *session).await?.stream(&mut *session).try_collect().await }).await
    }

    fn checked(&self, documents: &[RawDocumentBuf]) -> Vec<Listed> {
        let tasks = documents.iter().filter_map(|document| {
            let task = meaning::task(document, &self.store.config.default_org);
            let task = task.inspect_err(|error| rate_limited_log!(warn, %error, "a task was left out of a list: its document can't be read")).ok()?;
            (self.passes)(&task).then(|| Listed { key: Key::of(document), task })
        });
        tasks.collect()
    }
}

/// The counts of a complete list of tasks.
pub(super) fn counted<'a>(listed: impl IntoIterator<Item = &'a Listed>) -> Counts {
    let mut counts = Counts::default();
    for one in listed {
        counts.add(one.task.status().class(), 1);
    }
    counts
}

/// Merges runs: it repeatedly takes the newest of the first tasks of all runs. At equal times, it takes the task of the first run.
fn merge(runs: Vec<OfRun>, wanted: usize) -> Vec<(Listed, Option<Place>)> {
    let mut runs: Vec<_> =
        runs.into_iter().map(|OfRun { run, found }| (run, found.into_iter().peekable())).collect();
    let mut merged = Vec::new();
    while merged.len() < wanted {
        let first = runs
            .iter_mut()
            .filter_map(|(run, found)| {
                let millis = found.peek()?.0.key.millis;
                Some((millis, std::cmp::Reverse(*run), found))
            })
            .max_by_key(|(millis, run, _)| (*millis, *run));
        let Some(one) = first.and_then(|(_, _, found)| found.next()) else { break };
        merged.push(one);
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
    let plan = answer(explain).await.map_err(store_error)?;
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
