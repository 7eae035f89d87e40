//! What is asked of a store, and what it answers.

use crate::{
    feed::Position,
    task::{Access, Counts, Field, FullTask, Status, Task, TaskId, UserId},
};

/// Who may see a task, at a position; None: there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessSnapshot {
    pub access: Option<Access>,
    /// As in [`TaskSnapshot`].
    pub position: Position,
}

/// A task at a position; None: there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSnapshot {
    pub task: Option<FullTask>,
    /// Contains every change up to and including it, and none after.
    pub position: Position,
}

/// What one viewer's dashboard shows, at a position.
#[derive(Clone, Debug, PartialEq)]
pub struct DashboardSnapshot {
    /// Newest first.
    pub tasks: Vec<Task>,
    /// Tasks that everyone of the viewer's organisation sees.
    pub org_counts: Counts,
    /// The viewer's own tasks beyond those: private ones, and those of other organisations.
    pub own_counts: Counts,
    pub position: Position,
}

/// Narrows a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskFilter {
    pub status: Option<String>,
    pub creator: Option<UserId>,
}

impl TaskFilter {
    pub fn matches(&self, task: &Task) -> bool {
        self.status.as_deref().is_none_or(|status| task.status() == Status::of(status))
            && self.creator.as_ref().is_none_or(|user| task.access.creator.as_ref() == Some(user))
    }
}

/// One page of a list; `next` is given when there is more.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub tasks: Vec<Task>,
    pub next: Option<Cursor>,
}

/// The place in a list after which the next page begins: newest first, then by id, descending.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// Milliseconds of `createdAt`; None: after all tasks that have one.
    pub created_at: Option<i64>,
    pub id: TaskId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor must be a nextCursor of an earlier answer")]
pub struct InvalidCursor;

impl Cursor {
    pub fn after(task: &Task) -> Self {
        let created_at = task
            .get(Field::CreatedAt)
            .as_str()
            .and_then(crate::task::Timestamp::parse)
            .map(crate::task::Timestamp::millis);
        Self { created_at, id: task.id.clone() }
    }

    pub fn encode(&self) -> String {
        use base64::prelude::*;
        let time = self.created_at.map(|millis| millis.to_string()).unwrap_or_default();
        BASE64_URL_SAFE_NO_PAD.encode(format!("{time}:{}", self.id))
    }

    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        use base64::prelude::*;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let text = String::from_utf8(bytes).map_err(|_| InvalidCursor)?;
        let (time, id) = text.split_once(':').ok_or(InvalidCursor)?;
        let created_at = match time {
            "" => None,
            time => Some(time.parse().map_err(|_| InvalidCursor)?),
        };
        Ok(Self { created_at, id: TaskId::parse(id).ok_or(InvalidCursor)? })
    }
}
