//! What taskcast has learnt from deliveries and keeps beside the tasks: which names each repository has had, and
//! from which fork the newest commits of pull requests came.
//!
//! A fact is stored once, under its id, and never changed. So it does not matter how often or in which order the
//! deliveries come that teach it. A store finds facts by their keys and knows nothing else of them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::repository::{Repository, Tenure};
use crate::task::Timestamp;

/// A repository that has been renamed so often is not learnt about any more.
const MAX_FACTS: usize = 100;
/// Of one delivery. Facts lead to other names, those to other repositories.
const MAX_KEYS: usize = 200;

/// Something that does not become untrue. Times are milliseconds of this node's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// From `at` on, `repository` was known under `name`. `created` is when GitHub made the repository.
    Named { repository: String, name: String, created: Option<i64>, at: i64 },
    /// At `at`, `repository` was known not to be called `name` any more.
    Left { repository: String, name: String, at: i64 },
    /// A commit was the head of a pull request that came from a fork.
    Head { key: String, number: u64, fork: Option<u64>, branch: Option<String> },
}

/// A fact as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson {
    /// A fact with the same id is the same fact: the store keeps the first.
    pub id: String,
    /// What it is found by.
    pub keys: Vec<String>,
    pub fact: Fact,
    /// Whether the store forgets it after [`HEAD_DAYS`](super::HEAD_DAYS).
    pub expires: bool,
}

/// The facts that the store has about one delivery, and what it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Known {
    asked: BTreeSet<String>,
    facts: Vec<Fact>,
}

pub(super) fn name_key(host: &str, name: &str) -> String {
    format!("name {host} {}", name.to_ascii_lowercase())
}

impl Lesson {
    /// `event`: the delivery that says so. What has no such delivery is learnt once.
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

impl Known {
    /// Takes in what the store answered when it was asked for `keys`.
    pub fn add(&mut self, keys: Vec<String>, facts: impl IntoIterator<Item = Fact>) {
        self.asked.extend(keys);
        self.learn(facts);
    }

    pub fn learn(&mut self, facts: impl IntoIterator<Item = Fact>) {
        for fact in facts {
            if !self.facts.contains(&fact) {
                self.facts.push(fact);
            }
        }
    }

    /// Those of `wanted`, and of what is known of them, that the store was not asked for yet.
    pub(super) fn unasked(&self, wanted: impl IntoIterator<Item = String>, host: &str) -> Vec<String> {
        let mut keys: BTreeSet<String> = wanted.into_iter().collect();
        for fact in &self.facts {
            if let Fact::Named { repository, name, .. } | Fact::Left { repository, name, .. } = fact {
                keys.extend([repository.clone(), name_key(host, name)]);
            }
        }
        let room = MAX_KEYS.saturating_sub(self.asked.len());
        keys.into_iter().filter(|key| !self.asked.contains(key)).take(room).collect()
    }

    /// Whether nothing more about the repository is to be stored.
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

    /// The names that the repository has or had, each once, in lower case.
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

    /// Whether the repository was called so when it was last heard of.
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

    /// Who has had the name: repository, when it was made, since when it is known to have the name.
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

    /// Who has the name, as far as is known. There is one, unless nobody has said that another one lost it.
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

    /// When the name was given up, by whom, in the order of time. Of two repositories that both are called so, the
    /// one that was made earlier has lost the name by the time the other one had it.
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

    /// The times during which tasks that name `name` were tasks of `repository`, which now says that it is called
    /// `now_called`.
    fn tenures(&self, repository: &Repository, key: &str, name: &str) -> Vec<Tenure> {
        let host = repository.host.as_str();
        let spelled = |from: Option<i64>, until: Option<i64>| Tenure {
            name: if repository.name.eq_ignore_ascii_case(name) { &repository.name } else { name }.to_owned(),
            from: from.and_then(Timestamp::from_millis),
            until: until.and_then(Timestamp::from_millis),
        };
        let history = self.history(host, name);
        let mut tenures = Vec::new();
        let mut from = None;
        for (until, of) in history {
            if of == key {
                tenures.push(spelled(from, Some(until)));
            }
            from = Some(until);
        }
        // A late delivery may still say the name that the repository had.
        let is_called = repository.name.eq_ignore_ascii_case(name) && !self.has_left(key, name);
        let is_free = self.current_users(host, name).into_iter().all(|user| user == key);
        if is_called || is_free {
            tenures.push(spelled(from, None));
        }
        tenures
    }

    /// The repository with all names under which its tasks may be stored.
    pub(super) fn informed(&self, repository: &Repository) -> Repository {
        let owner = self.current_users(&repository.host, &repository.name);
        let key = match (repository.key(), owner.as_slice()) {
            (Some(key), _) => key,
            // Only its name was said, perhaps one that it had before.
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
        let tenures = names.iter().flat_map(|name| self.tenures(repository, &key, &spelled(name))).collect();
        Repository { tenures, ..repository.clone() }
    }
}
