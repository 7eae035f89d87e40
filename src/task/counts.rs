//! Counts of tasks by class of status.

use serde::Serialize;

use super::StatusClass;

/// The number of tasks in each class of statuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    #[serde(rename = "activeCount")]
    pub active: u64,
    #[serde(rename = "completedCount")]
    pub completed: u64,
    #[serde(rename = "failedCount")]
    pub failed: u64,
}

impl Counts {
    pub fn add(&mut self, class: StatusClass, n: u64) {
        let count = self.of(class);
        *count = count.saturating_add(n);
    }

    pub fn remove_one(&mut self, class: StatusClass) {
        let count = self.of(class);
        *count = count.saturating_sub(1);
    }

    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            active: self.active + other.active,
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
        }
    }

    pub fn total(&self) -> u64 {
        self.active + self.completed + self.failed
    }

    /// The counts without the tasks in `part`.
    pub fn minus(self, part: Counts) -> Counts {
        Counts {
            active: self.active.saturating_sub(part.active),
            completed: self.completed.saturating_sub(part.completed),
            failed: self.failed.saturating_sub(part.failed),
        }
    }

    fn of(&mut self, class: StatusClass) -> &mut u64 {
        match class {
            StatusClass::Active => &mut self.active,
            StatusClass::Completed => &mut self.completed,
            StatusClass::Failed => &mut self.failed,
        }
    }
}
