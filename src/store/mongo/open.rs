//! Opening a change stream at the right place.

use std::time::Duration;

use mongodb::{
    bson::{Document, Timestamp, doc},
    error::Error,
};

use super::{
    MongoStore,
    failure::{PATIENCE, StreamFailure, answer, answer_within, stream_failure},
    pipeline::pipeline,
    prepare,
    stream_cursor::StreamCursor,
};
use crate::store::StoreError;

/// How far back the first stream begins, so that clients of a node that restarted can be replayed to.
const LOOK_BACK_SECS: u32 = 120;
/// How long the server holds a request while nothing happens; as often the position advances.
pub(super) const AWAIT: Duration = Duration::from_millis(250);

/// Where a stream begins.
#[derive(Clone, Debug)]
pub(super) enum Begin {
    /// A little before now, if the oplog reaches so far.
    Past,
    Now,
    /// A resume token.
    After(Document),
}

pub(super) struct Opened {
    pub(super) cursor: StreamCursor,
    /// The first cluster time that it tells of; None: it continues an earlier one.
    pub(super) at: Option<u64>,
}

/// Always before a cluster time, or after a token: never in the middle of a transaction that was not begun.
///
/// The driver's own `ChangeStream` would give out single changes, copied twice each, and begin anew without a word.
pub(super) async fn open(store: &MongoStore, begin: &Begin) -> Result<Opened, StreamFailure> {
    let mut options = doc! {"fullDocument": "whenAvailable", "fullDocumentBeforeChange": "whenAvailable"};
    let at = match begin {
        Begin::After(token) => {
            options.insert("startAfter", token);
            None
        }
        Begin::Now => {
            // What broke the last stream is committed by now, and would break this one too.
            let Timestamp { time, increment } = committed(store).await?;
            Some(Timestamp { time, increment: increment.saturating_add(1) })
        }
        Begin::Past => {
            let now = committed(store).await?;
            Some(Timestamp { time: now.time.saturating_sub(LOOK_BACK_SECS), increment: 1 })
        }
    };
    if let Some(at) = at {
        options.insert("startAtOperationTime", at);
    }
    let stages = std::iter::once(doc! {"$changeStream": options}).chain(pipeline()).collect();
    let cursor = answer_within(PATIENCE, StreamCursor::open(store, stages)).await?;
    Ok(Opened { cursor, at: at.map(|at| u64::from(at.time) << 32 | u64::from(at.increment)) })
}

/// Up to where changes are committed by a majority: every snapshot from now on contains them.
async fn committed(store: &MongoStore) -> Result<Timestamp, StreamFailure> {
    let database = store.database().await?;
    let hello = answer(database.run_command(doc! {"hello": 1})).await?;
    let time = hello
        .get_document("lastWrite")
        .and_then(|write| write.get_document("majorityOpTime"))
        .and_then(|time| time.get_timestamp("ts"));
    time.map_err(|_| match prepare::is_standalone(&hello) {
        true => StreamFailure::Fatal(StoreError::Unusable(prepare::STANDALONE.to_owned())),
        // A member that has just started knows neither its set nor what a majority has.
        false => StreamFailure::Passing("nothing is known to be committed by a majority yet".to_owned()),
    })
}

impl From<StoreError> for StreamFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(text) | StoreError::Denied(text) => Self::Passing(text),
            other => Self::Fatal(other),
        }
    }
}

impl From<Error> for StreamFailure {
    fn from(error: Error) -> Self {
        stream_failure(error)
    }
}
