//! The names of the events that clients receive.

/// Declares the names, and the list of those that changes cause.
macro_rules! names {
    (from_changes { $($from_change:ident = $name:literal,)+ } others { $($other:ident = $other_name:literal,)+ }) => {
        $(pub const $from_change: &str = $name;)+
        $(pub const $other: &str = $other_name;)+

        /// The events that changes cause, in task rooms and in dashboards.
        pub const FROM_CHANGES: &[&str] = &[$($from_change),+];
    };
}

names! {
    from_changes {
    TASK_STATE = "task:state",
    TASK_CREATED = "task:created",
    TASK_ANALYZING = "task:analyzing",
    TASK_CODING = "task:coding",
    TASK_CLARIFICATION_NEEDED = "task:clarification_needed",
    TASK_CLARIFIED = "task:clarified",
    TASK_DISPATCHED = "task:dispatched",
    TASK_PR_OPENED = "task:pr_opened",
    TASK_PR_MERGED = "task:pr_merged",
    TASK_PR_CLOSED = "task:pr_closed",
    TASK_FAILED = "task:failed",
    TASK_UPDATED = "task:updated",
    TASK_DELETED = "task:deleted",
    TASK_EVENT_ADDED = "task:event_added",
    DASHBOARD_TASK_LIST_UPDATED = "dashboard:task_list_updated",
    DASHBOARD_TASK_REMOVED = "dashboard:task_removed",
    DASHBOARD_TASK_COUNT_CHANGED = "dashboard:task_count_changed",
    }
    others {
    DASHBOARD_STATE = "dashboard:state",
    ERROR = "error",
    }
}
