//! The parameters and results of store reads: snapshots, filters, pages and cursors.

use base64::prelude::*;
use serde_json::{Value, json};

use crate::{
    feed::Position,
    task::{Access, Counts, Field, FullTask, Task, TaskId, Timestamp, UserId},
};

/// The viewers that may see a task, at one position. `access` is `None` if the task does not exist.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessSnapshot {
    /// The id of the document that was found, or the requested id if no document was found.
    pub id: TaskId,
    pub access: Option<Access>,
    /// The same as in [`TaskSnapshot`].
    pub position: Position,
}

/// A task at one position. `task` is `None` if the task does not exist.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSnapshot {
    pub task: Option<FullTask>,
    /// The snapshot contains every change up to and including this position, and none after it.
    pub position: Position,
}

/// The content of one viewer's dashboard, at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct DashboardSnapshot {
    /// Newest first.
    pub tasks: Vec<Task>,
    /// Counts of the tasks that all members of the viewer's organisation see.
    pub org_counts: Counts,
    /// Counts of the viewer's other tasks: its private ones, and its tasks in other organisations.
    pub own_counts: Counts,
    pub position: Position,
}

/// Restricts a list to tasks with this status and this creator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskFilter {
    pub status: Option<String>,
    pub creator: Option<UserId>,
}

impl TaskFilter {
    pub fn matches(&self, task: &Task) -> bool {
        self.status.as_deref().is_none_or(|status| task.get(Field::Status) == status)
            && self.creator.as_ref().is_none_or(|user| task.access.creator.as_ref() == Some(user))
    }
}

/// One page of a list. `next` is set if more tasks follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub tasks: Vec<Task>,
    pub next: Option<Cursor>,
    /// The same as in [`TaskSnapshot`].
    pub position: Position,
}

/// The beginning of the next page of a list. A store merges one or several sorted runs into a list. A run without a position
/// here is read from its beginning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cursor {
    pub(super) run_cursors: Vec<RunCursor>,
}

/// The position in one run: the last task of the run that was returned.
#[derive(Clone, Debug, PartialEq)]
pub struct RunCursor {
    /// The store's name for the run.
    pub(super) run: char,
    /// The first sort key; the id is the second. It is empty if the task has no first sort key.
    pub(super) created_at: String,
    pub(super) id: TaskId,
}

/// The name, in every store, of the run that contains the tasks whose `createdAt` is a date.
pub(super) const DATED_RUN: char = 'd';
/// The maximum number of positions in a cursor. Every store has fewer runs.
const MAX_RUNS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor must be a nextCursor of an earlier answer")]
pub struct InvalidCursor;

/// A task's `createdAt` in milliseconds.
pub(super) fn created_at(task: &Task) -> Option<i64> {
    let text = task.get(Field::CreatedAt).as_str();
    text.and_then(Timestamp::parse).map(Timestamp::millis)
}

impl Cursor {
    pub fn encode(&self) -> String {
        let run_cursors = self
            .run_cursors
            .iter()
            .map(|RunCursor { run, created_at, id }| json!([run, created_at, id.kind(), id]));
        BASE64_URL_SAFE_NO_PAD.encode(Value::Array(run_cursors.collect()).to_string())
    }

    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        if bytes.first() != Some(&b'[') {
            return String::from_utf8(bytes).ok().as_deref().and_then(Self::decode_old).ok_or(InvalidCursor);
        }
        let run_cursors: Vec<(char, String, u8, String)> =
            serde_json::from_slice(&bytes).map_err(|_| InvalidCursor)?;
        if run_cursors.is_empty() || run_cursors.len() > MAX_RUNS {
            return Err(InvalidCursor);
        }
        let run_cursors = run_cursors.into_iter().map(|(run, created_at, kind, id)| {
            Some(RunCursor { run, created_at, id: TaskId::parse(&id)?.of_kind(kind) })
        });
        Ok(Self { run_cursors: run_cursors.collect::<Option<_>>().ok_or(InvalidCursor)? })
    }

    /// Reads a cursor of release 0.1 or earlier: milliseconds, a colon and an id. Those releases put `=` before a text id
    /// that looks like an ObjectId. Their lists had all other tasks after the tasks with a date.
    fn decode_old(text: &str) -> Option<Self> {
        let (millis, id) = text.split_once(':')?;
        millis.parse::<i64>().ok()?;
        let is_object_id =
            |text: &str| text.len() == 24 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let id = match id.strip_prefix('=').filter(|_| is_object_id(id.trim_start_matches('='))) {
            Some(text) => TaskId::parse(text)?.of_kind(TaskId::TEXT),
            None if is_object_id(id) => TaskId::parse(id)?.of_kind(TaskId::OBJECT_ID),
            None => TaskId::parse(id)?.of_kind(TaskId::TEXT),
        };
        Some(Self { run_cursors: vec![RunCursor { run: DATED_RUN, created_at: millis.to_owned(), id }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let id = |text: &str, kind| TaskId::parse(text).expect("an id").of_kind(kind);
        let run_cursors = vec![
            RunCursor { run: 'd', created_at: "-5".into(), id: id("t", 1) },
            RunCursor { run: 't', created_at: "2026-01-01T00:00:00Z".into(), id: id("42", 2) },
            RunCursor { run: 'n', created_at: String::new(), id: id("\"🦀", 1) },
        ];
        let cursor = Cursor { run_cursors };
        let read = Cursor::decode(&cursor.encode()).expect("round trip");
        assert_eq!(read, cursor);
        let kinds: Vec<u8> = read.run_cursors.iter().map(|run_cursor| run_cursor.id.kind()).collect();
        assert_eq!(kinds, [1, 2, 1]);
    }

    #[test]
    fn a_cursor_of_an_earlier_release_is_read() {
        let hex = "65a1b2c3d4e5f60718293a4b";
        for (text, created_at, id, kind) in [
            ("1500:a:b".to_owned(), "1500", "a:b", TaskId::TEXT),
            (format!("-3:{hex}"), "-3", hex, TaskId::OBJECT_ID),
            (format!("-3:={hex}"), "-3", hex, TaskId::TEXT),
        ] {
            let read = Cursor::decode(&BASE64_URL_SAFE_NO_PAD.encode(text)).expect("read");
            let [run_cursor] = &read.run_cursors[..] else { panic!("{read:?}") };
            assert_eq!((run_cursor.run, &*run_cursor.created_at), (DATED_RUN, created_at));
            assert_eq!((run_cursor.id.as_str(), run_cursor.id.kind()), (id, kind));
        }
    }

    #[test]
    fn a_text_that_is_not_a_cursor_is_refused() {
        for text in [
            "",
            ":t",
            "x:t",
            "1500",
            "1500:",
            "[]",
            "[[]]",
            "[[\"d\",\"1\",1,\"\"]]",
            "[[\"dd\",\"1\",1,\"t\"]]",
            "{}",
        ] {
            assert_eq!(Cursor::decode(&BASE64_URL_SAFE_NO_PAD.encode(text)), Err(InvalidCursor), "{text}");
        }
        assert_eq!(Cursor::decode("?"), Err(InvalidCursor));
    }
}
