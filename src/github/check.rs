//! Check runs, check suites and workflow runs: finds the pull request or branch that each one is about.

use super::{
    delivery::Subject,
    entry::Entry,
    event::Interpretation,
    payload::{self, Origin},
    repository::Relation,
    repository_context::{RepositoryContext, id_of, usable_branch, usable_sha},
    search::{Criterion, repo_name},
    source::CheckedCommit,
};

/// The maximum number of pull requests that are read from one check.
const MAX_CHECKED: usize = 10;

pub(super) fn check(context: &RepositoryContext<'_>, kind: &str, run: &payload::Run) -> Interpretation {
    let name = run.name.as_deref().or(run.app.as_ref().and_then(|app| app.name.as_deref()));
    let entry = Entry::new("ci_completed")
        .line("kind", Some(kind))
        .line("name", name)
        .line("conclusion", run.conclusion.as_deref())
        .line("headSha", run.head_sha.as_deref())
        .link("url", run.html_url.as_deref());
    (check_criteria(context, run), Subject::Other, entry)
}

/// The pull requests that a check names come first, then its branch.
pub(super) fn check_criteria(context: &RepositoryContext<'_>, run: &payload::Run) -> Vec<Criterion> {
    let mut criteria: Vec<Criterion> = named_pull_requests(context, run)
        .map(|pr| {
            let base = pr.base.as_ref().and_then(|base| base.repo.as_ref());
            // A check that runs in a fork names the pull requests from the fork to the original repository.
            let name = base.and_then(|repo| repo_of_api(repo.url.as_deref()?));
            let repo = match name {
                Some(name) if !name.eq_ignore_ascii_case(&context.repository.name) => {
                    context.repository.on_same_host(base.and_then(|repo| repo.id), name)
                }
                _ => context.repository.clone(),
            };
            let url = Some(format!("{}/{}/pull/{}", repo.host, repo.name, pr.number));
            Criterion::PullRequest { repo, number: pr.number, url }
        })
        .collect();
    let repo = context.repository.clone();
    let names_pull_request = !criteria.is_empty();
    criteria.extend(branch_of(run).and_then(|branch| match run_relation(context, run) {
        Relation::Foreign => None,
        Relation::Unknown if !names_pull_request => Some(Criterion::CheckedBranch { repo, branch }),
        Relation::Unknown | Relation::Same => Some(Criterion::Branch { repo, branch }),
    }));
    criteria
}

/// GitHub matches runs to pull requests by branch name only. A run of a fork may therefore name a pull request of this
/// repository whose branch has the same name. This function drops such pull requests.
fn named_pull_requests<'a>(
    context: &RepositoryContext<'_>,
    run: &'a payload::Run,
) -> impl Iterator<Item = &'a payload::RunPullRequest> {
    let is_foreign = run_relation(context, run) == Relation::Foreign;
    let fork = id_of(&run.head_repository);
    let comes_from_fork = move |pr: &&payload::RunPullRequest| {
        let head = pr.head.as_ref().and_then(|head| head.repo.as_ref()).and_then(|repo| repo.id);
        !is_foreign || (head.is_some() && head == fork)
    };
    run.pull_requests.iter().flatten().filter(comes_from_fork).take(MAX_CHECKED)
}

fn run_relation(context: &RepositoryContext<'_>, run: &payload::Run) -> Relation {
    let relation = context.repository.relation(&run.head_repository);
    match (&run.head_repository, &run.repository) {
        (Origin::Repository(head), Some(own)) if head.is_same_repository(own) => Relation::Same,
        _ => relation,
    }
}

fn branch_of(run: &payload::Run) -> Option<String> {
    let suite = run.check_suite.as_ref();
    let branch = run.head_branch.as_deref().or(suite.and_then(|suite| suite.head_branch.as_deref()));
    usable_branch(branch)
}

/// The commit of a check that names no pull request. GitHub names no pull request for a commit of a fork.
pub(super) fn checked_commit(context: &RepositoryContext<'_>, run: &payload::Run) -> Option<CheckedCommit> {
    let names_no_pull_request = named_pull_requests(context, run).next().is_none();
    Some(CheckedCommit {
        sha: usable_sha(run.head_sha.as_deref()).filter(|_| names_no_pull_request)?,
        relation: run_relation(context, run),
        fork: id_of(&run.head_repository),
        branch: branch_of(run),
    })
}

/// Reads `owner/name` from `https://api.github.com/repos/owner/name`.
fn repo_of_api(url: &str) -> Option<String> {
    repo_name(url.split_once("/repos/")?.1)
}
