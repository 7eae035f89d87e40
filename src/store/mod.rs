//! Where tasks live: one trait, two stores, one conformance suite for both (`tests/it/store.rs`).

mod embedded;
mod mongo;
mod query;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    feed::FeedItem,
    task::{Answers, FullTask, NewTask, TaskId, TaskPatch, Viewer},
};

pub use embedded::{EmbeddedConfig, EmbeddedStore};
pub use mongo::{Images, MongoConfig, MongoProbe, MongoStore};
pub use query::{Cursor, DashboardSnapshot, InvalidCursor, Page, TaskFilter, TaskSnapshot};

/// Where tasks live. Every read is a snapshot that knows its position; every write comes back through the feed.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// `"mongodb"` or `"embedded"`, for `/api/health`.
    fn kind(&self) -> &'static str;

    /// Makes the store ready: checks that it can give exact history, ensures images and indexes.
    /// To be repeated while it says [`StoreError::Unavailable`].
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Whether it answers right now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Follows the store into `items` until `stop`, reconnecting by itself. Starts as far back as is cheap (at
    /// most some minutes), so that a client that was away during a restart can be replayed to.
    ///
    /// Returns `Ok` when stopped or when the receiver is gone, an error only for what can't mend itself.
    async fn follow(&self, items: mpsc::Sender<FeedItem>, stop: CancellationToken) -> Result<(), StoreError>;

    /// Gives back what is held on a server, as the last thing: the store is of no use afterwards.
    async fn close(&self) {}

    /// A task as a snapshot. Not filtered by who asks: the caller checks.
    async fn task(&self, id: &TaskId) -> Result<TaskSnapshot, StoreError>;

    /// The newest `limit` tasks that `viewer` may see, newest first, with its counts, all at one position.
    async fn dashboard(&self, viewer: &Viewer, limit: usize) -> Result<DashboardSnapshot, StoreError>;

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
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Passing: worth another try.
    #[error("the store can't be reached: {0}")]
    Unavailable(String),
    /// Needs a person; the text says what to do.
    #[error("{0}")]
    Unusable(String),
    /// A document that can't be read as a task.
    #[error("a document can't be read as a task: {0}")]
    Document(#[from] crate::task::DocumentError),
}

impl StoreError {
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_))
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
