//! Opening a change stream at the right place.

use std::time::Duration;

use mongodb::{
    bson::{RawDocumentBuf, Timestamp, doc},
    change_stream::{ChangeStream, event::ResumeToken},
    error::Error,
    options::{FullDocumentBeforeChangeType, FullDocumentType},
};

use super::{
    MongoStore,
    failure::{StreamFailure, answer, answer_within, stream_failure},
    pipeline::pipeline,
    prepare,
};
use crate::store::StoreError;

/// How far back the first stream begins, so that clients of a node that restarted can be replayed to.
const LOOK_BACK_SECS: u32 = 120;
/// How long the server holds a request while nothing happens; as often the position advances.
const AWAIT: Duration = Duration::from_millis(250);

/// Where a stream begins.
#[derive(Clone, Debug)]
pub(super) enum Begin {
    /// A little before now, if the oplog reaches so far.
    Past,
    Now,
    After(ResumeToken),
}

#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: ChangeStream<RawDocumentBuf>,
    /// The first cluster time that it tells of; None: it continues an earlier one.
    pub(super) at: Option<u64>,
}

/// Always before a cluster time, or after a token: never in the middle of a transaction that was not begun.
pub(super) async fn open(
    store: &MongoStore,
    begin: &Begin,
    patience: Duration,
) -> Result<Opened, StreamFailure> {
    let collection = store.collection().await?;
    let watch = collection
        .watch()
        .pipeline(pipeline())
        .full_document(FullDocumentType::WhenAvailable)
        .full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable)
        .max_await_time(AWAIT);
    let start = match begin {
        Begin::After(token) => {
            let stream = answer_within(patience, watch.start_after(token.clone())).await?.with_type();
            return Ok(Opened { stream, at: None });
        }
        Begin::Now => {
            // What broke the last stream is committed by now, and would break this one too.
            let Timestamp { time, increment } = committed(store).await?;
            Timestamp { time, increment: increment.saturating_add(1) }
        }
        Begin::Past => {
            let now = committed(store).await?;
            Timestamp { time: now.time.saturating_sub(LOOK_BACK_SECS), increment: 1 }
        }
    };
    let stream = answer_within(patience, watch.start_at_operation_time(start)).await?.with_type();
    Ok(Opened { stream, at: Some(u64::from(start.time) << 32 | u64::from(start.increment)) })
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
