//! Opens a change stream at a cluster time or after a resume token.

use std::time::Duration;

use mongodb::{
    bson::{Document, Timestamp, doc},
    error::Error,
};

use super::{
    MongoStore,
    failure::{REQUEST_TIMEOUT, StreamFailure, stream_failure, with_timeout, with_timeout_of},
    pipeline::pipeline,
    prepare,
    stream_cursor::StreamCursor,
};
use crate::store::StoreError;

/// How far back the first stream begins. A restarted node can then replay the missed events to its clients.
const LOOK_BACK_SECS: u32 = 120;
/// How long MongoDB waits for a change before it sends an empty answer. The position advances at the same interval.
pub(super) const MAX_AWAIT_TIME: Duration = Duration::from_millis(250);

/// The starting point of a stream.
#[derive(Clone, Debug)]
pub(super) enum StartPoint {
    /// [`LOOK_BACK_SECS`] before now. The oplog must reach back that far.
    Past,
    Now,
    /// Directly after a resume token.
    After(Document),
}

pub(super) struct OpenedStream {
    pub(super) cursor: StreamCursor,
    /// The first cluster time that the stream covers. `None` means that it resumes an earlier stream.
    pub(super) at: Option<u64>,
}

/// Opens the stream before a cluster time or after a token. It never begins in the middle of a transaction whose first changes this node
/// has not read.
///
/// The driver's own `ChangeStream` is not used: it returns single changes, copies each one twice, and reopens the stream without notice.
pub(super) async fn open(store: &MongoStore, start: &StartPoint) -> Result<OpenedStream, StreamFailure> {
    let mut options = doc! {"fullDocument": "whenAvailable", "fullDocumentBeforeChange": "whenAvailable"};
    let at = match start {
        StartPoint::After(token) => {
            options.insert("startAfter", token);
            None
        }
        StartPoint::Now => {
            // The change that broke the last stream is committed by now. The new stream begins after it, so it does not break again.
            let Timestamp { time, increment } = majority_commit_time(store).await?;
            Some(Timestamp { time, increment: increment.saturating_add(1) })
        }
        StartPoint::Past => {
            let now = majority_commit_time(store).await?;
            Some(Timestamp { time: now.time.saturating_sub(LOOK_BACK_SECS), increment: 1 })
        }
    };
    if let Some(at) = at {
        options.insert("startAtOperationTime", at);
    }
    let stages = std::iter::once(doc! {"$changeStream": options}).chain(pipeline()).collect();
    let cursor = with_timeout_of(REQUEST_TIMEOUT, StreamCursor::open(store, stages)).await?;
    Ok(OpenedStream { cursor, at: at.map(|at| u64::from(at.time) << 32 | u64::from(at.increment)) })
}

/// Returns the time up to which a majority has committed all changes. Every later snapshot contains these changes.
async fn majority_commit_time(store: &MongoStore) -> Result<Timestamp, StreamFailure> {
    let database = store.database().await?;
    let hello = with_timeout(database.run_command(doc! {"hello": 1})).await?;
    let time = hello
        .get_document("lastWrite")
        .and_then(|write| write.get_document("majorityOpTime"))
        .and_then(|time| time.get_timestamp("ts"));
    time.map_err(|_| match prepare::is_standalone(&hello) {
        true => StreamFailure::Fatal(StoreError::Unusable(prepare::STANDALONE.to_owned())),
        // A member that has just started knows neither its replica set nor the majority's commit point.
        false => StreamFailure::Temporary("MongoDB does not report a majority-committed time yet".to_owned()),
    })
}

impl From<StoreError> for StreamFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(text) | StoreError::Denied(text) => Self::Temporary(text),
            other => Self::Fatal(other),
        }
    }
}

impl From<Error> for StreamFailure {
    fn from(error: Error) -> Self {
        stream_failure(error)
    }
}
