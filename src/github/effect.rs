//! What a delivery changes in its task.

use serde_json::{Map, Value};

use super::{
    delivery::{Delivery, Subject},
    pull_request::SEEN,
    search::{number, text},
};
use crate::task::{Assigned, Field, NewEntry, Task, Timestamp, Writes};

impl Delivery {
    /// Fields of a document that decide, beside those that clients see.
    pub const DECISIVE: [&'static str; 1] = [SEEN];

    /// What is to be written into `task`, whose document (without its timeline) is `document`: always a timeline
    /// entry, mostly more.
    pub fn writes(&self, task: &Task, document: &Map<String, Value>, now: Timestamp) -> Writes {
        let (assignments, seen) = match &self.subject {
            Subject::PullRequest(snapshot) => {
                (snapshot.assignments(task, document), snapshot.seen(task, document))
            }
            Subject::Issue { number, url } => (issue(task, *number, url.as_deref()), None),
            Subject::Comment { .. } | Subject::Other => (Vec::new(), None),
        };
        // Mongoose writes null for what is not there yet, and looks for it under that name later.
        let has = |name: &str| document.contains_key(name);
        let set = assignments
            .into_iter()
            .map(|(field, value)| (field.written_name(has), value))
            .chain(seen.map(|seen| (SEEN, Assigned::Json(seen))))
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

/// What the task does not know yet of its issue.
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
