//! Selects the task that a delivery is about.

use super::repository::Repository;
use crate::task::{Field, Status, Task, TaskId, Timestamp};

/// The criteria by which the task is found, in order. The first criterion that matches a task decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    pub criteria: Vec<Criterion>,
}

/// A criterion that selects tasks. The task's `repo` is compared with all names that the repository has had, ignoring case as
/// GitHub does. A task without `repo` is found by its link.
#[derive(Clone, Debug, PartialEq)]
pub enum Criterion {
    PullRequest {
        repo: Repository,
        number: u64,
        url: Option<String>,
    },
    /// A branch of this repository. A branch of a fork with the same name is a different branch.
    Branch {
        repo: Repository,
        branch: String,
    },
    /// The branch of a check that does not say which repository the branch is in. If the branch were in `repo` and had an open
    /// pull request, GitHub would name the pull request. This criterion therefore skips tasks whose pull request is open.
    CheckedBranch {
        repo: Repository,
        branch: String,
    },
    Issue {
        repo: Repository,
        number: u64,
        url: Option<String>,
    },
    /// Tasks whose ids are named in the text of an issue. The task must belong to the repository and have no issue yet.
    TaskIds {
        repo: Repository,
        ids: Vec<TaskId>,
    },
}

impl Search {
    /// The task that the delivery is about. If a criterion matches several tasks, the newest unfinished task is chosen. If all are
    /// finished, the newest one is chosen.
    pub fn choose<'a>(&self, tasks: &[&'a Task]) -> Option<&'a Task> {
        self.criteria.iter().find_map(|criterion| {
            tasks
                .iter()
                .copied()
                .filter(|task| criterion.matches(task))
                .max_by_key(|task| (is_open(task), created_at(task), task.id.clone()))
        })
    }

    pub fn matches(&self, task: &Task) -> bool {
        self.criteria.iter().any(|criterion| criterion.matches(task))
    }
}

impl Criterion {
    pub(super) fn repo(&self) -> &Repository {
        match self {
            Self::PullRequest { repo, .. }
            | Self::Branch { repo, .. }
            | Self::CheckedBranch { repo, .. }
            | Self::Issue { repo, .. }
            | Self::TaskIds { repo, .. } => repo,
        }
    }

    pub(super) fn repo_mut(&mut self) -> &mut Repository {
        match self {
            Self::PullRequest { repo, .. }
            | Self::Branch { repo, .. }
            | Self::CheckedBranch { repo, .. }
            | Self::Issue { repo, .. }
            | Self::TaskIds { repo, .. } => repo,
        }
    }

    pub fn matches(&self, task: &Task) -> bool {
        let numbered =
            |repo: &Repository, field, wanted| number(task, field) == Some(wanted) && repo.owns(task);
        let linked = |repo: &Repository, field, url: &Option<String>| {
            url.as_deref().is_some_and(|url| repo.is_linked(task, field, url))
        };
        let is_on =
            |repo: &Repository, branch: &str| text(task, Field::GithubBranch) == branch && repo.owns(task);
        match self {
            Self::PullRequest { repo, number, url } => {
                numbered(repo, Field::PrNumber, *number) || linked(repo, Field::PrUrl, url)
            }
            Self::Branch { repo, branch } => is_on(repo, branch),
            Self::CheckedBranch { repo, branch } => {
                is_on(repo, branch) && !matches!(text(task, Field::PrState), "open" | "draft")
            }
            Self::Issue { repo, number, url } => {
                numbered(repo, Field::IssueNumber, *number) || linked(repo, Field::IssueUrl, url)
            }
            Self::TaskIds { repo, ids } => {
                ids.contains(&task.id) && task.get(Field::IssueNumber).is_null() && repo.owns(task)
            }
        }
    }
}

/// Returns whether the task is not finished. An unfinished task is preferred to a finished one.
pub fn is_open(task: &Task) -> bool {
    !matches!(task.status(), Status::Merged | Status::Failed)
}

pub(super) fn number(task: &Task, field: Field) -> Option<u64> {
    task.get(field).as_u64()
}

pub(super) fn text(task: &Task, field: Field) -> &str {
    task.get(field).as_str().unwrap_or_default()
}

fn created_at(task: &Task) -> Option<Timestamp> {
    Timestamp::parse(text(task, Field::CreatedAt))
}

/// The creation time of the task: its `createdAt`, otherwise the time in its id if the id is an ObjectId.
pub(super) fn made_at(task: &Task) -> Option<Timestamp> {
    let of_id = || {
        let id = task.id.as_str();
        let is_object_id = id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let seconds = i64::from_str_radix(id.get(..8).filter(|_| is_object_id)?, 16).ok()?;
        Timestamp::from_millis(seconds * 1000)
    };
    created_at(task).or_else(of_id)
}

/// Accepts `owner/name` with the characters that GitHub allows. No other text gets into a filter.
pub(super) fn repo_name(name: &str) -> Option<String> {
    let (owner, repo) = name.split_once('/')?;
    let is_valid =
        |part: &str| !part.is_empty() && part.chars().all(is_repo_char) && part.chars().any(|c| c != '.');
    (name.len() <= 200 && is_valid(owner) && is_valid(repo)).then(|| name.to_owned())
}

pub(super) fn is_repo_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}
