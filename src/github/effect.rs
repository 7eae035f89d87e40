//! Computes which fields of a task a delivery changes, and its timeline entry.

use serde_json::{Map, Value};

use super::{
    delivery::{Delivery, Subject},
    pull_request::APPLIED_FIELD,
    search::{number, text},
};
use crate::task::{Assigned, Field, NewEntry, Task, Timestamp, Writes};

impl Delivery {
    /// Fields of the document that [`Delivery::writes`] reads, in addition to the fields that clients see.
    pub const EXTRA_FIELDS: [&'static str; 1] = [APPLIED_FIELD];

    /// Computes the writes to `task`: always a timeline entry, and usually fields as well. `document` is the task's document
    /// without its timeline.
    pub fn writes(&self, task: &Task, document: &Map<String, Value>, now: Timestamp) -> Writes {
        let (assignments, applied) = match &self.subject {
            Subject::PullRequest(snapshot) => {
                (snapshot.assignments(task, document), snapshot.applied_field_value(task, document))
            }
            Subject::Issue { number, url } => (issue(task, *number, url.as_deref()), None),
            Subject::Comment { .. } | Subject::Other => (Vec::new(), None),
        };
        // Mongoose writes null for a field that has no value yet, and later reads the field under that name. A name that
        // exists in the document is therefore kept.
        let has = |name: &str| document.contains_key(name);
        let set = assignments
            .into_iter()
            .map(|(field, value)| (field.written_name(has), value))
            .chain(applied.map(|applied| (APPLIED_FIELD, Assigned::Json(applied))))
            .chain([("updatedAt", Assigned::Time(now))])
            .collect();
        let mut event_type = self.entry.event_type.clone();
        if let Subject::Comment { number: commented } = self.subject
            && number(task, Field::PrNumber) == Some(commented)
        {
            event_type = "pr_comment".to_owned();
        }
        let entry = NewEntry { event_type, payload: self.entry.payload.clone(), created_at: now };
        Writes { set, push_event: Some(entry) }
    }
}

/// The issue's number and link, where the task does not have them yet.
fn issue(task: &Task, issue: u64, url: Option<&str>) -> Vec<(Field, Assigned)> {
    let mut set = Vec::new();
    if task.get(Field::IssueNumber).is_null() {
        set.push((Field::IssueNumber, Assigned::Json(issue.into())));
    }
    if text(task, Field::IssueUrl).is_empty() {
        set.extend(url.map(|url| (Field::IssueUrl, Assigned::Json(url.into()))));
    }
    set
}
