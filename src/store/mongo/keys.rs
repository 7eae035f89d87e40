//! The idempotency keys of the HTTP API, in a separate collection. A record is inserted in the transaction of its write.
//!
//! A record has the fields `_id` (the name of the key), `content`, `task`, `at`, and, if the write causes an event in the room of the task,
//! `index` (of the last such event), `after` (a cluster time before the commit) and `time` (that of the commit). `time` is known only when
//! the transaction is committed, so it is added later. If the process ends in between, `time` is found in the change stream of this
//! collection: the record was inserted at that time.

use mongodb::{
    ClientSession, Collection,
    bson::{DateTime, Document, Timestamp, doc},
    error::Error,
};

use super::{
    MongoStore, decode,
    failure::{REQUEST_TIMEOUT, store_error, with_timeout, with_timeout_of},
    stream_cursor::{Batch, first_batch_of},
};
use crate::{
    feed::Position,
    store::{EarlierWrite, StoreError, WriteError, WriteKey},
    task::TaskId,
};

/// Returns the write that was made with this key. `Ok(None)` means that none is remembered.
pub(super) async fn find(store: &MongoStore, key: &WriteKey) -> Result<Option<EarlierWrite>, WriteError> {
    let keys = store.keys().await?;
    let found = with_timeout(keys.find_one(doc! {"_id": &key.name})).await.map_err(store_error)?;
    let Some(record) = found else { return Ok(None) };
    if record.get_str("content").ok() != Some(key.content.as_str()) {
        return Err(WriteError::KeyReused);
    }
    let task = record.get_str("task").ok().and_then(TaskId::parse);
    let task = task.ok_or_else(|| StoreError::Unavailable("a stored key names no task".to_owned()))?;
    let event_id = event_id(store, key, &record).await?;
    Ok(Some(EarlierWrite { task, event_id }))
}

/// Inserts a record. `event` is the index of the last event in the room, and a cluster time before the commit.
pub(super) async fn insert(
    keys: &Collection<Document>,
    key: &WriteKey,
    task: &TaskId,
    event: Option<(u32, Timestamp)>,
    session: &mut ClientSession,
) -> Result<(), Error> {
    let mut record = doc! {
        "_id": &key.name, "content": &key.content, "task": task.as_str(), "at": DateTime::now(),
    };
    if let Some((index, after)) = event {
        record.insert("index", i64::from(index));
        record.insert("after", after);
    }
    with_timeout(keys.insert_one(record).session(session)).await.map(drop)
}

/// Adds the time of the commit to a record. A failure does no harm: the time can be found again.
pub(super) async fn store_time(store: &MongoStore, key: &WriteKey, time: u64) {
    let Ok(keys) = store.keys().await else { return };
    let update = doc! {"$set": {"time": timestamp(time)}};
    if let Err(error) = with_timeout(keys.update_one(doc! {"_id": &key.name}, update)).await {
        tracing::debug!(%error, "the time of a write could not be stored with its key");
    }
}

async fn event_id(
    store: &MongoStore,
    key: &WriteKey,
    record: &Document,
) -> Result<Option<Position>, StoreError> {
    let Some(index) = record.get_i64("index").ok().and_then(|index| u32::try_from(index).ok()) else {
        return Ok(None);
    };
    let time = match (record.get_timestamp("time"), record.get_timestamp("after")) {
        (Ok(time), _) => Some(number(time)),
        (Err(_), Ok(after)) => time_of_insert(store, key, after).await?,
        (Err(_), Err(_)) => None,
    };
    Ok(time.map(|time| Position::change(time, 0).with_index(index)))
}

/// Finds the cluster time at which a record was inserted, and stores it. `None` means that the oplog no longer has that time.
async fn time_of_insert(
    store: &MongoStore,
    key: &WriteKey,
    after: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let stages = vec![
        doc! {"$changeStream": {"startAtOperationTime": after}},
        doc! {"$match": {"operationType": "insert", "documentKey._id": &key.name}},
        doc! {"$project": {"clusterTime": 1}},
    ];
    let collection = store.config.keys();
    let request = first_batch_of(store, &collection, stages, 1);
    let batch = match with_timeout_of(REQUEST_TIMEOUT, request).await {
        Ok(batch) => batch,
        Err(error) => {
            tracing::debug!(?error, "the time of a write was not found in the change stream");
            return Ok(None);
        }
    };
    let event = batch.as_ref().and_then(Batch::changes).and_then(|changes| changes.into_iter().next());
    let time = event.and_then(|event| decode::cluster_time(event.ok()?.as_document()?));
    if let Some(time) = time {
        store_time(store, key, time).await;
    }
    Ok(time)
}

/// A cluster time as a number that can be compared with the time of a position.
pub(super) fn number(time: Timestamp) -> u64 {
    u64::from(time.time) << 32 | u64::from(time.increment)
}

pub(super) fn timestamp(number: u64) -> Timestamp {
    let increment = u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    Timestamp { time: u32::try_from(number >> 32).unwrap_or_default(), increment }
}
