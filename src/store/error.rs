//! Why reads and writes of a store fail.

/// Why a store operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A temporary failure: a retry may succeed.
    #[error("the store can't be reached: {0}")]
    Unavailable(String),
    /// The database refuses the user in its settings. At the start this is a mistake in the settings; later the password
    /// may be in rotation. The text says what to do.
    #[error("{0}")]
    Denied(String),
    /// An operator has to act. The text says what to do.
    #[error("{0}")]
    Unusable(String),
    /// A document that can't be read as a task.
    #[error("a document can't be read as a task: {0}")]
    Document(#[from] crate::task::DocumentError),
}

impl StoreError {
    /// Returns whether a retry may succeed, once the store has been prepared.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Denied(_))
    }

    /// A read has not returned what was asked for.
    pub(super) fn not_answered() -> Self {
        Self::Unavailable("a read did not return what was asked for".to_owned())
    }
}

/// Why a write to one task was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The task does not exist, or the caller may not see or write it. Both give the same error.
    #[error("no such task")]
    NotFound,
    #[error("{0}")]
    Conflict(String),
    /// The task has changed after the position that the request names.
    #[error(
        "the task has changed after the eventId of If-Match: read it again, and decide again what to write"
    )]
    Changed,
    /// A request with the same key is being processed.
    #[error("a request with this Idempotency-Key is still being processed: repeat it later")]
    KeyInUse,
    /// An earlier request with the same key had another content.
    #[error("this Idempotency-Key was used for another request: give each request a key of its own")]
    KeyReused,
    #[error(transparent)]
    Store(#[from] StoreError),
}
