//! The [`Store`] trait, through which taskcast reads and writes tasks. Two stores implement it, and both pass one
//! conformance suite (`tests/it/store.rs`).

mod activity;
mod batched_reads;
mod coalescer;
mod embedded;
mod error;
mod measured;
mod mongo;
mod query;
mod write_request;

use std::{collections::HashMap, slice, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    feed::FeedItem,
    github::Delivery,
    task::{Answers, FullTask, NewTask, OrgId, TaskId, TaskPatch, UserId, Viewer, Window},
};

pub use activity::{
    ActivityStore, AppendError, Appended, EventBatch, EventPage, EventQuery, NewEvent, RetentionLimits,
};
pub use batched_reads::BatchedReads;
pub use coalescer::Answered;
pub use embedded::{EmbeddedConfig, EmbeddedStore};
pub use error::{StoreError, WriteError};
pub use measured::MeasuredStore;
#[cfg(any(test, fuzzing))]
pub(crate) use mongo::decode_change;
pub use mongo::{Images, MongoConfig, MongoProbe, MongoStore, UriError};
use query::RunCursor;
pub use query::{AccessSnapshot, Cursor, DashboardSnapshot, InvalidCursor, Page, TaskFilter, TaskSnapshot};
pub use write_request::{
    EarlierWrite, KEY_HOURS, TaskWrite, WriteKey, WriteOutcome, WriteRequest, WrittenTask,
};

/// A store of tasks. Snapshots of tasks and dashboards have a position. Every write comes back through the feed.
///
/// Clients' requests read single tasks and dashboards through [`BatchedReads`]. The ids or users of one read are all different.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// `"mongodb"` or `"embedded"`, for `/api/health`.
    fn kind(&self) -> &'static str;

    /// Prepares the store: checks that it can give exact history, and ensures images and indexes.
    /// The caller repeats the call while it returns [`StoreError::Unavailable`]. Any other error is final.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Checks that the store answers right now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Sends the changes of the store to `items` until `stop`, and reconnects by itself. The feed starts as far back as is
    /// cheap, so that a client that was disconnected during a restart can get the events that it missed.
    ///
    /// Returns `Ok` when it is stopped or when the receiver is dropped, and an error only when a retry can't help.
    async fn follow(&self, items: mpsc::Sender<FeedItem>, stop: CancellationToken) -> Result<(), StoreError>;

    /// The state of the change stream. `None` means that the store has none.
    fn stream(&self) -> Option<ChangeStreamStatus> {
        None
    }

    /// How often an id was requested that two documents share: their ids have different types but the same text.
    fn ambiguous_ids(&self) -> u64 {
        0
    }

    /// How far back the change stream can resume. `None` means that there is no limit or that it is not known.
    async fn oplog_window(&self) -> Option<Duration> {
        None
    }

    /// Releases what the store holds outside this process. The caller does not use the store afterwards.
    async fn close(&self);

    /// Snapshots of who may see these tasks, all at one position. The read takes the same time for a missing task and for a large one,
    /// so that an answer made from it alone does not reveal whether the task exists.
    async fn accesses(&self, ids: &[TaskId]) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError>;

    /// Snapshots of tasks for viewers that [`Store::accesses`] allows to see them, with only the timeline entries in `window`. The
    /// callers check the access again. If there are several tasks, the answer may be incomplete: a task that is too large to be read with the others, or that
    /// can't be read, is left out. A single task is never left out.
    async fn task_parts(
        &self,
        ids: &[TaskId],
        window: Window,
    ) -> Result<HashMap<TaskId, TaskSnapshot>, StoreError>;

    /// The dashboards of users of one organisation, or of users without one. A dashboard has the newest `limit` tasks that the user may
    /// see, newest first, and the user's counts. All are at one position. Users that see the same tasks may share one snapshot.
    async fn dashboards(
        &self,
        org: Option<&OrgId>,
        users: &[UserId],
        limit: usize,
    ) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError>;

    /// The same as [`Store::accesses`] for one task.
    async fn access(&self, id: &TaskId) -> Result<AccessSnapshot, StoreError> {
        self.accesses(slice::from_ref(id)).await?.remove(id).ok_or_else(StoreError::not_answered)
    }

    /// The whole task.
    async fn task(&self, id: &TaskId) -> Result<TaskSnapshot, StoreError> {
        self.task_part(id, Window::ALL).await
    }

    /// The same as [`Store::task_parts`] for one task.
    async fn task_part(&self, id: &TaskId, window: Window) -> Result<TaskSnapshot, StoreError> {
        self.task_parts(slice::from_ref(id), window).await?.remove(id).ok_or_else(StoreError::not_answered)
    }

    /// The same as [`Store::dashboards`] for one user.
    async fn dashboard(&self, viewer: &Viewer, limit: usize) -> Result<Arc<DashboardSnapshot>, StoreError> {
        let users = slice::from_ref(&viewer.user);
        let mut found = self.dashboards(viewer.org.as_ref(), users, limit).await?;
        found.remove(&viewer.user).ok_or_else(StoreError::not_answered)
    }

    /// One page of the tasks that `viewer` may see, newest first.
    async fn list(
        &self,
        viewer: &Viewer,
        filter: &TaskFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Makes a write of the HTTP API, durably. The key of the request and the write are stored together or not at all.
    ///
    /// - A new task has the status `received`.
    /// - Answers are stored if the task has the status `needs_clarification`, and the user can see it.
    /// - A patch changes a task that the user may write ([`Access::writable_by`](crate::task::Access::writable_by)). A task can't
    ///   leave the status `merged`, and can't return to `received`.
    async fn write(&self, request: WriteRequest) -> Result<WriteOutcome, WriteError>;

    /// Creates a task by [`Store::write`].
    async fn create(
        &self,
        task: NewTask,
        creator: &Viewer,
        creator_name: Option<&str>,
    ) -> Result<FullTask, StoreError> {
        let write = TaskWrite::Create { task, creator_name: creator_name.map(str::to_owned) };
        match self.write_unconditionally(creator, write).await {
            Ok(task) => Ok(task),
            Err(WriteError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::Unusable(error.to_string())),
        }
    }

    /// Stores answers by [`Store::write`].
    async fn clarify(&self, id: &TaskId, viewer: &Viewer, answers: Answers) -> Result<FullTask, WriteError> {
        self.write_unconditionally(viewer, TaskWrite::Clarify { id: id.clone(), answers }).await
    }

    /// Changes a task by [`Store::write`].
    async fn patch(&self, id: &TaskId, writer: &Viewer, patch: TaskPatch) -> Result<FullTask, WriteError> {
        self.write_unconditionally(writer, TaskWrite::Patch { id: id.clone(), patch }).await
    }

    /// Makes a write without a key and without a condition.
    async fn write_unconditionally(&self, by: &Viewer, write: TaskWrite) -> Result<FullTask, WriteError> {
        let outcome = self.write(WriteRequest::new(by.clone(), write)).await?;
        outcome.into_written().map(|written| written.task).ok_or(WriteError::NotFound)
    }

    /// Writes the effect of a delivery into the task that it is about, together with a mark that it was applied. A repeated
    /// delivery, even a concurrent one, therefore has one effect. The mark is kept for [`DELIVERY_DAYS`].
    async fn deliver(&self, delivery: Delivery) -> Result<Delivered, WriteError>;
}

/// How many days a delivery is remembered. GitHub allows a delivery to be repeated for three days.
pub const DELIVERY_DAYS: u64 = 14;

/// The result of a delivery. [`Written`](Self::Written) and [`Duplicate`](Self::Duplicate) are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    Written(TaskId),
    /// The delivery was applied before.
    Duplicate,
    /// The delivery matches no task. It is not remembered, because a task may match when GitHub delivers it again.
    NoTask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeStreamStatus {
    /// How often the change stream has broken off.
    pub restarts: u64,
    /// The age of the resume token.
    pub token_age: Option<Duration>,
    /// All changes that were committed longer ago than this have been read. Zero while the stream keeps up.
    pub lag: Duration,
}
