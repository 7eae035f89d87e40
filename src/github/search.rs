//! Which task a delivery is about.

use super::repository::Repository;
use crate::task::{Field, Status, Task, TaskId, Timestamp};

/// How the task can be found: the first way that leads to one counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    pub ways: Vec<Way>,
}

/// One way to find a task. Its `repo` is compared without regard to case, as GitHub does, with all names that the
/// repository has had. A task that has no `repo` is found by its link.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    PullRequest {
        repo: Repository,
        number: u64,
        url: Option<String>,
    },
    /// A branch of this repository. A fork's branch of the same name is another one.
    Branch {
        repo: Repository,
        branch: String,
    },
    /// The branch of a check that does not say which repository the branch is in. GitHub names the pull request if
    /// the branch is in `repo` and has one, so the branch of a task whose pull request is open is another one.
    CheckedBranch {
        repo: Repository,
        branch: String,
    },
    Issue {
        repo: Repository,
        number: u64,
        url: Option<String>,
    },
    /// Named by its id, in a repository that it belongs to, and without an issue yet.
    Named {
        repo: Repository,
        ids: Vec<TaskId>,
    },
}

impl Search {
    /// The task that is meant: of several, the newest that is not finished, else the newest.
    pub fn choose<'a>(&self, tasks: &[&'a Task]) -> Option<&'a Task> {
        self.ways.iter().find_map(|way| {
            tasks
                .iter()
                .copied()
                .filter(|task| way.leads_to(task))
                .max_by_key(|task| (is_open(task), created_at(task), task.id.clone()))
        })
    }

    pub fn leads_to(&self, task: &Task) -> bool {
        self.ways.iter().any(|way| way.leads_to(task))
    }
}

impl Way {
    pub(super) fn repo(&self) -> &Repository {
        match self {
            Self::PullRequest { repo, .. }
            | Self::Branch { repo, .. }
            | Self::CheckedBranch { repo, .. }
            | Self::Issue { repo, .. }
            | Self::Named { repo, .. } => repo,
        }
    }

    pub(super) fn repo_mut(&mut self) -> &mut Repository {
        match self {
            Self::PullRequest { repo, .. }
            | Self::Branch { repo, .. }
            | Self::CheckedBranch { repo, .. }
            | Self::Issue { repo, .. }
            | Self::Named { repo, .. } => repo,
        }
    }

    pub fn leads_to(&self, task: &Task) -> bool {
        let numbered =
            |repo: &Repository, field, wanted| number(task, field) == Some(wanted) && repo.has(task);
        let linked = |repo: &Repository, field, url: &Option<String>| {
            url.as_deref().is_some_and(|url| repo.is_linked(task, field, url))
        };
        let is_on =
            |repo: &Repository, branch: &str| text(task, Field::GithubBranch) == branch && repo.has(task);
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
            Self::Named { repo, ids } => {
                ids.contains(&task.id) && task.get(Field::IssueNumber).is_null() && repo.has(task)
            }
        }
    }
}

/// Whether it is not finished: a delivery means such a task rather than a finished one.
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

/// When the task was made, as it says itself, else as its id says if it is an ObjectId.
pub(super) fn made_at(task: &Task) -> Option<Timestamp> {
    let of_id = || {
        let id = task.id.as_str();
        let is_object_id = id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let seconds = i64::from_str_radix(id.get(..8).filter(|_| is_object_id)?, 16).ok()?;
        Timestamp::from_millis(seconds * 1000)
    };
    created_at(task).or_else(of_id)
}

/// `owner/name` as GitHub allows it. Nothing else gets into a filter.
pub(super) fn repo_name(name: &str) -> Option<String> {
    let (owner, repo) = name.split_once('/')?;
    let fine =
        |part: &str| !part.is_empty() && part.chars().all(is_repo_char) && part.chars().any(|c| c != '.');
    (name.len() <= 200 && fine(owner) && fine(repo)).then(|| name.to_owned())
}

pub(super) fn is_repo_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}
