//! Waits for the next answer to the change stream as long as the server works on the request.

use std::pin::pin;

use mongodb::error::{Error, ErrorKind};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    MongoStore,
    failure::timed_out,
    patience::{Next, Said, Wait},
    stream_cursor::{Batch, StreamCursor, is_under_way},
};
use crate::rate_limited_log::rate_limited_log;

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum NotAnswered {
    /// This node has stopped waiting.
    GivenUp(Error),
    /// The answer came, but this node could not decode it.
    Unreadable(Error),
    /// The server or the driver reported an error.
    Failed(Error),
}

impl From<Error> for NotAnswered {
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
    mut wait: Wait,
) -> Result<Option<Batch>, NotAnswered> {
    let (id, begun) = (cursor.id(), Instant::now());
    let mut answer = pin!(cursor.next(limit));
    loop {
        match wait.next(begun.elapsed()) {
            Next::WaitUntil(time) => {
                if let Ok(answer) = timeout_at(begun + time, &mut answer).await {
                    return Ok(answer?);
                }
            }
            Next::Ask => {
                let asked = Instant::now();
                let question = timeout(wait.longest(), is_under_way(store, id));
                tokio::select! {
                    biased;
                    answer = &mut answer => return Ok(answer?),
                    said = question => wait.said(said.unwrap_or(Said::Nothing), begun.elapsed(), asked.elapsed()),
                }
                rate_limited_log!(
                    warn,
                    waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "MongoDB has not answered the change stream for a long time; clients see changes late until it does"
                );
            }
            Next::GiveUp(why) => return Err(NotAnswered::GivenUp(timed_out(why))),
        }
    }
}
