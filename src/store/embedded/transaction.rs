//! Applies writes to the tables.

use std::cell::Cell;

use mongodb::bson::oid::ObjectId;
use redb::{ReadableTable, Table, WriteTransaction};
use serde_json::Value;

use super::{
    activity,
    database::{DELIVERIES, Fault, LAST_SEQUENCE, LOG, LOG_BYTES, META, TASKS, TIMELINE},
    facts::Facts,
    index::Index,
    keys::Keys,
    last_changes::{CHANGES_SEQUENCE, LastChanges},
    migrate::INDEXED_SEQUENCE,
    ranges::Indexed,
    read,
    record::{self, Document, LogEntry},
    write::{Outcome, Write, Written},
};
use crate::{
    feed::{self, Position},
    github::{Delivery, Lookup, Search},
    store::{DELIVERY_DAYS, Delivered},
    task::{DefaultOrg, FullTask, Task, TaskId, Timestamp, Window, Writes},
};

/// How much history the log keeps. A new follower starts at its oldest entry.
const MAX_LOG_ENTRIES: u64 = 10_000;
const MAX_LOG_BYTES: u64 = 64 << 20;
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// All tables, open for writing.
pub(super) struct Tables<'txn> {
    pub(super) tasks: Table<'txn, &'static str, &'static [u8]>,
    timeline: Table<'txn, (&'static str, u64), &'static [u8]>,
    log: Table<'txn, u64, &'static [u8]>,
    meta: Table<'txn, &'static str, u64>,
    deliveries: Table<'txn, (u64, &'static str), ()>,
    facts: Facts<'txn>,
    activity: activity::Log<'txn>,
    pub(super) keys: Keys<'txn>,
    pub(super) last_changes: LastChanges<'txn>,
    index: Index<'txn>,
    /// How many documents were read to find the tasks of deliveries.
    pub(super) documents_read: Cell<usize>,
    /// The number of the last change.
    pub(super) sequence: u64,
    log_bytes: u64,
    pub(super) default_org: &'txn DefaultOrg,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction, default_org: &'txn DefaultOrg) -> Result<Self, Fault> {
        let meta = txn.open_table(META)?;
        let number = |name| Ok::<_, Fault>(meta.get(name)?.map_or(0, |number| number.value()));
        let (sequence, log_bytes) = (number(LAST_SEQUENCE)?, number(LOG_BYTES)?);
        Ok(Self {
            tasks: txn.open_table(TASKS)?,
            timeline: txn.open_table(TIMELINE)?,
            log: txn.open_table(LOG)?,
            deliveries: txn.open_table(DELIVERIES)?,
            facts: Facts::open(txn)?,
            activity: activity::Log::open(txn, &meta)?,
            keys: Keys::open(txn)?,
            last_changes: LastChanges::open(txn, &meta)?,
            index: Index::open(txn)?,
            documents_read: Cell::default(),
            meta,
            sequence,
            log_bytes,
            default_org,
        })
    }

    /// Returns the outcome of each write, the number of the last change, and whether there is anything to commit.
    pub(super) fn apply(mut self, writes: Vec<Write>) -> Result<(Vec<Outcome>, u64, bool), Fault> {
        let before = self.sequence;
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let now = Timestamp::now();
            outcomes.push(match write {
                Write::Request(request) => self.write(*request, now)?.map(Written::Request),
                Write::Deliver(delivery) => Ok(Written::Delivery(self.deliver(&delivery, now)?)),
                Write::Append(batch) => {
                    let appended = self.activity.append(*batch, now, &self.tasks, self.default_org)?;
                    Ok(Written::Appended(appended))
                }
                Write::Prune(limits) => Ok(Written::Pruned(self.activity.prune(limits)?)),
            });
        }
        self.trim_log()?;
        self.meta.insert(LAST_SEQUENCE, self.sequence)?;
        self.meta.insert(INDEXED_SEQUENCE, self.sequence)?;
        self.meta.insert(CHANGES_SEQUENCE, self.sequence)?;
        self.meta.insert(LOG_BYTES, self.log_bytes)?;
        let changed = self.sequence != before || self.facts.has_new_facts() || self.activity.has_changed;
        self.activity.finish(&mut self.meta)?;
        Ok((outcomes, self.sequence, changed))
    }

    fn deliver(&mut self, delivery: &Delivery, now: Timestamp) -> Result<Delivered, Fault> {
        let today = u64::try_from(now.millis()).unwrap_or_default() / DAY_MILLIS;
        for day in today.saturating_sub(DELIVERY_DAYS)..=today {
            if self.deliveries.get((day, delivery.id.as_str()))?.is_some() {
                return Ok(Delivered::Duplicate);
            }
        }
        let delivery = &self.facts.store_facts_and_extend_search(delivery, now)?;
        let Some((document, task)) = self.find_task(&delivery.search)? else { return Ok(Delivered::NoTask) };
        let id = task.id.clone();
        let writes = delivery.writes(&task, &document, now);
        self.write_document(&id, Some((document, task)), writes, now)?;
        self.deliveries.insert((today, delivery.id.as_str()), ())?;
        self.forget_deliveries(today.saturating_sub(DELIVERY_DAYS))?;
        Ok(Delivered::Written(id))
    }

    /// The task that a delivery is about, with its document. If a lookup finds several tasks, the first one that the
    /// criterion matches is the best match.
    pub(super) fn find_task(&self, search: &Search) -> Result<Option<(Document, Task)>, Fault> {
        for criterion in &search.criteria {
            let mut candidates = Vec::new();
            for lookup in criterion.lookups() {
                let candidate = |id: &str| {
                    Ok::<_, Fault>(self.read_document(id)?.filter(|(_, task)| criterion.matches(task)))
                };
                match lookup {
                    Lookup::Id(id) => candidates.extend(candidate(id.as_str())?),
                    Lookup::Text(text) => {
                        for id in self.index.task_ids(&text)? {
                            if let Some(found) = candidate(&id?)? {
                                candidates.push(found);
                                break;
                            }
                        }
                    }
                }
            }
            let tasks: Vec<&Task> = candidates.iter().map(|(_, task)| task).collect();
            if let Some(id) = search.choose(&tasks).map(|task| task.id.clone()) {
                return Ok(candidates.into_iter().find(|(_, task)| task.id == id));
            }
        }
        Ok(None)
    }

    /// Returns `None` if there is no such task, or if its document can't be read as a task.
    fn read_document(&self, id: &str) -> Result<Option<(Document, Task)>, Fault> {
        self.documents_read.update(|read| read + 1);
        let Some(bytes) = self.tasks.get(id)? else { return Ok(None) };
        let Ok(document) = record::decode(bytes.value()) else { return Ok(None) };
        let task = record::task(document.clone(), self.default_org).ok();
        Ok(task.filter(|task| task.id.as_str() == id).map(|task| (document, task)))
    }

    fn forget_deliveries(&mut self, before: u64) -> Result<(), Fault> {
        while self.deliveries.first()?.is_some_and(|(key, _)| key.value().0 < before) {
            self.deliveries.pop_first()?;
        }
        Ok(())
    }

    /// Writes a document and its log entry. Returns the task, and the position of the last event in its room.
    pub(super) fn write_document(
        &mut self,
        id: &TaskId,
        before: Option<(Document, Task)>,
        writes: Writes,
        now: Timestamp,
    ) -> Result<(Task, Option<Position>), Fault> {
        let indexed_before =
            before.as_ref().and_then(|(document, task)| Indexed::of(id.as_str(), task, document));
        let before = before.map(|(document, _)| document);
        let mut after = before.clone().unwrap_or_else(|| record::new_document(id));
        for (name, value) in writes.set {
            record::assign(&mut after, name, value);
        }
        // A new document has an empty timeline. Timeline entries are in their own table.
        after.shift_remove("events");
        self.tasks.insert(id.as_str(), &*serde_json::to_vec(&after)?)?;
        let added: Vec<Value> = writes.push_event.map(record::event).into_iter().collect();
        for entry in &added {
            let entry_index = read::length(&self.timeline, id)?;
            self.timeline.insert((id.as_str(), entry_index), &*serde_json::to_vec(entry)?)?;
        }
        let task = record::task(after.clone(), self.default_org)?;
        let indexed = Indexed::of(id.as_str(), &task, &after);
        self.index.update(indexed_before.as_ref(), indexed.as_ref())?;
        let entry = LogEntry { at: now.millis(), before, after, added };
        self.append_log(&entry)?;
        let event_id = feed::last_room_event(&entry.into_change(self.sequence, self.default_org)?);
        if event_id.is_some() {
            self.last_changes.changed(id, self.sequence)?;
        }
        Ok((task, event_id))
    }

    /// Adds the whole timeline to a task that is returned to the caller. A delivery returns no task, so it does not read a
    /// long timeline.
    pub(super) fn with_timeline(&self, task: Task) -> Result<FullTask, Fault> {
        read::with_timeline(&self.timeline, task, Window::ALL)
    }

    fn append_log(&mut self, entry: &LogEntry) -> Result<(), Fault> {
        let bytes = serde_json::to_vec(entry)?;
        self.sequence += 1;
        self.log_bytes += bytes.len() as u64;
        self.log.insert(self.sequence, &*bytes)?;
        Ok(())
    }

    /// Removes the oldest entries of the log until it is within its limits. The newest entry always stays.
    fn trim_log(&mut self) -> Result<(), Fault> {
        while let Some((oldest, bytes)) = self.oldest_log_entry()? {
            let entries = self.sequence - oldest + 1;
            if entries <= 1 || (entries <= MAX_LOG_ENTRIES && self.log_bytes <= MAX_LOG_BYTES) {
                break;
            }
            self.log.remove(oldest)?;
            self.log_bytes = self.log_bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    /// The oldest entry's number and size.
    fn oldest_log_entry(&self) -> Result<Option<(u64, u64)>, Fault> {
        let oldest = self.log.first()?;
        Ok(oldest.map(|(key, entry)| (key.value(), entry.value().len() as u64)))
    }

    pub(super) fn unused_id(&self) -> Result<TaskId, Fault> {
        loop {
            if let Some(id) = TaskId::parse(&ObjectId::new().to_hex())
                && self.tasks.get(id.as_str())?.is_none()
            {
                return Ok(id);
            }
        }
    }
}
