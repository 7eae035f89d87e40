//! Transactions: how they begin, are committed and end. `deliver.rs` and `guarded_write.rs` say what they write.
//!
//! A second transaction that writes the same document gets a write conflict. It starts again and then sees the result of the first one.

use std::time::Duration;

use mongodb::{
    ClientSession,
    bson::Timestamp,
    error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{ReadConcern, SessionOptions, WriteConcern},
};
use tokio::time::Instant;

use super::{
    MongoStore,
    failure::{store_error, with_timeout},
};
use crate::{backoff::Backoff, store::StoreError};

pub(super) const DUPLICATE_KEY: i32 = 11000;
/// Between two attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(4), Duration::from_millis(250));
/// Far more attempts than fit into a caller's deadline.
pub(super) const MAX_ATTEMPTS: u32 = 200;
/// MongoDB itself ends a transaction after this time.
const TRANSACTION_LIFETIME: Duration = Duration::from_secs(60);

/// Waits before an attempt. The first attempt has the number 0, and does not wait.
pub(super) async fn pause_before(attempt: u32) {
    if attempt > 0 {
        tokio::time::sleep(BACKOFF.pause_with_jitter(attempt, 0.0..=1.0)).await;
    }
}

/// A session that reports the times of its own operations only, and makes no read wait for an earlier one.
pub(super) async fn session(store: &MongoStore) -> Result<ClientSession, StoreError> {
    let mut options = SessionOptions::default();
    options.causal_consistency = Some(false);
    with_timeout(store.client().await?.start_session().with_options(options)).await.map_err(store_error)
}

/// A session with a transaction that sees one moment.
pub(super) async fn begin(store: &MongoStore) -> Result<ClientSession, StoreError> {
    let mut session = session(store).await?;
    let transaction = session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::majority());
    with_timeout(transaction).await.map_err(store_error)?;
    Ok(session)
}

/// Retries the commit while its result is unknown. Until the result is known, the transaction may be open and block all other writes to the
/// task.
///
/// The caller runs this in a separate task, because a caller that gives up must not leave the transaction open. Returns the operation time
/// of the last attempt. It is the cluster time of the commit, or a later time if the commit was attempted several times.
pub(super) async fn commit(mut session: ClientSession) -> Result<Option<Timestamp>, Error> {
    let deadline = Instant::now() + TRANSACTION_LIFETIME;
    let mut attempt = 0;
    loop {
        match with_timeout(session.commit_transaction()).await {
            Err(error) if is_result_unknown(&error) && Instant::now() < deadline => {
                attempt += 1;
                pause_before(attempt).await;
            }
            result => return result.map(|()| session.operation_time()),
        }
    }
}

/// Returns whether the result of the commit is unknown: MongoDB says so, or the connection failed, or no answer came in time.
fn is_result_unknown(error: &Error) -> bool {
    error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) || matches!(error.kind.as_ref(), ErrorKind::Io(_))
}

/// Aborts the transaction early. The server also aborts it by itself, after an error or when no request continues it.
pub(super) async fn abort(mut session: ClientSession) {
    if let Err(error) = with_timeout(session.abort_transaction()).await {
        tracing::debug!(%error, "a transaction could not be aborted");
    }
}

/// Returns whether another attempt may succeed: another write was faster, or the state of the server has changed.
pub(super) fn is_retryable(error: &Error) -> bool {
    [TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, "RetryableWriteError"]
        .iter()
        .any(|label| error.contains_label(label))
}

/// Returns whether the transaction was certainly not committed.
pub(super) fn was_aborted(error: &Error) -> bool {
    error.contains_label(TRANSIENT_TRANSACTION_ERROR)
        && !error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
}

pub(super) fn too_many_attempts() -> StoreError {
    StoreError::Unavailable("too many requests are changing the task at the same time".to_owned())
}

pub(super) fn process_is_ending() -> StoreError {
    StoreError::Unavailable("the process is ending".to_owned())
}
