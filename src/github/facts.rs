//! Facts that taskcast learns from deliveries and stores beside the tasks: the names that each repository has had, and
//! the forks that the newest commits of pull requests came from.
//!
//! A fact is stored once, under its id, and never changes. Deliveries may therefore arrive repeatedly and in any order.
//! A store finds facts by their keys and does not interpret them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::repository::{NamePeriod, Repository};
use crate::task::Timestamp;

/// The maximum number of facts about the names of one repository. No more facts about its names are stored then.
const MAX_FACTS: usize = 100;
/// The maximum number of keys that are looked up for one delivery. Facts lead to other names, and these names lead to
/// other repositories.
const MAX_KEYS: usize = 200;

/// A statement that stays true. `at` is in milliseconds and comes from the clock of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// taskcast learnt at `at` that `repository` has this name. `created` is the time at which GitHub created the repository.
    Named { repository: String, name: String, created: Option<i64>, at: i64 },
    /// taskcast learnt at `at` that `repository` no longer has this name.
    Left { repository: String, name: String, at: i64 },
    /// A commit was the head of a pull request that came from a fork.
    Head { key: String, number: u64, fork: Option<u64>, branch: Option<String> },
}

/// A fact in the form in which it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct FactRecord {
    /// Two facts with the same id are the same fact. The store keeps the first one.
    pub id: String,
    /// The keys under which the store finds the fact.
    pub keys: Vec<String>,
    pub fact: Fact,
    /// `true` means that the store deletes the fact after [`HEAD_DAYS`](super::HEAD_DAYS).
    pub expires: bool,
}

/// The facts that the store has about one delivery, and the keys that the store has been asked for.
#[derive(Clone, Debug, Default)]
pub struct KnownFacts {
    queried_keys: BTreeSet<String>,
    facts: Vec<Fact>,
}

pub(super) fn name_key(host: &str, name: &str) -> String {
    format!("name {host} {}", name.to_ascii_lowercase())
}

impl FactRecord {
    /// `event` is the id of the delivery that states the fact explicitly. It is empty when the fact is only inferred, so
    /// that an inferred fact is stored once.
    pub(super) fn named(repository: &Repository, created: Option<i64>, at: i64, event: &str) -> Option<Self> {
        let key = repository.key()?;
        let name = repository.name.clone();
        let fact = Fact::Named { repository: key.clone(), name: name.clone(), created, at };
        Some(Self::of_name("named", key, &repository.host, &name, event, fact))
    }

    pub(super) fn left(repository: &Repository, name: &str, at: i64, event: &str) -> Option<Self> {
        let key = repository.key()?;
        let fact = Fact::Left { repository: key.clone(), name: name.to_owned(), at };
        Some(Self::of_name("left", key, &repository.host, name, event, fact))
    }

    fn of_name(kind: &str, key: String, host: &str, name: &str, event: &str, fact: Fact) -> Self {
        let id = format!("{kind} {key} {} {event}", name.to_ascii_lowercase());
        Self { id, keys: vec![key, name_key(host, name)], fact, expires: false }
    }
}

impl KnownFacts {
    /// Adds the facts that the store returned for `keys`.
    pub fn add(&mut self, keys: Vec<String>, facts: impl IntoIterator<Item = Fact>) {
        self.queried_keys.extend(keys);
        self.add_facts(facts);
    }

    pub fn add_facts(&mut self, facts: impl IntoIterator<Item = Fact>) {
        for fact in facts {
            if !self.facts.contains(&fact) {
                self.facts.push(fact);
            }
        }
    }

    /// The keys that the store has not been asked for yet. They come from `wanted` and from the facts that are known.
    pub(super) fn missing_keys(&self, wanted: impl IntoIterator<Item = String>, host: &str) -> Vec<String> {
        let mut keys: BTreeSet<String> = wanted.into_iter().collect();
        for fact in &self.facts {
            if let Fact::Named { repository, name, .. } | Fact::Left { repository, name, .. } = fact {
                keys.extend([repository.clone(), name_key(host, name)]);
            }
        }
        let remaining = MAX_KEYS.saturating_sub(self.queried_keys.len());
        keys.into_iter().filter(|key| !self.queried_keys.contains(key)).take(remaining).collect()
    }

    /// Returns whether the limit of facts about the repository's names is reached.
    pub(super) fn is_full(&self, repository: &str) -> bool {
        let about = |fact: &&Fact| match fact {
            Fact::Named { repository: other, .. } | Fact::Left { repository: other, .. } => {
                other == repository
            }
            Fact::Head { .. } => false,
        };
        self.facts.iter().filter(about).count() >= MAX_FACTS
    }

    /// The pull requests from forks that had this commit as their head: number, fork, branch.
    pub(super) fn heads<'a>(
        &'a self,
        key: &str,
    ) -> impl Iterator<Item = (u64, Option<u64>, Option<&'a str>)> {
        self.facts.iter().filter_map(move |fact| match fact {
            Fact::Head { key: of, number, fork, branch } if of == key => {
                Some((*number, *fork, branch.as_deref()))
            }
            _ => None,
        })
    }

    /// The names that the repository has or had, in lower case and without duplicates.
    pub(super) fn names(&self, repository: &str) -> BTreeSet<String> {
        let name = |fact: &Fact| match fact {
            Fact::Named { repository: of, name, .. } | Fact::Left { repository: of, name, .. }
                if of == repository =>
            {
                Some(name.to_ascii_lowercase())
            }
            _ => None,
        };
        self.facts.iter().filter_map(name).collect()
    }

    /// Returns whether the repository has the name, according to the newest fact about both.
    pub(super) fn is_called(&self, repository: &str, name: &str) -> bool {
        self.called_since(repository, name).is_some_and(|since| since > self.left_at(repository, name))
    }

    pub(super) fn has_left(&self, repository: &str, name: &str) -> bool {
        let left = self.left_at(repository, name);
        left > i64::MIN && !self.is_called(repository, name)
    }

    fn called_since(&self, repository: &str, name: &str) -> Option<i64> {
        let at = self.users(name).filter(|(user, ..)| *user == repository).map(|(_, _, at)| at);
        at.max()
    }

    fn left_at(&self, repository: &str, name: &str) -> i64 {
        let at = self.departures(name).filter(|(of, _)| *of == repository).map(|(_, at)| at);
        at.max().unwrap_or(i64::MIN)
    }

    /// The repositories that have had the name: each with its creation time and the time of the fact.
    fn users<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, Option<i64>, i64)> {
        self.facts.iter().filter_map(move |fact| match fact {
            Fact::Named { repository, name: of, created, at } if of.eq_ignore_ascii_case(name) => {
                Some((repository.as_str(), *created, *at))
            }
            _ => None,
        })
    }

    fn departures<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, i64)> {
        self.facts.iter().filter_map(move |fact| match fact {
            Fact::Left { repository, name: of, at } if of.eq_ignore_ascii_case(name) => {
                Some((repository.as_str(), *at))
            }
            _ => None,
        })
    }

    /// The repositories that have the name, as far as taskcast knows, oldest first. There can be several, when no delivery has
    /// reported that one of them lost the name.
    pub(super) fn current_users(&self, host: &str, name: &str) -> Vec<&str> {
        let here = format!("repository {host} ");
        let mut current: Vec<(Option<i64>, i64, &str)> = self
            .users(name)
            .filter(|(user, ..)| user.starts_with(&here) && self.is_called(user, name))
            .map(|(user, created, at)| (created, at, user))
            .collect();
        current.sort_unstable();
        let mut users: Vec<&str> = Vec::new();
        for (_, _, user) in current {
            if !users.contains(&user) {
                users.push(user);
            }
        }
        users
    }

    /// The times at which repositories lost the name, each with its repository, in order of time. When two repositories
    /// seem to have the name, the one that was created earlier has lost it to the other one.
    fn history(&self, host: &str, name: &str) -> Vec<(i64, &str)> {
        let here = format!("repository {host} ");
        let mut history: Vec<(i64, &str)> =
            self.departures(name).filter(|(of, _)| of.starts_with(&here)).map(|(of, at)| (at, of)).collect();
        for pair in self.current_users(host, name).windows(2) {
            let &[older, newer] = pair else { continue };
            let first =
                |of: &str| self.users(name).filter(|(user, ..)| *user == of).min_by_key(|(.., at)| *at);
            if let (Some((_, was_made, _)), Some((_, made, at))) = (first(older), first(newer)) {
                history.push((made.filter(|made| Some(*made) > was_made).unwrap_or(at), older));
            }
        }
        history.sort_unstable();
        history
    }

    /// The periods during which a task whose `repo` is `name` belonged to `repository`.
    fn name_periods(&self, repository: &Repository, key: &str, name: &str) -> Vec<NamePeriod> {
        let host = repository.host.as_str();
        let spelled = |from: Option<i64>, until: Option<i64>| NamePeriod {
            name: if repository.name.eq_ignore_ascii_case(name) { &repository.name } else { name }.to_owned(),
            from: from.and_then(Timestamp::from_millis),
            until: until.and_then(Timestamp::from_millis),
        };
        let history = self.history(host, name);
        let mut name_periods = Vec::new();
        let mut from = None;
        for (until, of) in history {
            if of == key {
                name_periods.push(spelled(from, Some(until)));
            }
            from = Some(until);
        }
        // A late delivery may still contain a former name of the repository.
        let is_called = repository.name.eq_ignore_ascii_case(name) && !self.has_left(key, name);
        let is_free = self.current_users(host, name).into_iter().all(|user| user == key);
        if is_called || is_free {
            name_periods.push(spelled(from, None));
        }
        name_periods
    }

    /// The repository with all names under which its tasks may be stored.
    pub(super) fn with_known_facts(&self, repository: &Repository) -> Repository {
        let owner = self.current_users(&repository.host, &repository.name);
        let key = match (repository.key(), owner.as_slice()) {
            (Some(key), _) => key,
            // The payload has only a name, and it may be a former name.
            (None, [.., user]) => (*user).to_owned(),
            (None, []) => match self.history(&repository.host, &repository.name).last() {
                Some((_, last)) => (*last).to_owned(),
                None => return repository.clone(),
            },
        };
        let mut names = self.names(&key);
        names.insert(repository.name.to_ascii_lowercase());
        let spelled = |lower: &str| {
            let same = |fact: &Fact| match fact {
                Fact::Named { repository, name, .. } | Fact::Left { repository, name, .. } => {
                    (*repository == key && name.eq_ignore_ascii_case(lower)).then(|| name.clone())
                }
                Fact::Head { .. } => None,
            };
            self.facts.iter().find_map(same).unwrap_or_else(|| lower.to_owned())
        };
        let name_periods =
            names.iter().flat_map(|name| self.name_periods(repository, &key, &spelled(name))).collect();
        Repository { name_periods, ..repository.clone() }
    }
}
