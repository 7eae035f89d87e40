//! Translates errors of MongoDB and its driver into errors of the store, of writes and of the change stream.

use std::{future::Future, time::Duration};

use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::{
    feed::GapReason,
    rate_limited_log::rate_limited_log,
    store::{StoreError, WriteError},
};

const UNAUTHORIZED: i32 = 13;
const AUTHENTICATION_FAILED: i32 = 18;
const ONLY_ON_REPLICA_SETS: i32 = 40573;
/// ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken, BSONObjectTooLarge: resuming after the same token always fails
/// again.
const HISTORY_LOST: [i32; 4] = [286, 280, 260, 10334];
/// CursorNotFound: MongoDB may close a cursor at any time, and gives this error no label.
const CURSOR_NOT_FOUND: i32 = 43;
/// Errors that the written value causes: BadValue, FailedToParse, TypeMismatch, Overflow, InvalidLength, DollarPrefixedFieldName,
/// BSONObjectTooLarge, and two older codes of the last one.
const VALUE_REJECTED: [i32; 9] = [2, 9, 14, 15, 21, 52, 10334, 17419, 17420];

/// The timeout of one request. The driver detects a dead server much sooner by its missing heartbeat, and ends all requests to that server.
/// This timeout is for an answer that is lost while the server is alive. A slow server needs time: a caller that gives up early sends the
/// same request again and makes the server slower.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The reason why a change stream ended. It decides how the feed continues.
#[derive(Debug)]
pub(super) enum StreamFailure {
    /// A retry after the last token may succeed.
    Temporary(String),
    /// A retry after the last token never succeeds. The field is the reason.
    HistoryLost(GapReason),
    /// MongoDB refused the request. If it refuses again and again, the token is the cause.
    Refused(String),
    Fatal(StoreError),
}

/// Waits for one request for at most [`REQUEST_TIMEOUT`].
pub(super) async fn with_timeout<T>(
    request: impl IntoFuture<Output = Result<T, Error>, IntoFuture: Future + Send>,
) -> Result<T, Error> {
    with_timeout_of(REQUEST_TIMEOUT, request).await
}

/// Waits with another timeout. `requests` may also be several requests in a row, with an error type of its own.
pub(super) async fn with_timeout_of<T, E: From<Error>>(
    duration: Duration,
    requests: impl IntoFuture<Output = Result<T, E>, IntoFuture: Future + Send>,
) -> Result<T, E> {
    tokio::time::timeout(duration, requests.into_future())
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
            "the user of MONGODB_URI lacks a privilege. The role readWrite on the database is enough for everything \
             except the preparations at the start: {}",
            message_of(&error)
        )),
        (_, Some(ONLY_ON_REPLICA_SETS)) => StoreError::Unusable(super::prepare::STANDALONE.to_owned()),
        (ErrorKind::InvalidTlsConfig { .. } | ErrorKind::SessionsNotSupported, _)
        | (ErrorKind::IncompatibleServer { .. } | ErrorKind::InvalidArgument { .. }, _) => {
            StoreError::Unusable(format!(
                "MongoDB can't be used with this MONGODB_URI: {}",
                message_of(&error)
            ))
        }
        _ => StoreError::Unavailable(message_of(&error)),
    }
}

pub(super) fn write_error(error: Error) -> WriteError {
    let is_rejected = match error.kind.as_ref() {
        ErrorKind::Bson(_) => true,
        _ => code(&error).is_some_and(|code| VALUE_REJECTED.contains(&code)),
    };
    if is_rejected {
        rate_limited_log!(warn, error = message_of(&error), "MongoDB refused to write a value");
        return WriteError::Conflict(
            "the task can't store this value: it is too large, too deep, or has an invalid key".to_owned(),
        );
    }
    WriteError::Store(store_error(error))
}

pub(super) fn stream_failure(error: Error) -> StreamFailure {
    let server_error = code(&error);
    if server_error.is_some_and(|code| HISTORY_LOST.contains(&code)) {
        return StreamFailure::HistoryLost(GapReason::History);
    }
    let is_temporary = error.contains_label("ResumableChangeStreamError")
        || error.contains_label("RetryableWriteError")
        || server_error == Some(CURSOR_NOT_FOUND)
        || server_error.is_none();
    match store_error(error) {
        StoreError::Unavailable(text) if is_temporary => StreamFailure::Temporary(text),
        StoreError::Unavailable(text) => StreamFailure::Refused(text),
        StoreError::Denied(text) => StreamFailure::Temporary(text),
        fatal => StreamFailure::Fatal(fatal),
    }
}

/// Returns the message without the command. MongoDB quotes the whole command in some messages, and documents must not be logged.
fn message_of(error: &Error) -> String {
    let text = match error.kind.as_ref() {
        ErrorKind::Command(command) => format!("{} ({})", command.message, command.code),
        _ => error.to_string(),
    };
    text.split(" to execute command").next().unwrap_or_default().chars().take(400).collect()
}
