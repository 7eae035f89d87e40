//! The names of the events that clients receive.

pub const TASK_STATE: &str = "task:state";
pub const TASK_CREATED: &str = "task:created";
pub const TASK_ANALYZING: &str = "task:analyzing";
pub const TASK_CODING: &str = "task:coding";
pub const TASK_CLARIFICATION_NEEDED: &str = "task:clarification_needed";
pub const TASK_CLARIFIED: &str = "task:clarified";
pub const TASK_DISPATCHED: &str = "task:dispatched";
pub const TASK_PR_OPENED: &str = "task:pr_opened";
pub const TASK_PR_MERGED: &str = "task:pr_merged";
pub const TASK_PR_CLOSED: &str = "task:pr_closed";
pub const TASK_FAILED: &str = "task:failed";
pub const TASK_UPDATED: &str = "task:updated";
pub const TASK_DELETED: &str = "task:deleted";
pub const TASK_EVENT_ADDED: &str = "task:event_added";
pub const DASHBOARD_STATE: &str = "dashboard:state";
pub const DASHBOARD_TASK_LIST_UPDATED: &str = "dashboard:task_list_updated";
pub const DASHBOARD_TASK_REMOVED: &str = "dashboard:task_removed";
pub const DASHBOARD_TASK_COUNT_CHANGED: &str = "dashboard:task_count_changed";
pub const ERROR: &str = "error";

/// The events that changes cause, in task rooms and in dashboards.
pub const FROM_CHANGES: [&str; 17] = [
    TASK_STATE,
    TASK_CREATED,
    TASK_ANALYZING,
    TASK_CODING,
    TASK_CLARIFICATION_NEEDED,
    TASK_CLARIFIED,
    TASK_DISPATCHED,
    TASK_PR_OPENED,
    TASK_PR_MERGED,
    TASK_PR_CLOSED,
    TASK_FAILED,
    TASK_UPDATED,
    TASK_DELETED,
    TASK_EVENT_ADDED,
    DASHBOARD_TASK_LIST_UPDATED,
    DASHBOARD_TASK_REMOVED,
    DASHBOARD_TASK_COUNT_CHANGED,
];
