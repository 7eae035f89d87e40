//! Where tasks live: one trait, two stores, one conformance suite for both (`tests/it/store.rs`).

mod embedded;
mod measured;
mod mongo;
mod query;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    feed::FeedItem,
    github::Delivery,
    task::{Answers, FullTask, NewTask, TaskId, TaskPatch, Viewer, Window},
};

pub use embedded::{EmbeddedConfig, EmbeddedStore};
pub use measured::MeasuredStore;
#[cfg(any(test, fuzzing))]
pub(crate) use mongo::decode_change;
pub use mongo::{Images, MongoConfig, MongoProbe, MongoStore, UriError};
use query::Place;
pub use query::{AccessSnapshot, Cursor, DashboardSnapshot, InvalidCursor, Page, TaskFilter, TaskSnapshot};

/// Where tasks live. Every read is a snapshot that knows its position; every write comes back through the feed.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// `"mongodb"` or `"embedded"`, for `/api/health`.
    fn kind(&self) -> &'static str;

    /// Makes the store ready: checks that it can give exact history, ensures images and indexes.
    /// To be repeated while it says [`StoreError::Unavailable`]; whatever else it says then is final.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Whether it answers right now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Follows the store into `items` until `stop`, reconnecting by itself. Starts as far back as is cheap (at
    /// most some minutes), so that a client that was away during a restart can be replayed to.
    ///
    /// Returns `Ok` when stopped or when the receiver is gone, an error only for what can't mend itself.
    async fn follow(&self, items: mpsc::Sender<FeedItem>, stop: CancellationToken) -> Result<(), StoreError>;

    /// How its change stream fares; None: it has none.
    fn stream(&self) -> Option<StreamStatus> {
        None
    }

    /// How often it was asked for an id that two documents have, as text, by ids of different types.
    fn ambiguous_ids(&self) -> u64 {
        0
    }

    /// How far back the change stream may go on from; None: without bound, or it is not told.
    async fn oplog_window(&self) -> Option<Duration> {
        None
    }

    /// Gives back what is held elsewhere. Nothing is asked of the store afterwards.
    async fn close(&self);

    /// Who may see a task, as a snapshot. Takes as long whether there is none or a large one, so that an answer
    /// that is made from it alone tells nobody which.
    async fn access(&self, id: &TaskId) -> Result<AccessSnapshot, StoreError>;

    /// A task as a snapshot, for somebody that [`Store::access`] lets see it. Checked again by the caller.
    async fn task(&self, id: &TaskId) -> Result<TaskSnapshot, StoreError> {
        self.task_part(id, Window::ALL).await
    }

    /// The same with those entries of its timeline that `window` means. The others are not brought here.
    async fn task_part(&self, id: &TaskId, window: Window) -> Result<TaskSnapshot, StoreError>;

    /// The newest `limit` tasks that `viewer` may see, newest first, with its counts, all at one position.
    /// Viewers who see the same may be given the same.
    async fn dashboard(&self, viewer: &Viewer, limit: usize) -> Result<Arc<DashboardSnapshot>, StoreError>;

    /// One page of the tasks that `viewer` may see, newest first.
    async fn list(
        &self,
        viewer: &Viewer,
        filter: &TaskFilter,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Creates a task with the status `received`, durably.
    async fn create(
        &self,
        task: NewTask,
        creator: &Viewer,
        creator_name: Option<&str>,
    ) -> Result<FullTask, StoreError>;

    /// Stores answers; only in `needs_clarification`, only for who sees the task.
    async fn clarify(&self, id: &TaskId, viewer: &Viewer, answers: Answers) -> Result<FullTask, WriteError>;

    /// Changes a task ([`Access::writable_by`](crate::task::Access::writable_by)); not out of `merged`, not back
    /// to `received`.
    async fn patch(&self, id: &TaskId, writer: &Viewer, patch: TaskPatch) -> Result<FullTask, WriteError>;

    /// Writes what a delivery says into the task that it is about, together with a mark that it was done: however
    /// often it is delivered, and even at the same time, it has one effect. The mark is kept for [`DELIVERY_DAYS`].
    async fn deliver(&self, delivery: Delivery) -> Result<Delivered, WriteError>;
}

/// How long a delivery is remembered. GitHub offers to deliver again for three days.
pub const DELIVERY_DAYS: u64 = 14;

/// What became of a delivery. [`Written`](Self::Written) and [`Duplicate`](Self::Duplicate) are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    Written(TaskId),
    /// It was done before.
    Duplicate,
    /// No task is meant. Not remembered: there may be one when it is delivered again.
    NoTask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// How often it broke off.
    pub restarts: u64,
    /// How old the place is that it would be resumed from.
    pub token_age: Option<Duration>,
    /// For how long changes may have been committed that it has not read yet. Zero while it reads all in time.
    pub lag: Duration,
}

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Passing: worth another try.
    #[error("the store can't be reached: {0}")]
    Unavailable(String),
    /// The store refuses its user: a mistake of the settings at the start, a rotation under way later. The text
    /// says what to do.
    #[error("{0}")]
    Denied(String),
    /// Needs a person; the text says what to do.
    #[error("{0}")]
    Unusable(String),
    /// A document that can't be read as a task.
    #[error("a document can't be read as a task: {0}")]
    Document(#[from] crate::task::DocumentError),
}

impl StoreError {
    /// Of a store that has been prepared.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Denied(_))
    }
}

/// Why a write to one task was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Absent and forbidden alike.
    #[error("no such task")]
    NotFound,
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}
