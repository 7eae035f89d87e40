//! The items of a feed: committed changes of tasks, and gaps between them.

use strum::{IntoStaticStr, VariantArray};

use crate::task::{Task, TaskId, TimelineEntry, Timestamp};

use super::Position;

/// One committed change of one task, with the task as it was before and after exactly this change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// A [`Position::change`]. The events of the change differ from it only in the index.
    pub position: Position,
    pub occurred_at: Timestamp,
    pub task: TaskId,
    /// `None` means that this change created the task.
    pub before: Option<Task>,
    /// `None` means that this change deleted the task.
    pub after: Option<Task>,
    pub timeline: TimelineChange,
}

/// The effect of a change on the timeline.
#[derive(Clone, Debug, PartialEq)]
pub enum TimelineChange {
    Unchanged,
    /// These entries were appended, in this order. A new task has the entries that it was created with.
    Added(Vec<TimelineEntry>),
    /// Entries were edited, removed or reordered. This is the whole timeline after the change.
    Rewritten(Vec<TimelineEntry>),
}

impl TimelineChange {
    /// These entries were appended, and no other entry changed.
    pub fn appended(entries: Vec<TimelineEntry>) -> Self {
        if entries.is_empty() { Self::Unchanged } else { Self::Added(entries) }
    }

    /// Compares both timelines to distinguish an append from every other change.
    pub fn between(before: &[TimelineEntry], after: Vec<TimelineEntry>) -> Self {
        if after.starts_with(before) {
            Self::appended(after.into_iter().skip(before.len()).collect())
        } else {
            Self::Rewritten(after)
        }
    }
}

/// An item of a feed.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedItem {
    /// The first item, and the first after a gap: every change after this position follows.
    Opened(Position),
    Change(Box<Change>),
    /// No other change happened up to and including this position. MongoDB's feed repeats it while nothing happens.
    Idle(Position),
    /// Changes up to the next `Opened` may have been missed: a new epoch begins.
    Gap(GapReason),
}

/// Why changes may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum GapReason {
    #[error("the change stream's history is lost")]
    History,
    #[error("the change stream can't be resumed")]
    Resume,
    #[error("a change came without its pre- or post-image")]
    Image,
    #[error("a change came without its time")]
    Time,
    #[error("the collection was dropped or renamed")]
    Dropped,
    #[error("the log was cut before it could be read")]
    LogCut,
}
