//! The identity of a repository. Users rename and transfer repositories, and another repository may take a freed name.
//! Only the id of a repository stays the same.

use super::{
    entry::web_link,
    payload::{self, Origin, RepositoryRef},
    search::{made_at, repo_name, text},
};
use crate::task::{Field, Task, Timestamp};

const DEFAULT_HOST: &str = "https://github.com";
/// GitHub's `author_association` for the owner, for members of the organisation, and for invited collaborators.
const INSIDERS: [&str; 3] = ["OWNER", "MEMBER", "COLLABORATOR"];

/// A repository as a payload names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    /// The GitHub server of the repository, such as `https://github.com`. Ids are unique on one server only.
    pub(super) host: String,
    pub(super) id: Option<u64>,
    pub(super) name: String,
    /// The names under which tasks of the repository may be stored. Until the store has been asked, this is only `name`.
    pub(super) name_periods: Vec<NamePeriod>,
}

/// A period during which the repository had a name. Tasks with that name that were created in the period belong to the
/// repository.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NamePeriod {
    pub name: String,
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// The relation between the origin of a branch or commit and a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Same,
    /// The origin is another repository: a fork, or a repository that has been deleted.
    Foreign,
    Unknown,
}

impl Repository {
    pub(super) fn of(repository: &payload::Repository) -> Option<Self> {
        let name = repo_name(&repository.full_name)?;
        let url = web_link(repository.html_url.as_deref()).unwrap_or_default();
        let host = url.strip_suffix(&format!("/{name}")).unwrap_or(DEFAULT_HOST).to_owned();
        Some(Self::new(host, repository.id, name))
    }

    pub(super) fn new(host: String, id: Option<u64>, name: String) -> Self {
        let name_periods = vec![NamePeriod { name: name.clone(), from: None, until: None }];
        Self { host, id, name, name_periods }
    }

    /// Another repository on the same GitHub server.
    pub(super) fn on_same_host(&self, id: Option<u64>, name: String) -> Self {
        Self::new(self.host.clone(), id, name)
    }

    /// The key of the repository in the stored facts. `None` means that the payload has no id.
    pub(super) fn key(&self) -> Option<String> {
        self.id.map(|id| format!("repository {} {id}", self.host))
    }

    pub(super) fn has_same_owner_as(&self, name: &str) -> bool {
        let owner = |name: &str| name.split('/').next().unwrap_or_default().to_ascii_lowercase();
        owner(&self.name) == owner(name)
    }

    fn is_same_repository(&self, other: &RepositoryRef) -> bool {
        RepositoryRef { id: self.id, full_name: Some(self.name.clone()) }.is_same_repository(other)
    }

    pub(super) fn relation(&self, origin: &Origin) -> Relation {
        match origin {
            Origin::Unknown => Relation::Unknown,
            Origin::Repository(other) if self.is_same_repository(other) => Relation::Same,
            Origin::Repository(_) | Origin::Deleted => Relation::Foreign,
        }
    }

    /// Each name under which a task of the repository may be stored.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.name_periods.iter().map(|name_period| name_period.name.as_str())
    }

    /// A link into the repository, and the same link under the repository's other names.
    pub fn links(&self, link: &str) -> Vec<String> {
        let path = link.strip_prefix(&format!("{}/{}", self.host, self.name));
        let mut links = vec![link.to_owned()];
        for name in path.iter().flat_map(|_| self.names()).filter(|name| *name != self.name) {
            links.push(format!("{}/{name}{}", self.host, path.unwrap_or_default()));
        }
        links
    }

    /// Returns whether the task's `repo` named this repository when the task was created.
    pub(super) fn owns(&self, task: &Task) -> bool {
        let named = text(task, Field::Repo);
        self.name_periods
            .iter()
            .any(|name_period| name_period.name.eq_ignore_ascii_case(named) && name_period.covers(task))
    }

    /// Returns whether the link in `field` equals `link`, under any of the repository's names. The task must have no `repo`.
    pub(super) fn is_linked(&self, task: &Task, field: Field, link: &str) -> bool {
        let found = text(task, field);
        text(task, Field::Repo).is_empty()
            && self.name_periods.iter().any(|name_period| {
                let prefix = format!("{}/{}", self.host, self.name);
                let under_this_name = match link.strip_prefix(&prefix) {
                    Some(path) => {
                        found.strip_prefix(&format!("{}/{}", self.host, name_period.name)) == Some(path)
                    }
                    None => found == link,
                };
                under_this_name && name_period.covers(task)
            })
    }
}

impl RepositoryRef {
    /// If both ids are known, only the ids decide: an id never changes, and another repository may take a freed name.
    /// Otherwise the names decide.
    pub(super) fn is_same_repository(&self, other: &Self) -> bool {
        match (self.id, other.id, &self.full_name, &other.full_name) {
            (Some(one), Some(two), ..) => one == two,
            (.., Some(one), Some(two)) => one.eq_ignore_ascii_case(two),
            _ => false,
        }
    }
}

impl NamePeriod {
    /// Returns whether the task was created in this period. A task without a creation time counts as created now.
    fn covers(&self, task: &Task) -> bool {
        match made_at(task) {
            None => self.until.is_none(),
            Some(made) => {
                self.from.is_none_or(|from| made >= from) && self.until.is_none_or(|until| made < until)
            }
        }
    }
}

/// Returns whether a text by this author may select a task. In a public repository anyone can open issues, and pull requests
/// from forks. `association` is GitHub's `author_association`; an author without one counts as an insider.
pub(super) fn is_insider(repository: &payload::Repository, association: Option<&str>) -> bool {
    repository.private == Some(true) || association.is_none_or(|association| INSIDERS.contains(&association))
}
