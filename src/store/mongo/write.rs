//! Writes tasks. Each write is decided on a document as it was read, and takes effect only if the deciding values have not changed since.

use std::time::Instant;

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession, Collection,
    bson::{Document, RawDocument, RawDocumentBuf, doc, oid::ObjectId},
    error::Error,
    options::ReturnDocument,
};

use super::{
    MongoStore,
    failure::{store_error, with_timeout, write_error},
    guarded_write,
    ids::task_id,
    read,
    select::{access_fields, by_id, exactly, fields_without_entries, full_task_fields},
    task_document, transaction,
    update::{assigned_to_bson, conditional, unchanged},
    write_position::{Before, MadeWrite, changes_of},
};
use crate::{
    store::{StoreError, TaskWrite, WriteError, WriteOutcome, WriteRequest, WrittenTask},
    task::{Access, FullTask, NewTask, Status, Task, TaskId, Timestamp, Viewer, Writes},
};

/// The maximum number of attempts. Another write between the read and the update makes an attempt fail.
const MAX_ATTEMPTS: usize = 8;

pub(super) async fn write(store: &MongoStore, request: WriteRequest) -> Result<WriteOutcome, WriteError> {
    let is_conditional = request.unchanged_since.is_some() && request.write.task_id().is_some();
    if request.key.is_some() || is_conditional {
        return guarded_write::write(store, &request).await;
    }
    let written = match &request.write {
        TaskWrite::Create { task, creator_name } => {
            create(store, task.clone(), &request.by, creator_name.as_deref()).await?
        }
        TaskWrite::Clarify { id, .. } | TaskWrite::Patch { id, .. } => {
            decide_and_write(store, &request, id).await?
        }
    };
    Ok(WriteOutcome::Written(Box::new(written)))
}

async fn create(
    store: &MongoStore,
    task: NewTask,
    creator: &Viewer,
    creator_name: Option<&str>,
) -> Result<WrittenTask, StoreError> {
    let (document, task) = new_document(store, task, creator, creator_name)?;
    with_timeout(store.collection().await?.insert_one(&document)).await.map_err(store_error)?;
    // Nobody is in the room of a new task.
    Ok(WrittenTask { task, event_id: None })
}

/// The document of a new task, and the task.
pub(super) fn new_document(
    store: &MongoStore,
    task: NewTask,
    creator: &Viewer,
    creator_name: Option<&str>,
) -> Result<(RawDocumentBuf, FullTask), StoreError> {
    let mut document = doc! {"_id": ObjectId::new()};
    for (name, value) in task.writes(creator, creator_name, Timestamp::now()).set {
        if let Some(value) = assigned_to_bson(value, None) {
            document.insert(name, value);
        }
    }
    let document = RawDocumentBuf::try_from(&document).map_err(|error| store_error(error.into()))?;
    let task = task_document::full_task(&document, &store.config.default_org)?;
    Ok((document, task))
}

/// Returns whether the user may make this write to a task with this access.
pub(super) fn is_allowed(request: &WriteRequest, access: &Access) -> bool {
    match &request.write {
        TaskWrite::Create { .. } => true,
        TaskWrite::Clarify { .. } => access.allows(&request.by),
        TaskWrite::Patch { .. } => access.writable_by(&request.by),
    }
}

/// Returns what is written into this task, or a conflict if the status of the task does not allow it.
pub(super) fn decide(
    write: &TaskWrite,
    task: &Task,
    document: &RawDocument,
    now: Timestamp,
) -> Result<Writes, WriteError> {
    match (write, task.status()) {
        (TaskWrite::Clarify { answers, .. }, Status::NeedsClarification) => Ok(answers.clone().writes(now)),
        (TaskWrite::Clarify { .. }, status) => Err(WriteError::Conflict(format!(
            "answers are accepted only in the status needs_clarification; the task is {status}"
        ))),
        (TaskWrite::Patch { patch, .. }, current) => match patch.status() {
            Some(next) if !patch.allowed_from(current) => {
                Err(WriteError::Conflict(format!("a task that is {current} can't be moved to {next}")))
            }
            _ => Ok(patch.clone().writes(|name| matches!(document.get(name), Ok(Some(_))), now)),
        },
        (TaskWrite::Create { .. }, _) => Err(WriteError::NotFound),
    }
}

/// Checks that the user may write the task, if the request names one. A client without access must not learn the size of the task from the
/// response time, so this reads only the access fields.
pub(super) async fn check_access(store: &MongoStore, request: &WriteRequest) -> Result<(), WriteError> {
    let Some(id) = request.write.task_id() else { return Ok(()) };
    let found = find(store, id, access_fields()).await?;
    let default_org = &store.config.default_org;
    let may_write = found.is_some_and(|found| is_allowed(request, &read::read_access(&found, default_org)));
    if may_write { Ok(()) } else { Err(WriteError::NotFound) }
}

async fn decide_and_write(
    store: &MongoStore,
    request: &WriteRequest,
    id: &TaskId,
) -> Result<WrittenTask, WriteError> {
    let (collection, default_org) = (store.collection().await?, &store.config.default_org);
    check_access(store, request).await?;
    let mut session = transaction::session(store).await?;
    for _ in 0..MAX_ATTEMPTS {
        let began = Instant::now();
        let found = find(store, id, fields_without_entries()).await?;
        let document = found.ok_or(WriteError::NotFound)?;
        let current = task_document::task(&document, default_org).map_err(StoreError::from)?;
        if !is_allowed(request, &current.access) {
            return Err(WriteError::NotFound);
        }
        let writes = decide(&request.write, &current, &document, Timestamp::now())?;
        let (written_names, added) = changes_of(&writes);
        let (condition, update) = conditional(&document, writes);
        let find_and_update = collection
            .find_one_and_update(condition, update)
            .projection(full_task_fields())
            .collation(exactly())
            .return_document(ReturnDocument::After)
            .session(&mut session);
        // The request may wait on the server while a delivery's transaction has locked the document. The semaphore limits these requests
        // and is never closed.
        let permit = store.writes.acquire().await;
        let updated = with_timeout(find_and_update).await;
        drop(permit);
        if let Some(written) = updated.map_err(write_error)? {
            let after = task_document::full_task(&written, default_org).map_err(StoreError::from)?;
            let id_condition = unchanged(&document, "_id");
            let before = Before::Except(written_names);
            let made = MadeWrite { began, id_condition, before, after, added };
            let event_id = made.event_id(store, session.operation_time()).await;
            return Ok(WrittenTask { task: made.after, event_id });
        }
    }
    Err(WriteError::Conflict("other requests are changing the task at the same time; try again".to_owned()))
}

/// Finds the document of the id. If several ids have the same text, this is the first document in MongoDB's order.
async fn find(
    store: &MongoStore,
    id: &TaskId,
    fields: Document,
) -> Result<Option<RawDocumentBuf>, StoreError> {
    let collection = store.collection().await?;
    let found = find_with(&collection, id, fields, None).await.map_err(store_error)?;
    let mut found = found.into_iter().filter(|document| task_id(document).as_ref() == Some(id));
    let first = found.next();
    if found.next().is_some() {
        store.ambiguous();
    }
    Ok(first)
}

/// The documents that may have this id, the first in MongoDB's order first.
pub(super) async fn find_with(
    collection: &Collection<RawDocumentBuf>,
    id: &TaskId,
    fields: Document,
    session: Option<&mut ClientSession>,
) -> Result<Vec<RawDocumentBuf>, Error> {
    let find = collection.find(by_id(id)).sort(doc! {"_id": 1}).collation(exactly()).projection(fields);
    with_timeout(async {
        match session {
            Some(session) => find.session(&mut *session).await?.stream(session).try_collect().await,
            None => find.await?.try_collect().await,
        }
    })
    .await
}
