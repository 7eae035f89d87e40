//! Reads tasks and their access fields as snapshots.

use std::collections::{HashMap, hash_map::Entry};

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp, doc},
    options::SessionOptions,
};

use super::{
    MongoStore,
    failure::{store_error, with_timeout},
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

pub(super) async fn accesses(
    store: &MongoStore,
    tasks: &[TaskId],
) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError> {
    let FoundDocuments { documents, position, .. } =
        find_documents(store, tasks, access_fields(), usize::MAX).await?;
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
    let snapshots = tasks.iter().map(|requested| {
        let (id, access) =
            found.remove(requested).map_or((requested.clone(), None), |(id, access)| (id, Some(access)));
        (requested.clone(), AccessSnapshot { id, access, position })
    });
    Ok(snapshots.collect())
}

/// Leaves out the tasks behind the size limit, and those that can't be read, unless there is only one task.
pub(super) async fn tasks(
    store: &MongoStore,
    tasks: &[TaskId],
    window: Window,
) -> Result<HashMap<TaskId, TaskSnapshot>, StoreError> {
    let is_single = tasks.len() == 1;
    let max_bytes = if is_single { usize::MAX } else { MAX_BATCH_BYTES };
    let FoundDocuments { documents, position, is_complete } =
        find_documents(store, tasks, windowed_task_fields(window), max_bytes).await?;
    let mut found = HashMap::new();
    for document in &documents {
        if let Some(id) = task_id(document) {
            found.entry(id).or_insert_with(|| snapshot_of(store, document, window, position));
        }
    }
    let mut snapshots = HashMap::new();
    for id in tasks {
        let snapshot = match found.remove(id) {
            Some(Err(error)) if is_single => return Err(error),
            Some(Err(_)) => continue,
            Some(Ok(snapshot)) => snapshot,
            None if is_complete => TaskSnapshot { task: None, position },
            None => continue,
        };
        snapshots.insert(id.clone(), snapshot);
    }
    Ok(snapshots)
}

fn snapshot_of(
    store: &MongoStore,
    document: &RawDocumentBuf,
    window: Window,
    position: Position,
) -> Result<TaskSnapshot, StoreError> {
    let task = task_document::windowed_task(document, window, &store.config.default_org)?;
    Ok(TaskSnapshot { task: Some(task), position })
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
    let (documents, is_complete) = with_timeout(async {
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
    with_timeout(store.client().await?.start_session().with_options(options)).await.map_err(store_error)
}

/// The snapshot time of a read that begins now.
pub(super) async fn current_snapshot_time(store: &MongoStore) -> Result<Timestamp, StoreError> {
    let collection = store.snapshot_collection().await?;
    let mut session = snapshot(store, None).await?;
    let request = collection.find_one(doc! {"_id": Bson::MinKey}).session(&mut session);
    with_timeout(request).await.map_err(store_error)?;
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
