//! Makes the writes of the HTTP API: checks their keys and conditions, and who makes them.

use redb::ReadableTable;

use super::{
    database::Fault,
    record::{self, Document},
    transaction::Tables,
};
use crate::{
    feed::Position,
    store::{TaskWrite, WriteError, WriteOutcome, WriteRequest, WrittenTask},
    task::{Access, Answers, Status, Task, TaskId, TaskPatch, Timestamp, Writes},
};

impl Tables<'_> {
    /// Makes the write of a request, and remembers its key.
    pub(super) fn write(
        &mut self,
        request: WriteRequest,
        now: Timestamp,
    ) -> Result<Result<WriteOutcome, WriteError>, Fault> {
        let WriteRequest { by, write, key, unchanged_since } = request;
        if let Some(key) = &key {
            match self.keys.find(key, now)? {
                Ok(None) => {}
                Ok(Some(earlier)) => return Ok(Ok(WriteOutcome::Repeated(earlier))),
                Err(error) => return Ok(Err(error)),
            }
        }
        let made = match write {
            TaskWrite::Create { task, creator_name } => {
                let id = self.unused_id()?;
                let writes = task.writes(&by, creator_name.as_deref(), now);
                Ok(self.write_document(&id, None, writes, now)?)
            }
            TaskWrite::Clarify { id, answers } => self.edit(
                &id,
                unchanged_since,
                now,
                |access| access.allows(&by),
                |task, _| clarify(answers, task, now),
            )?,
            TaskWrite::Patch { id, patch: writes } => self.edit(
                &id,
                unchanged_since,
                now,
                |access| access.writable_by(&by),
                |task, document| patch(writes, document, task, now),
            )?,
        };
        let (task, event_id) = match made {
            Ok(made) => made,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(key) = &key {
            self.keys.insert(key, &task.id, event_id, now)?;
        }
        let task = self.with_timeline(task)?;
        Ok(Ok(WriteOutcome::Written(Box::new(WrittenTask { task, event_id }))))
    }

    /// Changes a task as `decide` says, and returns the same as [`Self::write_document`].
    fn edit(
        &mut self,
        id: &TaskId,
        unchanged_since: Option<Position>,
        now: Timestamp,
        is_allowed: impl Fn(&Access) -> bool,
        decide: impl FnOnce(&Task, &Document) -> Result<Writes, WriteError>,
    ) -> Result<Result<(Task, Option<Position>), WriteError>, Fault> {
        let before = match self.tasks.get(id.as_str())? {
            Some(bytes) if is_allowed(&record::access(bytes.value(), self.default_org)?) => {
                record::decode(bytes.value())?
            }
            _ => return Ok(Err(WriteError::NotFound)),
        };
        if let Some(since) = unchanged_since
            && !self.last_changes.is_unchanged(id, since, self.sequence)?
        {
            return Ok(Err(WriteError::Changed));
        }
        let task = record::task(before.clone(), self.default_org)?;
        match decide(&task, &before) {
            Ok(writes) => Ok(Ok(self.write_document(id, Some((before, task)), writes, now)?)),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// Returns what the answers write, or a conflict if the status of the task does not allow them.
fn clarify(answers: Answers, task: &Task, now: Timestamp) -> Result<Writes, WriteError> {
    match task.status() {
        Status::NeedsClarification => Ok(answers.writes(now)),
        current => Err(WriteError::Conflict(format!(
            "answers can be given only while the status is needs_clarification; it is {current}"
        ))),
    }
}

/// Returns what a patch writes, or a conflict if the status of the task does not allow it.
fn patch(patch: TaskPatch, document: &Document, task: &Task, now: Timestamp) -> Result<Writes, WriteError> {
    let current = task.status();
    match patch.status() {
        Some(next) if !patch.allowed_from(current) => {
            Err(WriteError::Conflict(format!("a task that is {current} can't be moved to {next}")))
        }
        _ => Ok(patch.writes(|name| record::has(document, name), now)),
    }
}
