//! Writes with an idempotency key or a condition: one transaction inserts the key, changes the task and checks the condition.

use std::time::{Duration, Instant};

use mongodb::{
    ClientSession,
    bson::{RawDocumentBuf, doc},
    error::Error,
    options::ReturnDocument,
};
use tokio::time::timeout;

use super::{
    MongoStore,
    caught_up::caught_up,
    failure::{code, with_timeout, write_error},
    ids::task_id,
    keys::{self, number},
    select::{exactly, fields_without_entries, full_task_fields},
    task_document,
    transaction::{self, DUPLICATE_KEY, MAX_ATTEMPTS, is_retryable},
    update::{appends, unchanged, update},
    write,
    write_position::{Before, MadeWrite, changes_of, without_entries},
};
use crate::{
    feed::Position,
    store::{StoreError, TaskWrite, WriteError, WriteOutcome, WriteRequest, WrittenTask},
    task::{FullTask, TaskId, Timestamp},
};

/// A request with a condition waits for the feed for at most this time. The feed normally is a few milliseconds behind.
const MAX_WAIT: Duration = Duration::from_secs(3);
/// Another transaction has written the same document.
const WRITE_CONFLICT: i32 = 112;

/// The result of an attempt.
enum Attempt {
    Done(Box<WrittenTask>),
    /// Another write was faster, the state of the server has changed, or the key is already stored. The next attempt finds the key.
    Retry,
    /// Another transaction is inserting the key, or has just inserted it.
    KeyInUse,
}

/// The reason why a transaction ended before its commit.
enum Failure {
    Key(Error),
    Server(Error),
    Refused(WriteError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

/// What a transaction has written.
enum Made {
    Task(Box<FullTask>),
    Change(Box<MadeWrite>),
}

/// Retries until the result is known. A caller that can't wait may drop this future. The write and its key are then stored together or not
/// at all.
pub(super) async fn write(store: &MongoStore, request: &WriteRequest) -> Result<WriteOutcome, WriteError> {
    for attempt in 0..MAX_ATTEMPTS {
        transaction::pause_before(attempt).await;
        if let Some(earlier) = earlier(store, request).await? {
            return Ok(earlier);
        }
        if attempt == 0 {
            write::check_access(store, request).await?;
        }
        match attempt_once(store, request).await? {
            Attempt::Done(written) => return Ok(WriteOutcome::Written(written)),
            Attempt::Retry => {}
            Attempt::KeyInUse => return earlier(store, request).await?.ok_or(WriteError::KeyInUse),
        }
    }
    Err(transaction::too_many_attempts().into())
}

async fn earlier(store: &MongoStore, request: &WriteRequest) -> Result<Option<WriteOutcome>, WriteError> {
    let Some(key) = &request.key else { return Ok(None) };
    Ok(keys::find(store, key).await?.map(WriteOutcome::Repeated))
}

async fn attempt_once(store: &MongoStore, request: &WriteRequest) -> Result<Attempt, WriteError> {
    let mut session = transaction::begin(store).await?;
    let made = match make(store, request, &mut session).await {
        Ok(made) => made,
        Err(failure) => {
            transaction::abort(session).await;
            return match failure {
                Failure::Key(error) if code(&error) == Some(WRITE_CONFLICT) => Ok(Attempt::KeyInUse),
                Failure::Key(error) if code(&error) == Some(DUPLICATE_KEY) => Ok(Attempt::Retry),
                Failure::Key(error) | Failure::Server(error) if is_retryable(&error) => Ok(Attempt::Retry),
                Failure::Key(error) | Failure::Server(error) => Err(write_error(error)),
                Failure::Refused(error) => Err(error),
            };
        }
    };
    let committed = tokio::spawn(transaction::commit(session)).await;
    let committed_at = match committed.map_err(|_| transaction::process_is_ending())? {
        Ok(time) => time,
        Err(error) if transaction::was_aborted(&error) => return Ok(Attempt::Retry),
        // The transaction may have been committed. The next attempt finds its key. Without a key the result stays unknown.
        Err(error) if is_retryable(&error) && request.key.is_some() => return Ok(Attempt::Retry),
        Err(error) => return Err(write_error(error)),
    };
    let made = match made {
        Made::Task(task) => return Ok(Attempt::Done(Box::new(WrittenTask { task: *task, event_id: None }))),
        Made::Change(made) => made,
    };
    let event_id = made.event_id(store, committed_at).await;
    if let (Some(key), Some(position)) = (&request.key, event_id) {
        keys::store_time(store, key, position.time).await;
    }
    Ok(Attempt::Done(Box::new(WrittenTask { task: made.after, event_id })))
}

async fn make(
    store: &MongoStore,
    request: &WriteRequest,
    session: &mut ClientSession,
) -> Result<Made, Failure> {
    match &request.write {
        TaskWrite::Create { task, creator_name } => {
            let (document, task) =
                write::new_document(store, task.clone(), &request.by, creator_name.as_deref())?;
            if let Some(key) = &request.key {
                let keys = store.keys().await?;
                keys::insert(&keys, key, &task.task.id, None, session).await.map_err(Failure::Key)?;
            }
            let insert = store.collection().await?;
            let insert = insert.insert_one(&document).session(session);
            with_timeout(insert).await.map_err(Failure::Server)?;
            Ok(Made::Task(Box::new(task)))
        }
        TaskWrite::Clarify { id, .. } | TaskWrite::Patch { id, .. } => {
            let made = change(store, request, id, session).await?;
            if let Some(since) = request.unchanged_since {
                check_unchanged(store, &made.after.task.id, since, session).await?;
            }
            Ok(Made::Change(Box::new(made)))
        }
    }
}

/// Decides on the task as the transaction sees it, and changes it.
async fn change(
    store: &MongoStore,
    request: &WriteRequest,
    id: &TaskId,
    session: &mut ClientSession,
) -> Result<MadeWrite, Failure> {
    let began = Instant::now();
    let document = find(store, id, session).await?.ok_or(Failure::Refused(WriteError::NotFound))?;
    let (before, length) = without_entries(store, &document)?;
    if !write::is_allowed(request, &before.access) {
        return Err(Failure::Refused(WriteError::NotFound));
    }
    let decided = write::decide(&request.write, &before, &document, Timestamp::now());
    // A task that has changed since may no longer have a status that allows the write. The condition then decides.
    if let (Err(WriteError::Conflict(_)), Some(since)) = (&decided, request.unchanged_since) {
        check_unchanged(store, &before.id, since, session).await?;
    }
    let writes = decided.map_err(Failure::Refused)?;
    let (_, added) = changes_of(&writes);
    let id_condition = unchanged(&document, "_id");
    let filter = doc! {"_id": id_condition.clone()};
    let appends = appends(&document);
    let tasks = store.collection().await?;
    let request_update = tasks
        .find_one_and_update(filter, update(&document, writes, appends))
        .projection(full_task_fields())
        .collation(exactly())
        .return_document(ReturnDocument::After)
        .session(&mut *session);
    let written = with_timeout(request_update).await.map_err(Failure::Server)?;
    let written = written.ok_or(Failure::Refused(WriteError::NotFound))?;
    let after = task_document::full_task(&written, &store.config.default_org).map_err(StoreError::from)?;
    let before = Before::Known(Box::new(before), length);
    let made = MadeWrite { began, id_condition, before, after, added };
    if let (Some(key), Before::Known(before, _)) = (&request.key, &made.before) {
        let index = made.event_at(before, 0).map(|position| position.index);
        let event = index.zip(session.operation_time());
        let keys = store.keys().await?;
        keys::insert(&keys, key, id, event, session).await.map_err(Failure::Key)?;
    }
    Ok(made)
}

/// The document of the id, as the transaction sees it. If several ids have the same text, this is the first document in MongoDB's order.
async fn find(
    store: &MongoStore,
    id: &TaskId,
    session: &mut ClientSession,
) -> Result<Option<RawDocumentBuf>, Failure> {
    let tasks = store.collection().await?;
    let found = write::find_with(&tasks, id, fields_without_entries(), Some(session)).await;
    let found = found.map_err(Failure::Server)?;
    Ok(found.into_iter().find(|document| task_id(document).as_ref() == Some(id)))
}

/// Waits until the feed has read all changes up to a moment. The last of these changes may be so new that a majority of the replica set does
/// not have it yet, and the feed then does not get it yet.
async fn until_caught_up(store: &MongoStore, moment: Position) {
    let mut attempt = 0;
    while !caught_up(store, moment).await {
        attempt += 1;
        transaction::pause_before(attempt).await;
    }
}

/// Checks that no change after `since` is visible to the clients in the task's room. The transaction has written the task, so no other
/// write can be committed between the moment that it sees and its commit. The feed must have read all changes up to that moment.
async fn check_unchanged(
    store: &MongoStore,
    id: &TaskId,
    since: Position,
    session: &ClientSession,
) -> Result<(), Failure> {
    let seen = session.operation_time().map(|time| Position::end_of(number(time)));
    let seen = seen.ok_or_else(|| StoreError::Unavailable("MongoDB reports no operation time".to_owned()))?;
    if since > seen {
        // MongoDB has not given out this position.
        return Err(Failure::Refused(WriteError::Changed));
    }
    if timeout(MAX_WAIT, until_caught_up(store, seen)).await.is_err() {
        return Err(Failure::from(StoreError::Unavailable(
            "the change stream is behind, so it is not known whether the task has changed".to_owned(),
        )));
    }
    if store.last_changes.is_unchanged(id, since) {
        Ok(())
    } else {
        Err(Failure::Refused(WriteError::Changed))
    }
}
