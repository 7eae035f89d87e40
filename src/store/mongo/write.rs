//! Writes tasks. Each write is decided on a document as it was read, and takes effect only if the deciding values have not changed since.

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Bson, DateTime, Document, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, doc, oid::ObjectId},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    bson_json::{time_to_bson, to_bson},
    failure::{store_error, with_timeout, write_error},
    ids::{is_hex, task_id},
    read,
    select::{access_fields, by_id, exactly, fields_without_entries, full_task_fields},
    task_document,
};
use crate::{
    store::{StoreError, WriteError},
    task::{
        Access, Answers, Assigned, FullTask, NewEntry, NewTask, Status, Task, TaskId, TaskPatch, Timestamp,
        Viewer, Writes,
    },
};

/// The fields that decide whether a write is allowed.
const CONDITION_FIELDS: [&str; 4] = ["status", "createdBy", "orgId", "isPrivate"];
/// The maximum number of attempts. Another write between the read and the update makes an attempt fail.
const MAX_ATTEMPTS: usize = 8;

pub(super) async fn create(
    store: &MongoStore,
    task: NewTask,
    creator: &Viewer,
    creator_name: Option<&str>,
) -> Result<FullTask, StoreError> {
    let mut document = doc! {"_id": ObjectId::new()};
    for (name, value) in task.writes(creator, creator_name, Timestamp::now()).set {
        if let Some(value) = assigned_to_bson(value, None) {
            document.insert(name, value);
        }
    }
    let document = RawDocumentBuf::try_from(&document).map_err(|error| store_error(error.into()))?;
    with_timeout(store.collection().await?.insert_one(&document)).await.map_err(store_error)?;
    Ok(task_document::full_task(&document, &store.config.default_org)?)
}

pub(super) async fn clarify(
    store: &MongoStore,
    id: &TaskId,
    viewer: &Viewer,
    answers: Answers,
) -> Result<FullTask, WriteError> {
    let is_allowed = |access: &Access| access.allows(viewer);
    decide_and_write(store, id, is_allowed, |task, _| match task.status() {
        Status::NeedsClarification => Ok(answers.clone().writes(Timestamp::now())),
        status => Err(WriteError::Conflict(format!(
            "answers are accepted only in the status needs_clarification; the task is {status}"
        ))),
    })
    .await
}

pub(super) async fn patch(
    store: &MongoStore,
    id: &TaskId,
    writer: &Viewer,
    patch: TaskPatch,
) -> Result<FullTask, WriteError> {
    let is_allowed = |access: &Access| access.writable_by(writer);
    decide_and_write(store, id, is_allowed, |task, document| {
        if let Some(next) = patch.status().filter(|_| !patch.allowed_from(task.status())) {
            let current = task.status();
            return Err(WriteError::Conflict(format!("a task that is {current} can't be moved to {next}")));
        }
        Ok(patch.clone().writes(|name| matches!(document.get(name), Ok(Some(_))), Timestamp::now()))
    })
    .await
}

async fn decide_and_write(
    store: &MongoStore,
    id: &TaskId,
    is_allowed: impl Fn(&Access) -> bool,
    decide: impl Fn(&Task, &RawDocument) -> Result<Writes, WriteError>,
) -> Result<FullTask, WriteError> {
    let (collection, default_org) = (store.collection().await?, &store.config.default_org);
    // A client without access must not learn the size of the task from the response time. This first read returns only the access fields.
    let found = find(store, id, access_fields()).await?;
    if !found.is_some_and(|document| is_allowed(&read::read_access(&document, default_org))) {
        return Err(WriteError::NotFound);
    }
    for _ in 0..MAX_ATTEMPTS {
        let found = find(store, id, fields_without_entries()).await?;
        let document = found.ok_or(WriteError::NotFound)?;
        let current = task_document::task(&document, default_org).map_err(StoreError::from)?;
        if !is_allowed(&current.access) {
            return Err(WriteError::NotFound);
        }
        let (condition, update) = conditional(&document, decide(&current, &document)?);
        let request = collection
            .find_one_and_update(condition, update)
            .projection(full_task_fields())
            .collation(exactly())
            .return_document(ReturnDocument::After);
        // The request may wait on the server while a delivery's transaction has locked the document. The semaphore limits these requests
        // and is never closed.
        let _permit = store.writes.acquire().await;
        if let Some(written) = with_timeout(request).await.map_err(write_error)? {
            return Ok(task_document::full_task(&written, default_org).map_err(StoreError::from)?);
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
    let found = collection.find(by_id(id)).sort(doc! {"_id": 1}).collation(exactly());
    let found: Vec<RawDocumentBuf> =
        with_timeout(async { found.projection(fields).await?.try_collect().await })
            .await
            .map_err(store_error)?;
    let mut found = found.into_iter().filter(|document| task_id(document).as_ref() == Some(id));
    let first = found.next();
    if found.next().is_some() {
        store.ambiguous();
    }
    Ok(first)
}

/// The update, and a filter that matches only while the deciding fields have the values that were read.
fn conditional(document: &RawDocument, writes: Writes) -> (Document, Document) {
    let mut condition = Document::new();
    for name in ["_id"].into_iter().chain(CONDITION_FIELDS) {
        condition.insert(name, unchanged(document, name));
    }
    let appends = matches!(document.get("events"), Ok(None | Some(RawBsonRef::Array(_))));
    if writes.push_event.is_some() && !appends {
        condition.insert("events", unchanged(document, "events"));
    }
    (condition, update(document, writes, appends))
}

/// The update operators of `writes`. `appends` means that the document's timeline is an array or absent. Otherwise the update replaces it
/// by an array.
pub(super) fn update(document: &RawDocument, writes: Writes, appends: bool) -> Document {
    let (mut set, mut unset, mut update) = (Document::new(), Document::new(), Document::new());
    for (name, value) in writes.set {
        match assigned_to_bson(value, document.get(name).ok().flatten()) {
            Some(value) => set.insert(name, value),
            None => unset.insert(name, ""),
        };
    }
    match writes.push_event.map(entry_to_bson) {
        Some(entry) if appends => {
            update.insert("$push", doc! {"events": entry});
        }
        Some(entry) => {
            set.insert("events", vec![entry]);
        }
        None => {}
    }
    for (operator, fields) in [("$set", set), ("$unset", unset)] {
        if !fields.is_empty() {
            update.insert(operator, fields);
        }
    }
    update
}

/// A condition that is true while the field has the same value of the same type.
pub(super) fn unchanged(document: &RawDocument, name: &str) -> Document {
    let value = match document.get(name) {
        Ok(Some(value)) => value,
        Ok(None) => return doc! {"$exists": false},
        // Invalid UTF-8 can't be sent in a filter.
        Err(_) => return doc! {"$exists": true},
    };
    let bson_type = i32::from(value.element_type() as i8);
    let is_array = matches!(value, RawBsonRef::Array(_));
    let not_inside = if is_array {
        doc! {}
    } else {
        doc! {"$not": {"$type": "array"}}
    };
    let mut condition = match Bson::try_from(RawBson::from(value)) {
        Ok(Bson::Undefined) | Err(_) => doc! {},
        Ok(value) => doc! {"$eq": value},
    };
    condition.insert("$type", bson_type);
    condition.extend(not_inside);
    condition
}

/// The new value of a field. `None` means that the field is removed. An id keeps the type that it has in the document.
fn assigned_to_bson(value: Assigned, current: Option<RawBsonRef<'_>>) -> Option<Bson> {
    match value {
        Assigned::Json(value) => Some(to_bson(value)),
        Assigned::Time(time) => Some(time_to_bson(time)),
        Assigned::Id(text) => Some(match (current, ObjectId::parse_str(&text)) {
            (Some(RawBsonRef::ObjectId(_)), Ok(id)) if is_hex(&text) => Bson::ObjectId(id),
            _ => Bson::String(text),
        }),
        Assigned::Removed => None,
    }
}

fn entry_to_bson(entry: NewEntry) -> Document {
    doc! {
        "eventType": entry.event_type,
        "payload": to_bson(entry.payload.into()),
        "createdAt": DateTime::from_millis(entry.created_at.millis()),
    }
}
