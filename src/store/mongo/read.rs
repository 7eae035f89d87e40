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
    meaning,
    select::{access_fields, by_any_id, exactly, part_of_task},
};
use crate::{
    feed::Position,
    store::{AccessSnapshot, StoreError, TaskSnapshot},
    task::{Access, DefaultOrg, TaskId, Window},
};

/// A combined read of several tasks ends after this number of bytes. A task of megabytes then delays the others only by one answer.
const MOST_BYTES_TOGETHER: usize = 1 << 20;

pub(super) async fn access(store: &MongoStore, id: &TaskId) -> Result<AccessSnapshot, StoreError> {
    let found = store.accesses.ask((), id.clone(), |ids| accesses(store, ids)).await?;
    found.ok_or_else(|| StoreError::Unavailable("the access fields of a task were not read".to_owned()))
}

async fn accesses(
    store: &MongoStore,
    tasks: Vec<TaskId>,
) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError> {
    let Found { documents, position, .. } = any_of(store, &tasks, access_fields(), usize::MAX).await?;
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
    let snapshots = tasks.into_iter().map(|asked| {
        let (id, access) =
            found.remove(&asked).map_or((asked.clone(), None), |(id, access)| (id, Some(access)));
        (asked, AccessSnapshot { id, access, position })
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
        Some(TaskRead::NotReached) => {
            let Found { documents, position, .. } =
                any_of(store, std::slice::from_ref(id), part_of_task(window), usize::MAX).await?;
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
    NotReached,
}

async fn tasks(
    store: &MongoStore,
    tasks: Vec<TaskId>,
    window: Window,
) -> Result<HashMap<TaskId, TaskRead>, StoreError> {
    let Found { documents, position, is_all } =
        any_of(store, &tasks, part_of_task(window), MOST_BYTES_TOGETHER).await?;
    let done = |document| TaskRead::Done(Box::new(snapshot_of(store, document, window, position)));
    let mut found = HashMap::new();
    for document in &documents {
        if let Some(id) = task_id(document) {
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
    window: Window,
    position: Position,
) -> Result<TaskSnapshot, StoreError> {
    let read = |document| meaning::part_of_task(document, window, &store.config.default_org);
    let task = document.map(|document| read(document)).transpose()?;
    Ok(TaskSnapshot { task, position })
}

/// Some fields of several tasks at one moment.
struct Found {
    documents: Vec<RawDocumentBuf>,
    position: Position,
    /// `true` means that these are all documents. Otherwise there may be more.
    is_all: bool,
}

/// Reads documents until they have more than `most_bytes`. If several ids have the same text, the first document in MongoDB's order is the
/// task.
async fn any_of(
    store: &MongoStore,
    tasks: &[TaskId],
    fields: Document,
    most_bytes: usize,
) -> Result<Found, StoreError> {
    let collection = store.snapshot_collection().await?;
    let mut session = snapshot(store, None).await?;
    let find =
        collection.find(by_any_id(tasks)).sort(doc! {"_id": 1}).projection(fields).collation(exactly());
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
pub(super) async fn now(store: &MongoStore) -> Result<Timestamp, StoreError> {
    let collection = store.snapshot_collection().await?;
    let mut session = snapshot(store, None).await?;
    let nothing = collection.find_one(doc! {"_id": Bson::MinKey}).session(&mut session);
    answer(nothing).await.map_err(store_error)?;
    snapshot_time(&session)
}

pub(super) fn read_access(document: &RawDocument, default_org: &DefaultOrg) -> Access {
    Access::from_document(&meaning::top(document), default_org)
}

pub(super) fn snapshot_time(session: &ClientSession) -> Result<Timestamp, StoreError> {
    session
        .snapshot_time()
        .ok_or_else(|| StoreError::Unavailable("the server answered without a snapshot time".to_owned()))
}

pub(super) fn position(time: Timestamp) -> Position {
    Position::end_of(u64::from(time.time) << 32 | u64::from(time.increment))
}
