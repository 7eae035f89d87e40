//! Finds the position of a write that was just made: the `eventId` of its answer.
//!
//! MongoDB reports the cluster time of a write as the operation time of its reply. The driver may repeat a request after a failure of the
//! network. MongoDB then reports a later time, because the write was made before. A read of the moment directly before the reported time
//! therefore checks that the write was not made yet at that moment. If it was, the write is searched in the change stream. ADR 40 has the
//! reasons.

use std::time::Instant;

use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc};

use super::{
    MongoStore,
    decode::{self, Decoded},
    failure::{REQUEST_TIMEOUT, store_error, with_timeout, with_timeout_of},
    keys::{number, timestamp},
    pipeline::pipeline,
    read,
    select::{exactly, fields_without_entries},
    stream_cursor::{Batch, first_batch_of},
    task_document,
};
use crate::{
    feed::{Change, Position, TimelineChange, last_room_event},
    store::StoreError,
    task::{Field, FullTask, Task, Timestamp as Time, Window, Writes},
};

/// The search for a repeated write begins this many seconds before the write began.
const SEARCH_MARGIN_SECONDS: u64 = 2;
/// At most this many changes of one task are searched.
const MAX_SEARCHED: i32 = 500;

/// A write of one document.
pub(super) struct MadeWrite {
    /// When this node began the write.
    pub(super) began: Instant,
    /// The condition on `_id` that only this document fulfils.
    pub(super) id_condition: Document,
    /// The task before the write, and the length of its timeline.
    pub(super) before: Before,
    pub(super) after: FullTask,
    /// How many entries the write has appended to the timeline.
    pub(super) added: usize,
}

/// What is known of the task before a write.
pub(super) enum Before {
    /// Exactly the task before the write, without its timeline, and the length of the timeline.
    Known(Box<Task>, usize),
    /// The write has changed only these fields.
    Except(Vec<&'static str>),
}

/// The names of the fields that these writes change, and how many entries they append.
pub(super) fn changes_of(writes: &Writes) -> (Vec<&'static str>, usize) {
    (writes.set.iter().map(|(name, _)| *name).collect(), usize::from(writes.push_event.is_some()))
}

/// A task that was read with [`fields_without_entries`], and the length of its timeline.
pub(super) fn without_entries(
    store: &MongoStore,
    document: &RawDocumentBuf,
) -> Result<(Task, usize), StoreError> {
    let read = task_document::windowed_task(document, Window::newest(0), &store.config.default_org)?;
    Ok((read.task, read.older))
}

impl MadeWrite {
    /// The change that this write is, if its cluster time is `time`. It is the only change of its transaction.
    fn change_at(&self, before: &Task, time: u64) -> Change {
        Change {
            position: Position::change(time, 0),
            occurred_at: Time::now(),
            task: self.after.task.id.clone(),
            before: Some(before.clone()),
            after: Some(self.after.task.clone()),
            timeline: self.timeline(),
        }
    }

    fn timeline(&self) -> TimelineChange {
        let start = self.after.timeline.len().saturating_sub(self.added);
        TimelineChange::appended(self.after.timeline.get(start..).unwrap_or_default().to_vec())
    }

    /// The last event of the write in the room of the task, at this cluster time.
    pub(super) fn event_at(&self, before: &Task, time: u64) -> Option<Position> {
        last_room_event(&self.change_at(before, time))
    }

    /// The position of the write, when MongoDB has reported this operation time for it. `None` means that the write causes no event in the
    /// room. It also means that the position could not be found, because MongoDB fails directly after the write.
    pub(super) async fn event_id(&self, store: &MongoStore, reported: Option<Timestamp>) -> Option<Position> {
        let reported = number(reported?);
        if let Before::Known(before, _) = &self.before {
            self.event_at(before, reported)?;
        }
        match self.read_at(store, reported.checked_sub(1)?).await {
            Ok(Some((task, length))) if self.is_before(&task, length) => self.event_at(&task, reported),
            Ok(_) => self.search(store, reported).await,
            Err(error) => {
                tracing::debug!(%error, "the position of a write could not be checked");
                None
            }
        }
    }

    /// Searches the write in the change stream.
    async fn search(&self, store: &MongoStore, reported: u64) -> Option<Position> {
        let seconds = self.began.elapsed().as_secs() + SEARCH_MARGIN_SECONDS;
        let start = timestamp(reported.saturating_sub(seconds << 32));
        let images = doc! {
            "fullDocument": "whenAvailable", "fullDocumentBeforeChange": "whenAvailable", "startAtOperationTime": start,
        };
        let own = doc! {"documentKey._id": self.id_condition.clone()};
        let stages = [doc! {"$changeStream": images}, doc! {"$match": own}].into_iter().chain(pipeline());
        let request = first_batch_of(store, &store.config.collection, stages.collect(), MAX_SEARCHED);
        match with_timeout_of(REQUEST_TIMEOUT, request).await {
            Ok(batch) => batch.and_then(|batch| self.find_in(store, &batch)),
            Err(error) => {
                tracing::debug!(?error, "the position of a write could not be searched");
                None
            }
        }
    }

    fn find_in(&self, store: &MongoStore, batch: &Batch) -> Option<Position> {
        let is_own = |change: &Change| {
            let fits = match &self.before {
                Before::Known(before, _) => change.before.as_ref() == Some(&**before),
                Before::Except(_) => true,
            };
            fits && change.after.as_ref() == Some(&self.after.task) && change.timeline == self.timeline()
        };
        batch.changes()?.into_iter().find_map(|event| {
            let event = event.ok()?.as_document()?;
            let position = Position::change(decode::cluster_time(event)?, 0);
            match decode::decode(event, position, &store.config.default_org) {
                Decoded::Change(change) if is_own(&change) => last_room_event(&change),
                _ => None,
            }
        })
    }

    async fn read_at(&self, store: &MongoStore, time: u64) -> Result<Option<(Task, usize)>, StoreError> {
        let collection = store.snapshot_collection().await?;
        let mut session = read::snapshot(store, Some(timestamp(time))).await?;
        let filter = doc! {"_id": self.id_condition.clone()};
        let find = collection.find_one(filter).projection(fields_without_entries());
        let found = with_timeout(find.collation(exactly()).session(&mut session)).await;
        found.map_err(store_error)?.map(|document| without_entries(store, &document)).transpose()
    }

    /// Returns whether this can be the task directly before the write.
    fn is_before(&self, task: &Task, length: usize) -> bool {
        match &self.before {
            Before::Known(before, known_length) => **before == *task && *known_length == length,
            Before::Except(names) => {
                let is_written =
                    |field: &Field| field.document_names().iter().any(|name| names.contains(name));
                let same = |field: &Field| task.get(*field) == self.after.task.get(*field);
                // If the task is the same as after the write, the write was made before, or it has changed nothing.
                let is_after = self.added == 0 && *task == self.after.task;
                !is_after
                    && length + self.added == self.after.timeline.len()
                    && Field::ALL.iter().all(|field| is_written(field) || same(field))
            }
        }
    }
}
