//! A write of the HTTP API: what it writes, under which condition, and how a repeated request is recognised.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::{
    feed::Position,
    task::{Answers, FullTask, NewTask, TaskId, TaskPatch, Viewer},
};

/// How many hours a key is remembered.
pub const KEY_HOURS: u64 = 24;

/// A write by a user.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    pub by: Viewer,
    pub write: TaskWrite,
    /// A second request with the same key writes nothing.
    pub key: Option<WriteKey>,
    /// The task is written only if it has not changed after this position. A new task has no position yet, so this is ignored for it.
    pub unchanged_since: Option<Position>,
}

/// What is written.
#[derive(Clone, Debug)]
pub enum TaskWrite {
    Create { task: NewTask, creator_name: Option<String> },
    Clarify { id: TaskId, answers: Answers },
    Patch { id: TaskId, patch: TaskPatch },
}

/// An idempotency key, as a store remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteKey {
    /// A hash of the organisation, the user, the route and the key that the client has sent.
    pub name: String,
    /// A hash of what is written, and of the task that is named. Two requests with one name must have the same content.
    pub content: String,
}

/// The result of a write. It is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteOutcome {
    Written(Box<WrittenTask>),
    /// An earlier request with this key has written this task.
    Repeated(EarlierWrite),
}

/// A task as the write has left it.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenTask {
    pub task: FullTask,
    /// The position of the last event that the write causes in the room of the task. `None` means that it causes no event there.
    pub event_id: Option<Position>,
}

/// A write that was made before.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlierWrite {
    pub task: TaskId,
    /// The same as in [`WrittenTask`].
    pub event_id: Option<Position>,
}

impl WriteRequest {
    pub fn new(by: Viewer, write: TaskWrite) -> Self {
        Self { by, write, key: None, unchanged_since: None }
    }

    /// Adds the key that the client has sent. Keys of other users, organisations and routes are other keys.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        let (route, content) = match &self.write {
            TaskWrite::Create { task, .. } => ("create", task.content()),
            TaskWrite::Clarify { answers, .. } => ("clarify", answers.content()),
            TaskWrite::Patch { patch, .. } => ("patch", patch.content()),
        };
        let task = self.write.task_id().map_or("", |id| id.as_str());
        let org = self.by.org.as_ref().map_or("", |org| org.as_str());
        self.key = Some(WriteKey {
            name: hash(&[org, self.by.user.as_str(), route, key]),
            content: hash(&[task, &content.to_string()]),
        });
        self
    }
}

impl TaskWrite {
    /// The task that the write changes. `None` means that it creates one.
    pub fn task_id(&self) -> Option<&TaskId> {
        match self {
            Self::Create { .. } => None,
            Self::Clarify { id, .. } | Self::Patch { id, .. } => Some(id),
        }
    }
}

impl WriteOutcome {
    /// The written task. A request without a key is never a repetition, so it always has one.
    pub fn into_written(self) -> Option<WrittenTask> {
        match self {
            Self::Written(written) => Some(*written),
            Self::Repeated(_) => None,
        }
    }
}

/// The length of each part is hashed before the part, so that no two lists of parts are the same bytes.
fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{OrgId, UserId};

    fn request(user: &str, org: &str, key: &str, write: TaskWrite) -> WriteKey {
        let by = Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse(org) };
        WriteRequest::new(by, write).with_key(key).key.expect("a key")
    }

    fn clarify(id: &str, answer: &str) -> TaskWrite {
        let answers = Answers::parse(json!({"answers": [answer]})).expect("answers");
        TaskWrite::Clarify { id: TaskId::parse(id).expect("an id"), answers }
    }

    #[test]
    fn a_key_belongs_to_its_organisation_its_user_and_its_route() {
        let task = NewTask::parse(json!({"title": "t"})).expect("a task");
        let create = TaskWrite::Create { task, creator_name: None };
        let names: std::collections::HashSet<String> = [
            request("alice", "acme", "k", clarify("t", "a")),
            request("bob", "acme", "k", clarify("t", "a")),
            request("alice", "globex", "k", clarify("t", "a")),
            request("alice", "", "k", clarify("t", "a")),
            request("alice", "acme", "l", clarify("t", "a")),
            request("alicea", "cme", "k", clarify("t", "a")),
            request("alice", "acme", "k", create),
        ]
        .map(|key| key.name)
        .into();
        assert_eq!(names.len(), 7);
    }

    #[test]
    fn another_task_or_another_answer_is_another_content_of_the_same_key() {
        let one = request("alice", "acme", "k", clarify("t", "a"));
        assert_eq!(one, request("alice", "acme", "k", clarify("t", "a")));
        for other in [clarify("u", "a"), clarify("t", "b")] {
            let other = request("alice", "acme", "k", other);
            assert_eq!(other.name, one.name);
            assert_ne!(other.content, one.content);
        }
    }
}
