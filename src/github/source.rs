//! Reads a delivery's information about its repository and about commits of forks, and applies known facts to the search.

use super::{
    delivery::{Delivery, DeliveryId},
    facts::{Fact, FactRecord, KnownFacts, name_key},
    repository::{Relation, Repository},
    search::{Criterion, Search},
};
use crate::task::Timestamp;

/// How long the commits of forks are stored. A check can be run again on GitHub for 30 days.
pub const HEAD_DAYS: u64 = 90;
/// The maximum number of pull requests that are tried for one commit.
const MAX_HEADS: usize = 10;

/// A delivery's information about its repository and its commit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    pub repository: Repository,
    /// When GitHub made the repository, in milliseconds.
    pub created: Option<i64>,
    pub name_change: NameChange,
    pub head: Option<ForkHead>,
    pub checked_commit: Option<CheckedCommit>,
}

/// A change of the repository's name that the delivery reports.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NameChange {
    None,
    /// The repository was renamed or transferred. The text is its former name.
    RenamedFrom(String),
    Deleted,
}

/// The newest commit of a pull request from a fork.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ForkHead {
    pub number: u64,
    pub sha: String,
    pub fork: Option<u64>,
    pub branch: Option<String>,
}

/// The commit of a check that names no pull request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CheckedCommit {
    pub sha: String,
    pub relation: Relation,
    pub fork: Option<u64>,
    pub branch: Option<String>,
}

impl Source {
    fn head_key(&self, sha: &str) -> String {
        let Repository { host, name, .. } = &self.repository;
        let repository = self.repository.key().unwrap_or_else(|| name_key(host, name));
        format!("head {repository} {sha}")
    }

    fn name_facts(&self, known: &KnownFacts, id: &DeliveryId, at: i64) -> Vec<FactRecord> {
        let Some(key) = self.repository.key().filter(|key| !known.is_full(key)) else { return Vec::new() };
        let (repository, created, event) = (&self.repository, self.created, id.as_str());
        let name = repository.name.as_str();
        let left = |name: &str, event: &str| {
            known.is_called(&key, name).then(|| FactRecord::left(repository, name, at, event)).flatten()
        };
        match &self.name_change {
            NameChange::RenamedFrom(before) if !before.eq_ignore_ascii_case(name) => {
                let is_new = !known.names(&key).contains(&before.to_ascii_lowercase());
                let lost = if is_new {
                    FactRecord::left(repository, before, at, event)
                } else {
                    left(before, event)
                };
                let named = (!known.is_called(&key, name))
                    .then(|| FactRecord::named(repository, created, at, event))
                    .flatten();
                lost.into_iter().chain(named).collect()
            }
            NameChange::Deleted => left(name, event).into_iter().collect(),
            // The repository has or had this name before, so there is nothing new to learn. The delivery may be late.
            _ if known.names(&key).contains(&name.to_ascii_lowercase()) => Vec::new(),
            // The name is new: the owner was renamed, or no delivery has reported the rename.
            _ => {
                let before = known.names(&key);
                let lost = before.iter().filter_map(|before| left(before, ""));
                lost.chain(FactRecord::named(repository, created, at, "")).collect()
            }
        }
    }

    fn head_fact(&self, known: &KnownFacts) -> Option<FactRecord> {
        let ForkHead { number, sha, fork, branch } = self.head.as_ref()?;
        let key = self.head_key(sha);
        let is_known = known.heads(&key).any(|head| head == (*number, *fork, branch.as_deref()));
        let fork_id = fork.map_or_else(|| "-".to_owned(), |fork| fork.to_string());
        let id = format!("{key} {number} {fork_id} {}", branch.as_deref().unwrap_or_default());
        let fact = Fact::Head { key: key.clone(), number: *number, fork: *fork, branch: branch.clone() };
        (!is_known).then(|| FactRecord { id, keys: vec![key], fact, expires: true })
    }
}

impl Delivery {
    /// The keys that the store must look up before the delivery's task can be searched. The caller adds the store's answer to
    /// `known` and calls this function again, until the list is empty.
    pub fn missing_keys(&self, known: &KnownFacts) -> Vec<String> {
        let source = &self.source;
        let repositories = self.search.criteria.iter().map(Criterion::repo).chain([&source.repository]);
        let keys = repositories.flat_map(|repo| [repo.key(), Some(name_key(&repo.host, &repo.name))]);
        let commits =
            [source.head.as_ref().map(|head| &head.sha), source.checked_commit.as_ref().map(|run| &run.sha)];
        let commits = commits.into_iter().flatten().map(|sha| source.head_key(sha));
        known.missing_keys(keys.flatten().chain(commits), &source.repository.host)
    }

    /// The facts that the delivery adds to `known`. The store writes them before it searches the task.
    pub fn new_facts(&self, known: &KnownFacts, now: Timestamp) -> Vec<FactRecord> {
        let mut new_facts = self.source.name_facts(known, &self.id, now.millis());
        new_facts.extend(self.source.head_fact(known));
        new_facts
    }

    /// The delivery with a search that uses the known facts.
    pub fn with_known_facts(&self, known: &KnownFacts) -> Self {
        let mut delivery = self.clone();
        delivery.search =
            Search { criteria: self.fork_criteria(known).unwrap_or_else(|| self.search.criteria.clone()) };
        for criterion in &mut delivery.search.criteria {
            let repo = known.with_known_facts(criterion.repo());
            *criterion.repo_mut() = repo;
        }
        delivery
    }

    /// The criteria for a check of a commit from a fork. Such a check belongs to the fork's pull request, not to a branch of the
    /// repository.
    fn fork_criteria(&self, known: &KnownFacts) -> Option<Vec<Criterion>> {
        let checked =
            self.source.checked_commit.as_ref().filter(|checked| checked.relation != Relation::Same)?;
        let key = self.source.head_key(&checked.sha);
        let mut numbers: Vec<u64> = known
            .heads(&key)
            .filter(|(_, fork, branch)| {
                let same_branch =
                    checked.branch.as_deref().zip(*branch).is_none_or(|(first, second)| first == second);
                same_branch && (checked.fork.is_none() || checked.fork == *fork)
            })
            .map(|(number, ..)| number)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.truncate(MAX_HEADS);
        let repo = &self.source.repository;
        let criterion = |number: u64| Criterion::PullRequest {
            repo: repo.clone(),
            number,
            url: Some(format!("{}/{}/pull/{number}", repo.host, repo.name)),
        };
        (!numbers.is_empty()).then(|| numbers.into_iter().map(criterion).collect())
    }
}
