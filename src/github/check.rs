//! Check runs, check suites and workflow runs: finds the pull request or branch that each one is about.

use super::{
    delivery::Subject,
    entry::Entry,
    event::Understood,
    payload::{self, Origin},
    place::{Place, id_of, usable_branch, usable_sha},
    repository::Relation,
    search::{Way, repo_name},
    source::Checked,
};

/// The maximum number of pull requests that are read from one check.
const MAX_CHECKED: usize = 10;

pub(super) fn check(place: &Place<'_>, kind: &str, run: &payload::Run) -> Understood {
    let name = run.name.as_deref().or(run.app.as_ref().and_then(|app| app.name.as_deref()));
    let entry = Entry::new("ci_completed")
        .line("kind", Some(kind))
        .line("name", name)
        .line("conclusion", run.conclusion.as_deref())
        .line("headSha", run.head_sha.as_deref())
        .link("url", run.html_url.as_deref());
    (ways_of_check(place, run), Subject::Other, entry)
}

/// The pull requests that a check names come first, then its branch.
pub(super) fn ways_of_check(place: &Place<'_>, run: &payload::Run) -> Vec<Way> {
    let mut ways: Vec<Way> = named_pull_requests(place, run)
        .map(|pr| {
            let base = pr.base.as_ref().and_then(|base| base.repo.as_ref());
            // A check that runs in a fork names the pull requests from the fork to the original repository.
            let name = base.and_then(|repo| repo_of_api(repo.url.as_deref()?));
            let repo = match name {
                Some(name) if !name.eq_ignore_ascii_case(&place.repository.name) => {
                    place.repository.beside(base.and_then(|repo| repo.id), name)
                }
                _ => place.repository.clone(),
            };
            let url = Some(format!("{}/{}/pull/{}", repo.host, repo.name, pr.number));
            Way::PullRequest { repo, number: pr.number, url }
        })
        .collect();
    let repo = place.repository.clone();
    let names_one = !ways.is_empty();
    ways.extend(branch_of(run).and_then(|branch| match run_relation(place, run) {
        Relation::Foreign => None,
        Relation::Unsaid if !names_one => Some(Way::CheckedBranch { repo, branch }),
        Relation::Unsaid | Relation::Same => Some(Way::Branch { repo, branch }),
    }));
    ways
}

/// GitHub matches runs to pull requests by branch name only. A run of a fork may therefore name a pull request of this
/// repository whose branch has the same name. This function drops such pull requests.
fn named_pull_requests<'a>(
    place: &Place<'_>,
    run: &'a payload::Run,
) -> impl Iterator<Item = &'a payload::RunPullRequest> {
    let is_foreign = run_relation(place, run) == Relation::Foreign;
    let fork = id_of(&run.head_repository);
    let comes_from_there = move |pr: &&payload::RunPullRequest| {
        let head = pr.head.as_ref().and_then(|head| head.repo.as_ref()).and_then(|repo| repo.id);
        !is_foreign || (head.is_some() && head == fork)
    };
    run.pull_requests.iter().flatten().filter(comes_from_there).take(MAX_CHECKED)
}

fn run_relation(place: &Place<'_>, run: &payload::Run) -> Relation {
    let relation = place.repository.relation(&run.head_repository);
    match (&run.head_repository, &run.repository) {
        (Origin::Repository(head), Some(own)) if head.is(own) => Relation::Same,
        _ => relation,
    }
}

fn branch_of(run: &payload::Run) -> Option<String> {
    let suite = run.check_suite.as_ref();
    let branch = run.head_branch.as_deref().or(suite.and_then(|suite| suite.head_branch.as_deref()));
    usable_branch(branch)
}

/// The commit of a check that names no pull request. GitHub names no pull request for a commit of a fork.
pub(super) fn checked(place: &Place<'_>, run: &payload::Run) -> Option<Checked> {
    let names_none = named_pull_requests(place, run).next().is_none();
    Some(Checked {
        sha: usable_sha(run.head_sha.as_deref()).filter(|_| names_none)?,
        relation: run_relation(place, run),
        fork: id_of(&run.head_repository),
        branch: branch_of(run),
    })
}

/// Reads `owner/name` from `https://api.github.com/repos/owner/name`.
fn repo_of_api(url: &str) -> Option<String> {
    repo_name(url.split_once("/repos/")?.1)
}
