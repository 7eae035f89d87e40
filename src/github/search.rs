//! Which task a delivery is about.

use crate::task::{Field, Status, Task, TaskId, Timestamp};

/// How the task can be found: the first way that leads to one counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    pub ways: Vec<Way>,
}

/// One way to find a task. `repo` is compared without regard to case, as GitHub does. A task that has no
/// `repo` is found by its link.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    PullRequest {
        repo: String,
        number: u64,
        url: Option<String>,
    },
    Branch {
        repo: String,
        branch: String,
    },
    Issue {
        repo: String,
        number: u64,
        url: Option<String>,
    },
    /// Named by its id, in a repository that it belongs to, and without an issue yet.
    Named {
        repo: String,
        ids: Vec<TaskId>,
    },
}

impl Search {
    /// The task that is meant: of several, the newest that is not finished, else the newest.
    pub fn choose<'a>(&self, tasks: &[&'a Task]) -> Option<&'a Task> {
        self.ways.iter().find_map(|way| {
            tasks.iter().copied().filter(|task| way.leads_to(task)).max_by_key(|task| {
                let finished = matches!(task.status(), Status::Merged | Status::Failed);
                (!finished, created_at(task), task.id.clone())
            })
        })
    }

    pub fn leads_to(&self, task: &Task) -> bool {
        self.ways.iter().any(|way| way.leads_to(task))
    }
}

impl Way {
    fn leads_to(&self, task: &Task) -> bool {
        let belongs_to = |repo: &str| text(task, Field::Repo).eq_ignore_ascii_case(repo);
        let by_link = |url: &Option<String>, field| {
            url.as_ref().is_some_and(|url| text(task, Field::Repo).is_empty() && text(task, field) == url)
        };
        match self {
            Self::PullRequest { repo, number, url } => {
                (belongs_to(repo) && self::number(task, Field::PrNumber) == Some(*number))
                    || by_link(url, Field::PrUrl)
            }
            Self::Branch { repo, branch } => belongs_to(repo) && text(task, Field::GithubBranch) == branch,
            Self::Issue { repo, number, url } => {
                (belongs_to(repo) && self::number(task, Field::IssueNumber) == Some(*number))
                    || by_link(url, Field::IssueUrl)
            }
            Self::Named { repo, ids } => {
                ids.contains(&task.id) && belongs_to(repo) && task.get(Field::IssueNumber).is_null()
            }
        }
    }
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
