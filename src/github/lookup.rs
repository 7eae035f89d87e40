//! Lookup keys: the embedded store indexes them to find the task of a delivery without reading every task. The MongoDB store uses filters
//! (`store/mongo/select.rs`) instead.
//!
//! Each task that a criterion matches has one of the criterion's lookups ([`lookups`]), or the criterion names the task's id.
//! A lookup may also return tasks that the criterion does not match, so the caller checks with [`Criterion::matches`].

use super::{
    repository::Repository,
    search::{Criterion, number, text},
};
use crate::task::{Field, Task, TaskId};

/// The maximum length of a lookup. No criterion has a branch or a link that is so long.
const MAX_LOOKUP_BYTES: usize = 4096;

/// A key under which a criterion finds its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Id(TaskId),
    /// One of the texts that [`lookups`] gives for a task.
    Text(String),
}

/// The texts under which a task is found.
pub fn lookups(task: &Task) -> Vec<String> {
    let repo = text(task, Field::Repo);
    let found = if repo.is_empty() {
        let link = |kind, field| non_empty(text(task, field)).map(|url| link(kind, url));
        vec![link(PULL_REQUEST, Field::PrUrl), link(ISSUE, Field::IssueUrl)]
    } else {
        vec![
            number(task, Field::PrNumber).map(|number| numbered(PULL_REQUEST, repo, number)),
            number(task, Field::IssueNumber).map(|number| numbered(ISSUE, repo, number)),
            non_empty(text(task, Field::GithubBranch)).map(|branch| on_branch(repo, branch)),
        ]
    };
    found.into_iter().flatten().filter(|text| text.len() <= MAX_LOOKUP_BYTES).collect()
}

impl Criterion {
    /// The keys of the tasks that this criterion may match, without duplicates. They cover every name that the repository has had.
    pub fn lookups(&self) -> Vec<Lookup> {
        let mut texts = match self {
            Self::PullRequest { repo, number, url } => {
                numbered_or_linked(PULL_REQUEST, repo, *number, url.as_deref())
            }
            Self::Issue { repo, number, url } => numbered_or_linked(ISSUE, repo, *number, url.as_deref()),
            Self::Branch { repo, branch } | Self::CheckedBranch { repo, branch } => {
                repo.names().map(|name| on_branch(name, branch)).collect()
            }
            Self::TaskIds { ids, .. } => return ids.iter().cloned().map(Lookup::Id).collect(),
        };
        texts.sort_unstable();
        texts.dedup();
        texts.into_iter().map(Lookup::Text).collect()
    }
}

const PULL_REQUEST: &str = "pr";
const ISSUE: &str = "issue";

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn numbered_or_linked(kind: &str, repo: &Repository, number: u64, url: Option<&str>) -> Vec<String> {
    let numbers = repo.names().map(|name| numbered(kind, name, number));
    let links = url.map(|url| repo.links(url)).unwrap_or_default();
    numbers.chain(links.iter().map(|url| link(kind, url))).collect()
}

fn numbered(kind: &str, repo: &str, number: u64) -> String {
    format!("{kind} {} {number}", repo.to_ascii_lowercase())
}

fn on_branch(repo: &str, branch: &str) -> String {
    format!("branch {} {branch}", repo.to_ascii_lowercase())
}

fn link(kind: &str, url: &str) -> String {
    format!("{kind} link {url}")
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::{super::repository::NamePeriod, *};
    use crate::task::{DefaultOrg, Timestamp};

    const HOST: &str = "https://github.com";
    const NAMES: [&str; 5] = ["Acme/Web", "acme/web", "acme/Old", "ACME/old", "acme/other"];

    /// A link of a task or of a criterion. It leads into one of the repositories, or to another host.
    fn links() -> impl Strategy<Value = String> {
        let host = select(vec![HOST, "https://github.example"]);
        let path = select(vec!["/pull/1", "/pull/2", "/issues/1", ""]);
        (host, select(NAMES.to_vec()), path).prop_map(|(host, name, path)| format!("{host}/{name}{path}"))
    }

    /// A time at which a task is created, or at which a name period begins or ends.
    fn seconds() -> impl Strategy<Value = Option<Timestamp>> {
        option::of((0_i64..4).prop_map(|seconds| Timestamp::from_millis(seconds * 1000).expect("a time")))
    }

    prop_compose! {
        fn tasks()(
            repo in option::of(select([&NAMES[..], &["", "acme/web "]].concat())),
            pr in option::of(1_u64..3), issue in option::of(1_u64..3),
            branch in option::of(select(vec!["main", "Main", ""])),
            state in option::of(select(vec!["open", "closed"])),
            links in [option::of(links()), option::of(links())],
            made in seconds(), both in any::<bool>(),
        ) -> Task {
            let mut document = serde_json::Map::from_iter([("_id".to_owned(), json!("t"))]);
            let mut set = |name: &str, value: Option<Value>| document.extend(value.map(|value| (name.to_owned(), value)));
            let [pr_url, issue_url] = links;
            set("repo", repo.map(Value::from));
            set(if both { "prNumber" } else { "githubPrNumber" }, pr.map(Value::from));
            set(if both { "issueNumber" } else { "githubIssueNumber" }, issue.map(Value::from));
            set("githubBranch", branch.map(Value::from));
            set("prState", state.map(Value::from));
            set(if both { "prUrl" } else { "githubPrUrl" }, pr_url.map(Value::from));
            set("issueUrl", issue_url.map(Value::from));
            set("createdAt", made.map(|made| made.to_string().into()));
            Task::from_document(document, &DefaultOrg(None)).expect("a task")
        }
    }

    /// A repository that may have had other names, perhaps the same name twice. Its name may belong to another repository now.
    fn repositories() -> impl Strategy<Value = Repository> {
        let name_period = (select(NAMES.to_vec()), seconds(), seconds());
        let name_periods = vec(
            name_period.prop_map(|(name, from, until)| NamePeriod { name: name.to_owned(), from, until }),
            0..4,
        );
        (select(NAMES.to_vec()), option::of(name_periods)).prop_map(|(name, name_periods)| {
            let repository = Repository::new(HOST.to_owned(), Some(1), name.to_owned());
            let name_periods = name_periods.unwrap_or_else(|| repository.name_periods.clone());
            Repository { name_periods, ..repository }
        })
    }

    fn criteria() -> impl Strategy<Value = Criterion> {
        let branch = || select(vec!["main", "Main"]).prop_map(str::to_owned);
        let numbered = || (repositories(), 1_u64..3, option::of(links()));
        prop_oneof![
            numbered().prop_map(|(repo, number, url)| Criterion::PullRequest { repo, number, url }),
            numbered().prop_map(|(repo, number, url)| Criterion::Issue { repo, number, url }),
            (repositories(), branch()).prop_map(|(repo, branch)| Criterion::Branch { repo, branch }),
            (repositories(), branch()).prop_map(|(repo, branch)| Criterion::CheckedBranch { repo, branch }),
            repositories()
                .prop_map(|repo| Criterion::TaskIds { repo, ids: TaskId::parse("t").into_iter().collect() }),
        ]
    }

    fn is_looked_up(criterion: &Criterion, task: &Task) -> bool {
        let known = lookups(task);
        criterion.lookups().iter().any(|lookup| match lookup {
            Lookup::Id(id) => *id == task.id,
            Lookup::Text(text) => known.contains(text),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn a_criterion_looks_up_every_task_that_it_matches(task in tasks(), criterion in criteria()) {
            let is_looked_up = is_looked_up(&criterion, &task);
            prop_assert!(is_looked_up || !criterion.matches(&task), "{:?} does not look up {:?}", criterion, task);
        }

        #[test]
        fn a_criterion_asks_for_each_text_once(criterion in criteria()) {
            let lookups = criterion.lookups();
            for (n, lookup) in lookups.iter().enumerate() {
                prop_assert!(!lookups[..n].contains(lookup), "{:?}", lookups);
            }
        }
    }

    /// The property above is meaningful only if criteria match tasks. This test shows that they do.
    #[test]
    fn a_task_is_looked_up_under_each_name_and_link() {
        let name_period = |name: &str| NamePeriod { name: name.to_owned(), from: None, until: None };
        let repo = Repository {
            name_periods: vec![name_period("Acme/Web"), name_period("acme/Old")],
            ..Repository::new(HOST.to_owned(), Some(1), "Acme/Web".to_owned())
        };
        let url = |end: &str| Some(format!("{HOST}/Acme/Web/{end}"));
        let criteria = [
            Criterion::PullRequest { repo: repo.clone(), number: 1, url: url("pull/1") },
            Criterion::Issue { repo: repo.clone(), number: 1, url: url("issues/1") },
            Criterion::Branch { repo: repo.clone(), branch: "main".to_owned() },
            Criterion::CheckedBranch { repo, branch: "main".to_owned() },
        ];
        let found = |fields: Value| {
            let mut document = serde_json::Map::from_iter([("_id".to_owned(), json!("t"))]);
            document.extend(fields.as_object().expect("fields").clone());
            let task = Task::from_document(document, &DefaultOrg(None)).expect("a task");
            criteria
                .iter()
                .map(|criterion| criterion.matches(&task) && is_looked_up(criterion, &task))
                .collect::<Vec<_>>()
        };
        for name in ["acme/WEB", "ACME/old"] {
            assert_eq!(found(json!({"repo": name, "prNumber": 1})), [true, false, false, false], "{name}");
            assert_eq!(found(json!({"repo": name, "issueNumber": 1})), [false, true, false, false], "{name}");
            assert_eq!(
                found(json!({"repo": name, "githubBranch": "main"})),
                [false, false, true, true],
                "{name}"
            );
        }
        for name in ["Acme/Web", "acme/Old"] {
            let link = |end: &str| format!("{HOST}/{name}/{end}");
            assert_eq!(found(json!({"prUrl": link("pull/1")})), [true, false, false, false], "{name}");
            assert_eq!(found(json!({"issueUrl": link("issues/1")})), [false, true, false, false], "{name}");
        }
    }
}
