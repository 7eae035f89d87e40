//! Applies GitHub's deliveries: one transaction changes the task and marks the delivery as done.
//!
//! A second transaction for the same delivery or the same task gets a write conflict. It starts again and then sees the result of the first
//! one. Marks are read with majority read concern. A delivery is therefore never reported as a duplicate of one that could still be rolled
//! back.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{DateTime, RawDocumentBuf, doc},
    error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{ReadConcern, WriteConcern},
};
use tokio::time::Instant;

use super::{
    MongoStore, bson_json, facts,
    failure::{code, store_error, with_timeout, write_error},
    select::{delivery_filter, exactly, visible_fields},
    task_document,
    write::{unchanged, update},
};
use crate::{
    backoff::Backoff,
    github::Delivery,
    store::{Delivered, StoreError, WriteError},
    task::{Task, TaskId, Timestamp},
};

const DUPLICATE_KEY: i32 = 11000;
/// Between two attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(4), Duration::from_millis(250));
/// Far more attempts than fit into a caller's deadline.
const MAX_ATTEMPTS: u32 = 200;
/// MongoDB itself ends a transaction after this time.
const TRANSACTION_LIFETIME: Duration = Duration::from_secs(60);
/// The maximum number of tasks that the query returns. More tasks of one pull request, branch or issue indicate an error.
const MAX_CANDIDATES: i64 = 1000;
/// The projected field that contains the BSON type of a document's timeline.
const TIMELINE_TYPE: &str = "timelineType";

/// The result of an attempt.
enum Attempt {
    Done(Delivered),
    /// Another write was faster, the state of the server has changed, or the delivery is already marked. The next attempt finds the mark.
    Retry,
}

/// Retries until the result is known. A caller that can't wait may drop this future. The delivery is then applied as a whole or not at all.
pub(super) async fn deliver(store: &MongoStore, delivery: &Delivery) -> Result<Delivered, WriteError> {
    let delivery = &facts::store_facts_and_extend_search(store, delivery).await?;
    if delivery.search.criteria.is_empty() {
        return Ok(Delivered::NoTask);
    }
    for attempt in 0..MAX_ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(BACKOFF.pause_with_jitter(attempt, 0.0..=1.0)).await;
            if is_marked(store, delivery).await? {
                return Ok(Delivered::Duplicate);
            }
        }
        if let Attempt::Done(delivered) = attempt_once(store, delivery).await? {
            return Ok(delivered);
        }
    }
    Err(StoreError::Unavailable("too many requests are changing the task at the same time".to_owned()).into())
}

async fn is_marked(store: &MongoStore, delivery: &Delivery) -> Result<bool, StoreError> {
    let filter = doc! {"_id": delivery.id.as_str()};
    match with_timeout(store.deliveries().await?.find_one(filter)).await {
        Ok(found) => Ok(found.is_some()),
        // The next attempt reports a lasting error better.
        Err(error) if is_retryable(&error) => Ok(false),
        Err(error) => Err(store_error(error)),
    }
}

async fn attempt_once(store: &MongoStore, delivery: &Delivery) -> Result<Attempt, WriteError> {
    let mut session = with_timeout(store.client().await?.start_session()).await.map_err(store_error)?;
    let transaction = session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::majority());
    with_timeout(transaction).await.map_err(store_error)?;
    let written = match write(store, delivery, &mut session).await {
        Ok(Some(id)) => id,
        Ok(None) => {
            abort(&mut session).await;
            return Ok(Attempt::Done(Delivered::NoTask));
        }
        Err(Failure::Server(error)) => {
            abort(&mut session).await;
            let is_marked_already = code(&error) == Some(DUPLICATE_KEY);
            return if is_marked_already || is_retryable(&error) {
                Ok(Attempt::Retry)
            } else {
                Err(write_error(error))
            };
        }
        Err(Failure::Store(error)) => {
            abort(&mut session).await;
            return Err(error.into());
        }
    };
    // The commit runs in a separate task, because a caller that gives up must not leave the transaction open. An open transaction blocks
    // all writes to the task until the server ends it.
    let committed = tokio::spawn(commit(session)).await;
    match committed.map_err(|_| StoreError::Unavailable("the process is ending".to_owned()))? {
        Ok(()) => Ok(Attempt::Done(Delivered::Written(written))),
        // The transaction may have been committed. The next attempt finds its mark.
        Err(error) if is_retryable(&error) => Ok(Attempt::Retry),
        Err(error) => Err(write_error(error)),
    }
}

/// Retries the commit while its result is unknown. Until the result is known, the transaction may be open and block all other writes to the
/// task.
async fn commit(mut session: ClientSession) -> Result<(), Error> {
    let deadline = Instant::now() + TRANSACTION_LIFETIME;
    let mut attempt = 0;
    loop {
        match with_timeout(session.commit_transaction()).await {
            Err(error) if is_result_unknown(&error) && Instant::now() < deadline => {
                attempt += 1;
                tokio::time::sleep(BACKOFF.pause_with_jitter(attempt, 0.0..=1.0)).await;
            }
            result => return result,
        }
    }
}

/// Returns whether the result of the commit is unknown: MongoDB says so, or the connection failed, or no answer came in time.
fn is_result_unknown(error: &Error) -> bool {
    error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) || matches!(error.kind.as_ref(), ErrorKind::Io(_))
}

/// The reason why a transaction ended before its commit.
enum Failure {
    Server(Error),
    Store(StoreError),
}

/// Marks the delivery and changes its task. `None` means that the delivery matches no task.
async fn write(
    store: &MongoStore,
    delivery: &Delivery,
    session: &mut ClientSession,
) -> Result<Option<TaskId>, Failure> {
    let found = candidates(store, delivery, session).await?;
    let tasks: Vec<&Task> = found.iter().map(|(_, task)| task).collect();
    let Some(chosen) = delivery.search.choose(&tasks) else { return Ok(None) };
    let Some((document, task)) = found.iter().find(|(_, task)| std::ptr::eq(task, chosen)) else {
        return Ok(None);
    };

    let mark = doc! {"_id": delivery.id.as_str(), "at": DateTime::now()};
    let deliveries = store.deliveries().await.map_err(Failure::Store)?;
    with_timeout(deliveries.insert_one(mark).session(&mut *session)).await.map_err(Failure::Server)?;

    let writes = delivery.writes(task, &bson_json::to_json(document), Timestamp::now());
    let appends = matches!(document.get_str(TIMELINE_TYPE), Ok("array" | "missing"));
    let filter = doc! {"_id": unchanged(document, "_id")};
    let tasks = store.collection().await.map_err(Failure::Store)?;
    let request = tasks.update_one(filter, update(document, writes, appends)).collation(exactly());
    let request = request.session(&mut *session);
    with_timeout(request).await.map_err(Failure::Server)?;
    Ok(Some(task.id.clone()))
}

/// The tasks that may match the delivery, as the transaction sees them.
async fn candidates(
    store: &MongoStore,
    delivery: &Delivery,
    session: &mut ClientSession,
) -> Result<Vec<(RawDocumentBuf, Task)>, Failure> {
    let mut fields = visible_fields();
    fields.extend(Delivery::EXTRA_FIELDS.map(|name| (name.to_owned(), 1.into())));
    fields.insert(TIMELINE_TYPE, doc! {"$type": "$events"});
    let tasks = store.collection().await.map_err(Failure::Store)?;
    // The query has no sort order, because the server might then prefer the index of that order.
    let find = tasks
        .find(delivery_filter(&delivery.search))
        .projection(fields)
        .limit(MAX_CANDIDATES)
        .collation(exactly());
    let found: Vec<RawDocumentBuf> =
        with_timeout(async { find.session(&mut *session).await?.stream(&mut *session).try_collect().await })
            .await
            .map_err(Failure::Server)?;
    let read = |document: RawDocumentBuf| {
        let task = task_document::task(&document, &store.config.default_org);
        task.ok().map(|task| (document, task))
    };
    Ok(found.into_iter().filter_map(read).collect())
}

/// Aborts the transaction early. The server also aborts it by itself, after an error or when no request continues it.
async fn abort(session: &mut ClientSession) {
    if let Err(error) = with_timeout(session.abort_transaction()).await {
        tracing::debug!(%error, "a transaction could not be aborted");
    }
}

fn is_retryable(error: &Error) -> bool {
    [TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, "RetryableWriteError"]
        .iter()
        .any(|label| error.contains_label(label))
}
