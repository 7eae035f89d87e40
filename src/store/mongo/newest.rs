//! Reads of many tasks: the newest of those that a filter lets through, and how many there are.
//!
//! What a filter lets through is checked once more. Nothing is derived from what does not pass.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Document, RawDocumentBuf, Timestamp, doc},
    error::Error,
};

use super::{
    MongoStore,
    failure::{answer, store_error},
    meaning,
    read::{snapshot, snapshot_time},
    runs::{Key, Run, has_other_time, newest, place_of},
    select::{COUNTED, Ways, counted_as, exactly, visible_fields},
};
use crate::{
    seldom::seldom,
    store::{Cursor, Place, StoreError},
    task::{Counts, Task},
};

/// How often more is read for a page because what was found did not pass the check.
const MOST_READS: usize = 20;

/// A task with its place among others.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) key: Key,
    pub(super) task: Task,
}

/// What is looked for in a list.
pub(super) struct Looked<'a> {
    pub(super) store: &'a MongoStore,
    pub(super) ways: Ways,
    pub(super) conditions: Vec<Document>,
    /// The check of what the filter says.
    pub(super) passes: &'a (dyn Fn(&Task) -> bool + Sync),
}

/// Tasks of one run, in its order.
struct OfRun {
    run: Run,
    found: Vec<(Listed, Option<Place>)>,
}

impl Looked<'_> {
    /// The newest tasks at one moment, and whether these are all.
    pub(super) async fn newest(
        &self,
        session: &mut ClientSession,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool), StoreError> {
        // For MongoDB, 0 is without limit, and a snapshot time is wanted all the same.
        let asked = limit.max(1);
        let documents = self.find(session, &[], Some(newest()), asked).await?;
        let mut listed = self.checked(&documents);
        if documents.len() < asked {
            listed.sort_by(|a, b| b.key.cmp(&a.key));
            let is_all = listed.len() <= limit;
            listed.truncate(limit);
            return Ok((listed, is_all));
        }
        // In the order of the index, if nothing else than dates has a time.
        let are_dates = documents.iter().all(|document| Run::of(document) == Run::Dates);
        if listed.len() < asked || !are_dates || self.has_other_times(session).await? {
            listed = self.page(session, &Cursor::default(), limit).await?.0;
        }
        listed.truncate(limit);
        Ok((listed, false))
    }

    /// All tasks in no order, if they are fewer than `most`.
    pub(super) async fn all(
        &self,
        session: &mut ClientSession,
        most: usize,
    ) -> Result<Option<Vec<Listed>>, StoreError> {
        let documents = self.find(session, &[], None, most).await?;
        Ok((documents.len() < most).then(|| self.checked(&documents)))
    }

    /// The tasks after a place, and the place after them if there are more.
    pub(super) async fn page(
        &self,
        session: &mut ClientSession,
        after: &Cursor,
        limit: usize,
    ) -> Result<(Vec<Listed>, Option<Cursor>), StoreError> {
        // One more than asked for tells whether there is a next page.
        let wanted = limit.saturating_add(1);
        let mut dated = vec![self.run(session, Run::Dates, after, wanted).await?];
        if self.has_other_times(session).await? {
            for run in Run::DATED.into_iter().skip(1) {
                dated.push(self.run(session, run, after, wanted).await?);
            }
        }
        let mut merged = merge(dated, wanted);
        for run in Run::UNDATED {
            if merged.len() < wanted {
                let rest = wanted - merged.len();
                merged.extend(merge(vec![self.run(session, run, after, rest).await?], rest));
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

    /// Reads on until there are enough tasks, or no more.
    async fn run(
        &self,
        session: &mut ClientSession,
        run: Run,
        after: &Cursor,
        wanted: usize,
    ) -> Result<OfRun, StoreError> {
        let mut found = Vec::new();
        let mut place = run.find(&after.places).cloned();
        for _ in 0..MOST_READS {
            let mut conditions = vec![run.filter()];
            conditions.extend(place.as_ref().and_then(|place| run.after(place)));
            let asked = wanted - found.len();
            let documents = self.find(session, &conditions, Some(run.order()), asked).await?;
            for document in &documents {
                let Ok(task) = meaning::task(document, &self.store.config.default_org) else { continue };
                place = place_of(run, document, &task.id);
                if (self.passes)(&task) {
                    found.push((Listed { key: Key::of(document), task }, place.clone()));
                }
            }
            if found.len() == wanted || documents.len() < asked || place.is_none() {
                break;
            }
        }
        Ok(OfRun { run, found })
    }

    async fn has_other_times(&self, session: &mut ClientSession) -> Result<bool, StoreError> {
        Ok(!self.find(session, &[has_other_time()], None, 1).await?.is_empty())
    }

    /// Without their timelines.
    async fn find(
        &self,
        session: &mut ClientSession,
        conditions: &[Document],
        order: Option<Document>,
        limit: usize,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let collection = self.store.snapshot_collection().await?;
        let batch = u32::try_from(limit).unwrap_or(u32::MAX);
        let all: Vec<Document> = self.conditions.iter().chain(conditions).cloned().collect();
        let mut find = collection
            .find(self.ways.with(&all))
            .limit(i64::from(batch))
            .batch_size(batch)
            .projection(visible_fields())
            .collation(exactly());
        if let Some(order) = order {
            find = find.sort(order);
        }
        answer(async { find.session(&mut *session).await?.stream(&mut *session).try_collect().await })
            .await
            .map_err(store_error)
    }

    fn checked(&self, documents: &[RawDocumentBuf]) -> Vec<Listed> {
        let tasks = documents.iter().filter_map(|document| {
            let task = meaning::task(document, &self.store.config.default_org);
            let task = task.inspect_err(|error| seldom!(warn, %error, "left out of a list")).ok()?;
            (self.passes)(&task).then(|| Listed { key: Key::of(document), task })
        });
        tasks.collect()
    }

    /// How many there are at a moment.
    pub(super) async fn counts(&self, time: Timestamp) -> Result<Counts, StoreError> {
        let collection = self.store.snapshot_collection().await?;
        let mut session = snapshot(self.store, Some(time)).await?;
        let pipeline = [
            doc! {"$match": self.ways.with(&self.conditions)},
            doc! {"$group": {"_id": counted_as(), "n": {"$sum": 1}}},
        ];
        let groups: Result<Vec<Document>, Error> = answer(async {
            let counted = collection.aggregate(pipeline).collation(exactly()).session(&mut session);
            counted.await?.stream(&mut session).try_collect().await
        })
        .await;
        let mut counts = Counts::default();
        for group in groups.map_err(store_error)? {
            let number = |name| {
                group.get_i64(name).or_else(|_| group.get_i32(name).map(i64::from)).unwrap_or_default()
            };
            let class = usize::try_from(number("_id")).ok().and_then(|index| COUNTED.get(index));
            if let Some(class) = class {
                counts.add(*class, u64::try_from(number("n")).unwrap_or(0));
            }
        }
        Ok(counts)
    }

    /// A session, and the moment that it sees, with the newest tasks and how many there are.
    pub(super) async fn counted(
        &self,
        time: Option<Timestamp>,
        limit: usize,
    ) -> Result<(Vec<Listed>, Counts, Timestamp), StoreError> {
        let mut session = snapshot(self.store, time).await?;
        let (listed, is_all) = self.newest(&mut session, limit).await?;
        let time = snapshot_time(&session)?;
        let counts = if is_all { counted(&listed) } else { self.counts(time).await? };
        Ok((listed, counts, time))
    }
}

/// Of tasks that are all there are.
pub(super) fn counted<'a>(listed: impl IntoIterator<Item = &'a Listed>) -> Counts {
    let mut counts = Counts::default();
    for one in listed {
        counts.add(one.task.status().class(), 1);
    }
    counts
}

/// Always the newest of those that are the first of their runs; of several, that of the first run.
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
