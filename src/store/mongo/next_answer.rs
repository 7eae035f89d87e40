//! Waits for the next answer to the change stream as long as the server works on the request.

use std::pin::pin;

use mongodb::error::{Error, ErrorKind};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    MongoStore,
    failure::timed_out,
    request_timeout::{PendingRequest, RequestState, WaitStep},
    stream_cursor::{Batch, StreamCursor, request_state},
};
use crate::rate_limited_log::rate_limited_log;

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// This node has stopped waiting.
    GivenUp(Error),
    /// The answer came, but this node could not decode it.
    Unreadable(Error),
    /// The server or the driver reported an error.
    Failed(Error),
}

impl From<Error> for NoAnswer {
    fn from(error: Error) -> Self {
        match error.kind.as_ref() {
            ErrorKind::Bson(_) => Self::Unreadable(error),
            _ => Self::Failed(error),
        }
    }
}

/// Returns the next answer. `None` means that the server has closed the cursor.
pub(super) async fn next_answer(
    store: &MongoStore,
    cursor: &mut StreamCursor,
    limit: u32,
    mut pending: PendingRequest,
) -> Result<Option<Batch>, NoAnswer> {
    let (id, begun) = (cursor.id(), Instant::now());
    let mut answer = pin!(cursor.next(limit));
    loop {
        match pending.next(begun.elapsed()) {
            WaitStep::WaitUntil(time) => {
                if let Ok(answer) = timeout_at(begun + time, &mut answer).await {
                    return Ok(answer?);
                }
            }
            WaitStep::QueryState => {
                let queried_at = Instant::now();
                let query = timeout(pending.query_timeout(), request_state(store, id));
                tokio::select! {
                    biased;
                    answer = &mut answer => return Ok(answer?),
                    state = query => pending.reported(state.unwrap_or(RequestState::Unknown), begun.elapsed(), queried_at.elapsed()),
                }
                rate_limited_log!(
                    warn,
                    waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "MongoDB has not answered the change stream for a long time; clients see changes late until it does"
                );
            }
            WaitStep::GiveUp(reason) => return Err(NoAnswer::GivenUp(timed_out(reason))),
        }
    }
}
