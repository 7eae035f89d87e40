//! The status of a task, and the class in which it is counted.

use std::fmt;

/// The status in a document. An unknown status is passed on to clients unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<'a> {
    Received,
    Analyzing,
    NeedsClarification,
    Dispatched,
    Coding,
    PrOpen,
    Merged,
    Failed,
    Unknown(&'a str),
}

/// The classes that `dashboard:task_count_changed` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    Active,
    Completed,
    Failed,
}

impl<'a> Status<'a> {
    /// The statuses that the pipeline knows, in its order.
    pub const KNOWN: [Status<'static>; 8] = [
        Status::Received,
        Status::Analyzing,
        Status::NeedsClarification,
        Status::Dispatched,
        Status::Coding,
        Status::PrOpen,
        Status::Merged,
        Status::Failed,
    ];

    pub fn of(text: &'a str) -> Self {
        Self::KNOWN.into_iter().find(|known| known.as_str() == text).unwrap_or(Status::Unknown(text))
    }

    pub fn as_str(&self) -> &'a str {
        match self {
            Status::Received => "received",
            Status::Analyzing => "analyzing",
            Status::NeedsClarification => "needs_clarification",
            Status::Dispatched => "dispatched",
            Status::Coding => "coding",
            Status::PrOpen => "pr_open",
            Status::Merged => "merged",
            Status::Failed => "failed",
            Status::Unknown(text) => text,
        }
    }

    /// A task that has not ended is active. A task with an unknown status counts as active as well.
    pub fn class(&self) -> StatusClass {
        match self {
            Status::Merged => StatusClass::Completed,
            Status::Failed => StatusClass::Failed,
            _ => StatusClass::Active,
        }
    }
}

impl fmt::Display for Status<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
