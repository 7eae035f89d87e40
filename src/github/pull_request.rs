//! Computes what a delivery about a pull request changes in its task.
//!
//! Each payload is a snapshot of the pull request at its `updated_at`. The task keeps the time of the newest snapshot that
//! was applied ([`APPLIED_FIELD`]). Deliveries may therefore arrive in any order: a newer snapshot is applied, an older one is not.
//! A merge is final, so it is always applied.

use serde_json::{Map, Value, json};

use super::{
    entry::{clipped, web_link},
    payload,
    search::{number, text},
};
use crate::task::{Assigned, Field, Status, Task, Timestamp};

/// The field of a task that holds the number and the time of the newest snapshot. The server never sends it to a client.
pub(super) const APPLIED_FIELD: &str = "githubPrSeen";
const MAX_TITLE: usize = 500;
/// The length of a SHA-256 hash in hexadecimal.
pub(super) const MAX_SHA: usize = 64;

/// The state of a pull request in one payload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Snapshot {
    action: Action,
    number: u64,
    url: Option<String>,
    title: Option<String>,
    pub state: State,
    merge_commit_sha: Option<String>,
    merged_at: Option<Timestamp>,
    updated_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Draft,
    Merged,
    Closed,
}

/// The action of a delivery, in addition to its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The first action of every pull request.
    Opened,
    /// Changes the task's status: `reopened`, `ready_for_review`, `closed`.
    ChangesStatus,
    ConvertedToDraft,
    Edited,
    Other,
}

/// How a snapshot relates to the newest one that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Newer,
    /// Two snapshots can have the same time, because GitHub's times are whole seconds.
    Same,
    Older,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Draft => "draft",
            Self::Merged => "merged",
            Self::Closed => "closed",
        }
    }

    fn of(text: &str) -> Option<Self> {
        [Self::Open, Self::Draft, Self::Merged, Self::Closed].into_iter().find(|state| state.as_str() == text)
    }

    fn is_live(self) -> bool {
        matches!(self, Self::Open | Self::Draft)
    }
}

impl Snapshot {
    /// `None` means that the payload has no usable `updated_at`.
    pub(super) fn of(action: &str, pr: &payload::PullRequest) -> Option<Self> {
        let merged = pr.merged.unwrap_or(false) || pr.merged_at.is_some();
        let state = match (merged, pr.state.as_deref()) {
            (true, _) => State::Merged,
            (false, Some("closed")) => State::Closed,
            _ if pr.draft.unwrap_or(false) => State::Draft,
            _ => State::Open,
        };
        let time = |text: &Option<String>| text.as_deref().and_then(Timestamp::parse);
        Some(Self {
            action: match action {
                "opened" => Action::Opened,
                "reopened" | "ready_for_review" | "closed" => Action::ChangesStatus,
                "converted_to_draft" => Action::ConvertedToDraft,
                "edited" => Action::Edited,
                _ => Action::Other,
            },
            number: pr.number,
            url: web_link(pr.html_url.as_deref()),
            title: pr.title.as_deref().map(|title| clipped(title, MAX_TITLE)),
            state,
            merge_commit_sha: pr.merge_commit_sha.clone().filter(|sha| merged && sha.len() <= MAX_SHA),
            merged_at: time(&pr.merged_at),
            updated_at: time(&pr.updated_at)?,
        })
    }

    /// The fields that this snapshot changes. The list is empty if the snapshot changes nothing.
    pub(super) fn assignments(&self, task: &Task, document: &Map<String, Value>) -> Vec<(Field, Assigned)> {
        let mut set = Vec::new();
        let Some(age) = self.age(task, document) else { return set };
        let is_merged = task.status() == Status::Merged;
        if self.state == State::Merged {
            self.assign_identity(&mut set);
            set.push((Field::Status, json_text(Status::Merged.as_str())));
            let sha = self.merge_commit_sha.as_deref().map(json_text);
            set.extend(sha.map(|sha| (Field::MergeCommitSha, sha)));
            set.extend(self.merged_at.map(|time| (Field::MergedAt, Assigned::Time(time))));
        } else if !is_merged && self.overrides(age) {
            self.assign_identity(&mut set);
            if self.changes_status(task) {
                let status = if self.state.is_live() { Status::PrOpen } else { Status::Failed };
                set.push((Field::Status, json_text(status.as_str())));
            }
        }
        let changes_title = age == Age::Newer || (age == Age::Same && self.action == Action::Edited);
        set.extend(
            self.title.as_deref().filter(|_| changes_title).map(|title| (Field::PrTitle, json_text(title))),
        );
        set
    }

    /// The new value of [`APPLIED_FIELD`], if this snapshot is the newest.
    pub(super) fn applied_field_value(&self, task: &Task, document: &Map<String, Value>) -> Option<Value> {
        (self.age(task, document) == Some(Age::Newer))
            .then(|| json!({"number": self.number, "updatedAt": self.updated_at.to_string()}))
    }

    /// `None` means that the pull request is not, or not yet, the pull request of the task.
    fn age(&self, task: &Task, document: &Map<String, Value>) -> Option<Age> {
        let applied = AppliedSnapshot::of(document);
        let current = number(task, Field::PrNumber);
        if current == Some(self.number) {
            return Some(match applied.filter(|applied| applied.number == self.number) {
                Some(applied) if self.updated_at < applied.updated_at => Age::Older,
                Some(applied) if self.updated_at == applied.updated_at => Age::Same,
                _ => Age::Newer,
            });
        }
        // A pull request that ended long ago may name the same issue. A new label on that pull request does not end this task.
        let can_start_here = self.state.is_live() || self.action == Action::ChangesStatus;
        let is_free = current.is_none()
            || (is_over(task) && applied.is_none_or(|applied| self.updated_at > applied.updated_at));
        (can_start_here && is_free).then_some(Age::Newer)
    }

    /// Within one second the order of arrival is the best guess. Only an action that changes the state may then replace the
    /// state.
    fn overrides(&self, age: Age) -> bool {
        match age {
            Age::Newer => true,
            Age::Same => matches!(self.action, Action::ChangesStatus | Action::ConvertedToDraft),
            Age::Older => false,
        }
    }

    /// Returns whether the task's status changes too. Otherwise the status that the pipeline set stays: an edited title is no
    /// reason to leave `failed`. A state that differs shows that an action has happened whose delivery has not arrived yet.
    fn changes_status(&self, task: &Task) -> bool {
        let known = State::of(text(task, Field::PrState));
        matches!(self.action, Action::Opened | Action::ChangesStatus)
            || known.is_none_or(|known| known.is_live() != self.state.is_live())
    }

    fn assign_identity(&self, set: &mut Vec<(Field, Assigned)>) {
        set.push((Field::PrNumber, Assigned::Json(self.number.into())));
        set.extend(self.url.as_deref().map(|url| (Field::PrUrl, json_text(url))));
        set.push((Field::PrState, json_text(self.state.as_str())));
    }
}

/// Returns whether the task's own pull request has ended without a merge.
fn is_over(task: &Task) -> bool {
    match State::of(text(task, Field::PrState)) {
        Some(state) => state == State::Closed && task.status() != Status::Merged,
        None => task.status() == Status::Failed,
    }
}

/// The newest snapshot that was applied.
#[derive(Clone, Copy, Debug)]
struct AppliedSnapshot {
    number: u64,
    updated_at: Timestamp,
}

impl AppliedSnapshot {
    fn of(document: &Map<String, Value>) -> Option<Self> {
        let applied = document.get(APPLIED_FIELD)?;
        Some(Self {
            number: applied.get("number")?.as_u64()?,
            updated_at: Timestamp::parse(applied.get("updatedAt")?.as_str()?)?,
        })
    }
}

fn json_text(text: &str) -> Assigned {
    Assigned::Json(text.into())
}
