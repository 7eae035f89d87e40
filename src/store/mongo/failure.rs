//! What a MongoDB error means.

use std::{future::Future, time::Duration};

use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::{
    feed::GapReason,
    seldom::seldom,
    store::{StoreError, WriteError},
};

const UNAUTHORIZED: i32 = 13;
const AUTHENTICATION_FAILED: i32 = 18;
const ONLY_ON_REPLICA_SETS: i32 = 40573;
/// ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken, BSONObjectTooLarge: going on from the
/// same place fails for ever.
const HISTORY_LOST: [i32; 4] = [286, 280, 260, 10334];
/// CursorNotFound: the server may end cursors as it likes, and gives this error no label.
const CURSOR_NOT_FOUND: i32 = 43;
/// What the value to be written is to blame for: BadValue, FailedToParse, TypeMismatch, Overflow,
/// InvalidLength, DollarPrefixedFieldName, BSONObjectTooLarge, and two old ones for the latter.
const VALUE_REFUSED: [i32; 9] = [2, 9, 14, 15, 21, 52, 10334, 17419, 17420];

/// How long one request may take. A server that is gone is noticed much sooner: its heartbeat stays away, and the driver
/// ends all requests that wait for it. This bound is for an answer that was lost alone. A server that is only slow needs
/// time: whoever gives up early asks the same again and makes it slower.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be done about the end of a change stream.
#[derive(Debug)]
pub(super) enum StreamFailure {
    /// Going on from the last token may work.
    Passing(String),
    /// It never will; the reason.
    HistoryLost(GapReason),
    /// The server answered and refused; if it does so again, the token is to blame.
    Refused(String),
    Fatal(StoreError),
}

/// Waits for one request, but not for ever.
pub(super) async fn answer<T>(
    request: impl IntoFuture<Output = Result<T, Error>, IntoFuture: Future + Send>,
) -> Result<T, Error> {
    answer_within(PATIENCE, request).await
}

/// The same with another bound, also for several requests in a row, whose failure may be another than the driver's.
pub(super) async fn answer_within<T, E: From<Error>>(
    patience: Duration,
    requests: impl IntoFuture<Output = Result<T, E>, IntoFuture: Future + Send>,
) -> Result<T, E> {
    tokio::time::timeout(patience, requests.into_future())
        .await
        .unwrap_or_else(|_| Err(timed_out("no answer in time").into()))
}

pub(super) fn timed_out(what: &'static str) -> Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what).into()
}

pub(super) fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        _ => None,
    }
}

pub(super) fn is_unauthorized(error: &Error) -> bool {
    code(error) == Some(UNAUTHORIZED)
}

pub(super) fn store_error(error: Error) -> StoreError {
    match (error.kind.as_ref(), code(&error)) {
        (ErrorKind::Authentication { .. }, _) | (_, Some(AUTHENTICATION_FAILED)) => StoreError::Denied(
            "MongoDB refused the user name or password of MONGODB_URI (does it need authSource=admin?)"
                .to_owned(),
        ),
        (_, Some(UNAUTHORIZED)) => StoreError::Denied(format!(
            "the user of MONGODB_URI lacks a privilege; the role readWrite on the database suffices for all but \
             the preparations: {}",
            text(&error)
        )),
        (_, Some(ONLY_ON_REPLICA_SETS)) => StoreError::Unusable(super::prepare::STANDALONE.to_owned()),
        (ErrorKind::InvalidTlsConfig { .. } | ErrorKind::SessionsNotSupported, _)
        | (ErrorKind::IncompatibleServer { .. } | ErrorKind::InvalidArgument { .. }, _) => {
            StoreError::Unusable(format!("MongoDB can't be used as MONGODB_URI says: {}", text(&error)))
        }
        _ => StoreError::Unavailable(text(&error)),
    }
}

pub(super) fn write_error(error: Error) -> WriteError {
    let refused = match error.kind.as_ref() {
        ErrorKind::Bson(_) => true,
        _ => code(&error).is_some_and(|code| VALUE_REFUSED.contains(&code)),
    };
    if refused {
        seldom!(warn, error = text(&error), "MongoDB refuses a value");
        return WriteError::Conflict(
            "the task can't hold that: too large, too deep, or an odd key".to_owned(),
        );
    }
    WriteError::Store(store_error(error))
}

pub(super) fn stream_failure(error: Error) -> StreamFailure {
    let server_error = code(&error);
    if server_error.is_some_and(|code| HISTORY_LOST.contains(&code)) {
        return StreamFailure::HistoryLost(GapReason::History);
    }
    let passing = error.contains_label("ResumableChangeStreamError")
        || error.contains_label("RetryableWriteError")
        || server_error == Some(CURSOR_NOT_FOUND)
        || server_error.is_none();
    match store_error(error) {
        StoreError::Unavailable(text) if passing => StreamFailure::Passing(text),
        StoreError::Unavailable(text) => StreamFailure::Refused(text),
        StoreError::Denied(text) => StreamFailure::Passing(text),
        fatal => StreamFailure::Fatal(fatal),
    }
}

/// The server quotes the whole command in some messages; documents don't belong into a log.
fn text(error: &Error) -> String {
    let text = match error.kind.as_ref() {
        ErrorKind::Command(command) => format!("{} ({})", command.message, command.code),
        _ => error.to_string(),
    };
    text.split(" to execute command").next().unwrap_or_default().chars().take(400).collect()
}
