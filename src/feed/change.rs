//! One committed change of one task.

use crate::task::{Task, TaskId, TimelineEntry, Timestamp};

use super::Position;

/// One committed change of one task, with the task as it was before and after exactly this change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// [`Position::change`]: its events take the indexes.
    pub position: Position,
    pub occurred_at: Timestamp,
    pub task: TaskId,
    /// None: this change created the task.
    pub before: Option<Task>,
    /// None: this change deleted the task.
    pub after: Option<Task>,
    pub timeline: TimelineChange,
}

/// What a change did to the timeline.
#[derive(Clone, Debug, PartialEq)]
pub enum TimelineChange {
    Unchanged,
    /// Appended, in order. Also what a new task was created with.
    Added(Vec<TimelineEntry>),
    /// Edited, removed, reordered, cut: the whole timeline after this change.
    Rewritten(Vec<TimelineEntry>),
}

impl TimelineChange {
    /// Tells an append from everything else by comparing both timelines.
    pub fn between(before: &[TimelineEntry], after: Vec<TimelineEntry>) -> Self {
        if after == before {
            Self::Unchanged
        } else if after.len() > before.len() && after[..before.len()] == *before {
            Self::Added(after.into_iter().skip(before.len()).collect())
        } else {
            Self::Rewritten(after)
        }
    }
}

/// What a feed tells.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedItem {
    /// The first item, and the first after a gap: every change after this position follows.
    Opened(Position),
    Change(Box<Change>),
    /// Nothing else happened up to and including this position. Told again while nothing does.
    Idle(Position),
    /// Changes up to the next `Opened` may have been missed: a new epoch begins.
    Gap(GapReason),
}

/// Why changes may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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

impl GapReason {
    pub const ALL: [Self; 6] =
        [Self::History, Self::Resume, Self::Image, Self::Time, Self::Dropped, Self::LogCut];

    /// In one word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Resume => "resume",
            Self::Image => "image",
            Self::Time => "time",
            Self::Dropped => "dropped",
            Self::LogCut => "log_cut",
        }
    }
}
