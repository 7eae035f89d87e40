//! The repository that a delivery comes from, and the criteria for tasks of that repository.

use super::{
    entry::web_link,
    payload::{self, Origin},
    pull_request::MAX_SHA,
    reference::closed_issues,
    repository::{Relation, Repository},
    search::Criterion,
    source::ForkHead,
};

/// The approximate limit that Git has for a branch name.
const MAX_BRANCH_BYTES: usize = 500;

/// The repository that a delivery comes from, and what the payload says about it.
pub(super) struct RepositoryContext<'a> {
    pub repository: Repository,
    pub payload: &'a payload::Repository,
}

impl RepositoryContext<'_> {
    /// The criteria for the task of a pull request: its number, and its branch unless the branch is in another repository.
    pub(super) fn pull_request(&self, pr: &payload::PullRequest) -> Vec<Criterion> {
        let number = Criterion::PullRequest {
            repo: self.repository.clone(),
            number: pr.number,
            url: web_link(pr.html_url.as_deref()),
        };
        let own = pr.head.as_ref().filter(|_| !self.is_from_fork(pr));
        let branch = own.and_then(|head| usable_branch(head.branch.as_deref()));
        [number].into_iter().chain(branch.map(|branch| self.branch(branch))).collect()
    }

    pub(super) fn is_from_fork(&self, pr: &payload::PullRequest) -> bool {
        pr.head.as_ref().is_some_and(|head| self.repository.relation(&head.repo) == Relation::Foreign)
    }

    fn branch(&self, branch: String) -> Criterion {
        Criterion::Branch { repo: self.repository.clone(), branch }
    }

    pub(super) fn fork_head(&self, pr: &payload::PullRequest) -> Option<ForkHead> {
        let head = pr.head.as_ref().filter(|_| self.is_from_fork(pr))?;
        Some(ForkHead {
            number: pr.number,
            sha: usable_sha(head.sha.as_deref())?,
            fork: id_of(&head.repo),
            branch: usable_branch(head.branch.as_deref()),
        })
    }

    /// The issues that a text says it closes. References to repositories of other owners are ignored. Anyone can create a
    /// repository, so a text written in a repository of another owner must not close issues of this owner.
    pub(super) fn closed_by(&self, text: &str) -> impl Iterator<Item = Criterion> {
        let host = self.repository.host.as_str();
        closed_issues(text, host).into_iter().filter_map(move |reference| {
            let repo = match reference.repo {
                Some(name) if name.eq_ignore_ascii_case(&self.repository.name) => self.repository.clone(),
                Some(name) if self.repository.has_same_owner_as(&name) => {
                    self.repository.on_same_host(None, name)
                }
                Some(_) => return None,
                None => self.repository.clone(),
            };
            let url = Some(format!("{host}/{}/issues/{}", repo.name, reference.number));
            Some(Criterion::Issue { repo, number: reference.number, url })
        })
    }
}

pub(super) fn usable_branch(branch: Option<&str>) -> Option<String> {
    branch.filter(|branch| (1..=MAX_BRANCH_BYTES).contains(&branch.len())).map(str::to_owned)
}

pub(super) fn usable_sha(sha: Option<&str>) -> Option<String> {
    let sha = sha.filter(|sha| (1..=MAX_SHA).contains(&sha.len()))?;
    sha.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| sha.to_ascii_lowercase())
}

pub(super) fn id_of(origin: &Origin) -> Option<u64> {
    match origin {
        Origin::Repository(repository) => repository.id,
        Origin::Unknown | Origin::Deleted => None,
    }
}
