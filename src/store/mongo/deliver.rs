//! Applies GitHub's deliveries: one transaction changes the task and marks the delivery as done.
//!
//! A second transaction for the same delivery or the same task gets a write conflict. It starts again and then sees the result of the first
//! one. Marks are read with majority read concern. A delivery is therefore never reported as a duplicate of one that could still be rolled
//! back.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{DateTime, RawDocumentBuf, doc},
    error::Error,
};

use super::{
    MongoStore, bson_json, facts,
    failure::{code, store_error, with_timeout, write_error},
    select::{delivery_filter, exactly, visible_fields},
    task_document,
    transaction::{self, DUPLICATE_KEY, MAX_ATTEMPTS, is_retryable},
    update::{unchanged, update},
};
use crate::{
    github::Delivery,
    store::{Delivered, StoreError, WriteError},
    task::{Task, TaskId, Timestamp},
};

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
        transaction::pause_before(attempt).await;
        if attempt > 0 && is_marked(store, delivery).await? {
            return Ok(Delivered::Duplicate);
        }
        if let Attempt::Done(delivered) = attempt_once(store, delivery).await? {
            return Ok(delivered);
        }
    }
    Err(transaction::too_many_attempts().into())
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
    let mut session = transaction::begin(store).await?;
    let written = match write(store, delivery, &mut session).await {
        Ok(Some(id)) => id,
        Ok(None) => {
            transaction::abort(session).await;
            return Ok(Attempt::Done(Delivered::NoTask));
        }
        Err(Failure::Server(error)) => {
            transaction::abort(session).await;
            let is_marked_already = code(&error) == Some(DUPLICATE_KEY);
            return if is_marked_already || is_retryable(&error) {
                Ok(Attempt::Retry)
            } else {
                Err(write_error(error))
            };
        }
        Err(Failure::Store(error)) => {
            transaction::abort(session).await;
            return Err(error.into());
        }
    };
    let committed = tokio::spawn(transaction::commit(session)).await;
    match committed.map_err(|_| transaction::process_is_ending())? {
        Ok(_) => Ok(Attempt::Done(Delivered::Written(written))),
        // The transaction may have been committed. The next attempt finds its mark.
        Err(error) if is_retryable(&error) => Ok(Attempt::Retry),
        Err(error) => Err(write_error(error)),
    }
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
