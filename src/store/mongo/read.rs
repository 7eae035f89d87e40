//! Reads single tasks and their access fields as snapshots.

use std::collections::{HashMap, hash_map::Entry};

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp, doc},
    options::SessionOptions,
};

use super::{
    MongoStore,
    failure::{answer, store_error},
    ids::task_id,
    select::{access_fields, by_any_id, exactly, windowed_task_fields},
    task_document,
};
use crate::{
    feed::Position,
    store::{AccessSnapshot, StoreError, TaskSnapshot},
    task::{Access, DefaultOrg, TaskId, Window},
};

/// A combined read of several tasks ends after this number of bytes. A task of megabytes then delays the others only by one answer.
const MAX_BATCH_BYTES: usize = 1 << 20;

pub(super) async fn access(store: &MongoStore, id: &TaskId) -> Result<AccessSnapshot, StoreError> {
    let found = store.accesses.ask((), id.clone(), |ids| accesses(store, ids)).await?;
    found.ok_or_else(|| StoreError::Unavailable("the access fields of a task were not read".to_owned()))
}

async fn accesses(
    store: &MongoStore,
    tasks: Vec<TaskId>,
) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError> {
    let FoundDocuments { documents, position, .. } =
        find_documents(store, &tasks, access_fields(), usize::MAX).await?;
    let mut found = HashMap::new();
    for document in &documents {
        let Some(id) = task_id(document) else { continue };
        match found.entry(id.clone()) {
            Entry::Vacant(entry) => {
                entry.insert((id, read_access(document, &store.config.default_org)));
            }
            Entry::Occupied(_) => store.ambiguous(),
        }
    }
    let snapshots = tasks.into_iter().map(|requested| {
        let (id, access) =
            found.remove(&requested).map_or((requested.clone(), None), |(id, access)| (id, Some(access)));
        (requested, AccessSnapshot { id, access, position })
    });
    Ok(snapshots.collect())
}

pub(super) async fn task(
    store: &MongoStore,
    id: &TaskId,
    window: Window,
) -> Result<TaskSnapshot, StoreError> {
    match store.tasks.ask(window, id.clone(), |ids| tasks(store, ids, window)).await? {
        Some(TaskRead::Done(read)) => *read,
        Some(TaskRead::SizeLimitReached) => {
            let FoundDocuments { documents, position, .. } =
                find_documents(store, std::slice::from_ref(id), windowed_task_fields(window), usize::MAX)
                    .await?;
            let named = documents.iter().find(|document| task_id(document).as_ref() == Some(id));
            snapshot_of(store, named, window, position)
        }
        None => Err(StoreError::Unavailable("a task was not read".to_owned())),
    }
}

/// The result of a combined read for one task.
#[derive(Clone, Debug)]
pub(super) enum TaskRead {
    Done(Box<Result<TaskSnapshot, StoreError>>),
    /// The read ended before this task because of its size limit. The caller reads the task separately.
    SizeLimitReached,
}

async fn tasks(
    store: &MongoStore,
    tasks: Vec<TaskId>,
    window: Window,
) -> Result<HashMap<TaskId, TaskRead>, StoreError> {
    let FoundDocuments { documents, position, is_complete } =
        find_documents(store, &tasks, windowed_task_fields(window), MAX_BATCH_BYTES).await?;
    let done = |document| TaskRead::Done(Box::new(snapshot_of(store, document, window, position)));
    let mut found = HashMap::new();
    for document in &documents {
        if let Some(id) = task_id(document) {
            found.entry(id).or_insert_with(|| done(Some(document)));
        }
    }
    let reads = tasks.into_iter().map(|id| {
        let read = found.remove(&id);
        let other = || if is_complete { done(None) } else { TaskRead::SizeLimitReached };
        (id, read.unwrap_or_else(other))
    });
    Ok(reads.collect())
}

fn snapshot_of(
    store: &MongoStore,
    document: Option<&RawDocumentBuf>,
    window: Window,
    position: Position,
) -> Result<TaskSnapshot, StoreError> {
    let read = |document| task_document::windowed_task(document, window, &store.config.default_org);
    let task = document.map(|document| read(document)).transpose()?;
    Ok(TaskSnapshot { task, position })
}

/// Some fields of several tasks at one moment.
struct FoundDocuments {
    documents: Vec<RawDocumentBuf>,
    position: Position,
    /// `true` means that these are all documents. Otherwise there may be more.
    is_complete: bool,
}

/// Reads documents until they have more than `max_bytes`. If several ids have the same text, the first document in MongoDB's order is the
/// task.
async fn find_documents(
    store: &MongoStore,
    tasks: &[TaskId],
    fields: Document,
    max_bytes: usize,
) -> Result<FoundDocuments, StoreError> {
    let collection = store.snapshot_collection().await?;
    let mut session = snapshot(store, None).await?;
    let find =
        collection.find(by_any_id(tasks)).sort(doc! {"_id": 1}).projection(fields).collation(exactly());
    let (documents, is_complete) = answer(async {
        let (mut documents, mut bytes) = (Vec::new(), 0);
        let mut cursor = find.session(&mut session).await?;
        let mut stream = cursor.stream(&mut session);
        while bytes <= max_bytes {
            let Some(document) = stream.try_next().await? else { return Ok((documents, true)) };
            bytes += document.as_bytes().len();
            documents.push(document);
        }
        Ok((documents, false))
    })
    .await
    .map_err(store_error)?;
    Ok(FoundDocuments { documents, position: position(snapshot_time(&session)?), is_complete })
}

/// A session whose reads all see one moment. This is the given moment, or else the moment of the first read.
pub(super) async fn snapshot(
    store: &MongoStore,
    time: Option<Timestamp>,
) -> Result<ClientSession, StoreError> {
    let mut options = SessionOptions::default();
    options.snapshot = Some(true);
    options.snapshot_time = time;
    answer(store.client().await?.start_session().with_options(options)).await.map_err(store_error)
}

/// The snapshot time of a read that begins now.
pub(super) async fn current_snapshot_time(store: &MongoStore) -> Result<Timestamp, StoreError> {
    let collection = store.snapshot_collection().await?;
    let mut session = snapshot(store, None).await?;
    let request = collection.find_one(doc! {"_id": Bson::MinKey}).session(&mut session);
    answer(request).await.map_err(store_error)?;
    snapshot_time(&session)
}

pub(super) fn read_access(document: &RawDocument, default_org: &DefaultOrg) -> Access {
    Access::from_document(&task_document::top_level_fields(document), default_org)
}

pub(super) fn snapshot_time(session: &ClientSession) -> Result<Timestamp, StoreError> {
    session
        .snapshot_time()
        .ok_or_else(|| StoreError::Unavailable("the server answered without a snapshot time".to_owned()))
}

pub(super) fn position(time: Timestamp) -> Position {
    Position::end_of(u64::from(time.time) << 32 | u64::from(time.increment))
}
