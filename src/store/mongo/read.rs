//! Snapshot reads: a task, a dashboard.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Document, RawBsonRef, RawDocumentBuf, Timestamp, doc},
    error::Error,
    options::SessionOptions,
};

use super::{
    MongoStore, bson_json,
    failure::{answer, store_error},
    select::{access_fields, by_any_id, visible_fields, whole_task},
};
use crate::{
    feed::Position,
    seldom::seldom,
    store::{AccessSnapshot, StoreError, TaskSnapshot},
    task::{Access, Counts, DefaultOrg, DocumentError, FullTask, Status, Task, TaskId},
};

/// Of tasks that are read together: one of megabytes does not hold up the others for longer than one answer takes.
const MOST_BYTES_TOGETHER: usize = 1 << 20;

pub(super) async fn access(store: &MongoStore, id: &TaskId) -> Result<AccessSnapshot, StoreError> {
    let found = store.accesses.ask((), id.clone(), |ids| accesses(store, ids)).await?;
    found.ok_or_else(|| StoreError::Unavailable("a task was not looked at".to_owned()))
}

async fn accesses(
    store: &MongoStore,
    tasks: Vec<TaskId>,
) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError> {
    let Found { documents, position, .. } = any_of(store, &tasks, access_fields(), usize::MAX).await?;
    let mut found = HashMap::new();
    for document in &documents {
        if let Some(id) = id_of(document) {
            found.entry(id).or_insert_with(|| read_access(document, &store.config.default_org));
        }
    }
    let snapshots = tasks.into_iter().map(|id| {
        let access = found.remove(&id);
        (id, AccessSnapshot { access, position })
    });
    Ok(snapshots.collect())
}

pub(super) async fn task(store: &MongoStore, id: &TaskId) -> Result<TaskSnapshot, StoreError> {
    match store.tasks.ask((), id.clone(), |ids| tasks(store, ids)).await? {
        Some(TaskRead::Done(read)) => *read,
        Some(TaskRead::NotReached) => {
            let Found { documents, position, .. } =
                any_of(store, std::slice::from_ref(id), whole_task(), usize::MAX).await?;
            let named = documents.iter().find(|document| id_of(document).as_ref() == Some(id));
            snapshot_of(store, named, position)
        }
        None => Err(StoreError::Unavailable("a task was not read".to_owned())),
    }
}

/// What a read of several tasks found of one of them.
#[derive(Clone, Debug)]
pub(super) enum TaskRead {
    Done(Box<Result<TaskSnapshot, StoreError>>),
    /// There was too much before it: it is to be read by itself.
    NotReached,
}

async fn tasks(store: &MongoStore, tasks: Vec<TaskId>) -> Result<HashMap<TaskId, TaskRead>, StoreError> {
    let Found { documents, position, is_all } =
        any_of(store, &tasks, whole_task(), MOST_BYTES_TOGETHER).await?;
    let done = |document| TaskRead::Done(Box::new(snapshot_of(store, document, position)));
    let mut found = HashMap::new();
    for document in &documents {
        if let Some(id) = id_of(document) {
            found.entry(id).or_insert_with(|| done(Some(document)));
        }
    }
    let reads = tasks.into_iter().map(|id| {
        let read = found.remove(&id);
        let other = || if is_all { done(None) } else { TaskRead::NotReached };
        (id, read.unwrap_or_else(other))
    });
    Ok(reads.collect())
}

fn snapshot_of(
    store: &MongoStore,
    document: Option<&RawDocumentBuf>,
    position: Position,
) -> Result<TaskSnapshot, StoreError> {
    let task = document.map(|document| read_full(document, &store.config.default_org)).transpose()?;
    Ok(TaskSnapshot { task, position })
}

/// Some fields of several tasks at one moment.
struct Found {
    documents: Vec<RawDocumentBuf>,
    position: Position,
    /// Or there may be more.
    is_all: bool,
}

/// Reads on until there are more than so many bytes. A text and an ObjectId may be written alike: the text comes first.
async fn any_of(
    store: &MongoStore,
    tasks: &[TaskId],
    fields: Document,
    most_bytes: usize,
) -> Result<Found, StoreError> {
    let collection = store.snapshot_collection().await?;
    let mut session = snapshot(store, None).await?;
    let find = collection.find(by_any_id(tasks)).sort(doc! {"_id": 1}).projection(fields);
    let (documents, is_all) = answer(async {
        let (mut documents, mut bytes) = (Vec::new(), 0);
        let mut cursor = find.session(&mut session).await?;
        let mut stream = cursor.stream(&mut session);
        while bytes <= most_bytes {
            let Some(document) = stream.try_next().await? else { return Ok((documents, true)) };
            bytes += document.as_bytes().len();
            documents.push(document);
        }
        Ok((documents, false))
    })
    .await
    .map_err(store_error)?;
    Ok(Found { documents, position: position(snapshot_time(&session)?), is_all })
}

/// The first `limit` documents, without their timelines.
pub(super) async fn find(
    store: &MongoStore,
    session: &mut ClientSession,
    filter: Document,
    sort: Document,
    limit: usize,
) -> Result<Vec<RawDocumentBuf>, StoreError> {
    if limit == 0 {
        // For MongoDB it means without limit, and a snapshot time is wanted all the same.
        return Box::pin(find(store, session, filter, sort, 1)).await.map(|_| Vec::new());
    }
    let collection = store.snapshot_collection().await?;
    let batch = u32::try_from(limit).unwrap_or(u32::MAX);
    let find = collection.find(filter).sort(sort).limit(i64::from(batch)).batch_size(batch);
    let find = find.projection(visible_fields());
    answer(async { find.session(&mut *session).await?.stream(&mut *session).try_collect().await })
        .await
        .map_err(store_error)
}

/// A session whose reads all see one moment: the given one, else that of the first read.
pub(super) async fn snapshot(
    store: &MongoStore,
    time: Option<Timestamp>,
) -> Result<ClientSession, StoreError> {
    let mut options = SessionOptions::default();
    options.snapshot = Some(true);
    options.snapshot_time = time;
    answer(store.client().await?.start_session().with_options(options)).await.map_err(store_error)
}

fn id_of(document: &RawDocumentBuf) -> Option<TaskId> {
    match document.get("_id").ok()?? {
        RawBsonRef::ObjectId(id) => TaskId::parse(&id.to_hex()),
        RawBsonRef::String(text) => TaskId::parse(text),
        _ => None,
    }
}

pub(super) fn read_access(document: &RawDocumentBuf, default_org: &DefaultOrg) -> Access {
    Access::from_document(&bson_json::fields(document).collect(), default_org)
}

pub(super) fn read_full(
    document: &RawDocumentBuf,
    default_org: &DefaultOrg,
) -> Result<FullTask, DocumentError> {
    FullTask::from_document(bson_json::fields(document), default_org)
}

/// One odd document does not keep the others from being listed.
pub(super) fn read_listed(document: &RawDocumentBuf, default_org: &DefaultOrg) -> Option<Task> {
    let task = Task::from_document(bson_json::fields(document), default_org);
    task.inspect_err(|error| seldom!(warn, %error, "left out of a list")).ok()
}

pub(super) fn snapshot_time(session: &ClientSession) -> Result<Timestamp, StoreError> {
    session
        .snapshot_time()
        .ok_or_else(|| StoreError::Unavailable("the server answered without a snapshot time".to_owned()))
}

pub(super) fn position(time: Timestamp) -> Position {
    Position::end_of(u64::from(time.time) << 32 | u64::from(time.increment))
}

pub(super) async fn counts(
    store: &MongoStore,
    time: Timestamp,
    filter: Document,
) -> Result<Counts, StoreError> {
    let collection = store.snapshot_collection().await?;
    let mut session = snapshot(store, Some(time)).await?;
    let pipeline = [doc! {"$match": filter}, doc! {"$group": {"_id": "$status", "n": {"$sum": 1}}}];
    let groups: Result<Vec<Document>, Error> = answer(async {
        collection.aggregate(pipeline).session(&mut session).await?.stream(&mut session).try_collect().await
    })
    .await;
    let mut counts = Counts::default();
    for group in groups.map_err(store_error)? {
        let n = group.get_i64("n").or_else(|_| group.get_i32("n").map(i64::from)).unwrap_or(0);
        let status = Status::of(group.get_str("_id").unwrap_or_default());
        counts.add(status.class(), u64::try_from(n).unwrap_or(0));
    }
    Ok(counts)
}
