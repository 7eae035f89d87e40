//! The parts of a webhook delivery, and the parser of its body.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::{
    entry::Entry, event::interpret, payload::Payload, pull_request::Snapshot, search::Search, source::Source,
};
use crate::json::replace_lone_surrogates;

const UNUSED_EVENT: &str = "this event is not used";
pub(super) const UNUSED_ACTION: &str = "this action is not used";

/// The value of `X-GitHub-Delivery`. It is the same for every attempt to send the same delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryId(String);

/// The content of a request from GitHub.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// GitHub sends it when the webhook is set up.
    Ping,
    /// The delivery cannot concern a task. The text is the reason.
    Ignored(&'static str),
    Delivery(Box<Delivery>),
}

/// Something that happened on GitHub and may concern a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub search: Search,
    pub(super) source: Source,
    pub(super) subject: Subject,
    pub(super) entry: Entry,
}

/// The part of a delivery that decides which fields of the task change.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Subject {
    PullRequest(Snapshot),
    Issue {
        number: u64,
        url: Option<String>,
    },
    /// A comment on an issue or on a pull request. GitHub numbers both in one sequence.
    Comment {
        number: u64,
    },
    Other,
}

/// The reason why a delivery with a valid signature can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableDelivery {
    #[error("the body is not UTF-8")]
    NotUtf8,
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the body is not JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    /// serde's own message is not used, because it could quote the payload.
    #[error("the payload does not have the format of this event (line {line}, column {column})")]
    Unexpected { line: usize, column: usize },
    #[error("the payload lacks {0}")]
    Lacks(&'static str),
}

impl DeliveryId {
    /// GitHub sends a GUID. The id goes into the log, so only short texts of visible ASCII characters are accepted.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = (1..=100).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The events that taskcast uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum EventName {
    Ping,
    PullRequest,
    Issues,
    IssueComment,
    PullRequestReview,
    CheckRun,
    CheckSuite,
    WorkflowRun,
    Repository,
}

/// Only the action of a payload.
#[derive(Deserialize)]
struct ActionOnly {
    #[serde(default)]
    action: Value,
}

impl Received {
    /// Reads a body whose signature is valid. The second value is the action, for the log.
    pub fn parse(
        id: DeliveryId,
        event: &str,
        body: &[u8],
    ) -> Result<(Self, Option<String>), UnusableDelivery> {
        // GitHub also forwards texts that its users have cut in the middle of a surrogate pair. The signature has already
        // been checked over the original bytes.
        let text = std::str::from_utf8(body).map_err(|_| UnusableDelivery::NotUtf8)?;
        let text = &*replace_lone_surrogates(text);
        // serde also accepts an array for a struct.
        if !text.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        {
            return Err(UnusableDelivery::NotAnObject);
        }
        let event = match event.parse() {
            Ok(event) if event != EventName::Ping => event,
            other => {
                let parsed: ActionOnly = json(text)?;
                let action = parsed.action.as_str().filter(|action| is_name(action)).map(str::to_owned);
                let received = other.map_or(Self::Ignored(UNUSED_EVENT), |_| Self::Ping);
                return Ok((received, action));
            }
        };
        let mut payload: Payload = json(text)?;
        let Some(action) = payload.action.take().filter(|action| is_name(action)) else {
            return Ok((Self::Ignored(UNUSED_ACTION), None));
        };
        let received = interpret(id, event, &action, &payload)?;
        Ok((received, Some(action)))
    }
}

fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, UnusableDelivery> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        if error.is_data() {
            UnusableDelivery::Unexpected { line, column }
        } else {
            UnusableDelivery::NotJson { line, column }
        }
    })
}

/// Returns whether the text has the form of an action's name. The name becomes part of the entry's type and of the log.
fn is_name(text: &str) -> bool {
    (1..=50).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
