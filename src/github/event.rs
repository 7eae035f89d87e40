//! What each event means: how its task is found, what changes, what is told.

use serde_json::Value;

use super::{
    delivery::{Delivery, DeliveryId, NO_ACTION, Received, Subject, UnusableDelivery},
    entry::{Entry, web_link},
    payload::{self, Origin, Payload},
    pull_request::{MAX_SHA, Snapshot},
    reference::{MAX_REFERENCES, closed_issues},
    repository::{Relation, Repository, is_insider},
    search::{Search, Way, repo_name},
    source::{Checked, ForkHead, Moved, Source},
};
use crate::task::{TaskId, Timestamp};

/// Of one text at most.
const MAX_NAMED: usize = 10;
const MAX_NAMED_BYTES: usize = 256 * 1024;
/// Of one check at most.
const MAX_CHECKED: usize = 10;
/// Git allows no longer ones, give or take.
const MAX_BRANCH_BYTES: usize = 500;
const CHECKS: [&str; 3] = ["check_run", "check_suite", "workflow_run"];

const NO_REPOSITORY: &str = "the payload names no repository";
const NO_PULL_REQUEST: &str = "the payload names neither a pull request nor a branch";

/// What a delivery of an event that is used means.
pub(super) fn understood(
    id: DeliveryId,
    event: &str,
    action: &str,
    payload: &Payload,
) -> Result<Received, UnusableDelivery> {
    let named = payload.repository.as_ref();
    let Some((payload_of, repository)) = named.and_then(|named| Some((named, Repository::of(named)?))) else {
        return Ok(Received::Ignored(NO_REPOSITORY));
    };
    let place = Place { repository, payload: payload_of };
    let actor = payload.sender.as_ref().and_then(|sender| sender.login.as_deref());
    let mut source = source_of(&place, event, action, payload);
    let (ways, subject, entry) = match event {
        "repository" => (Vec::new(), Subject::Other, Entry::new(event)),
        "pull_request" => pull_request(&place, action, need(&payload.pull_request, "pull_request")?)?,
        "pull_request_review" => {
            let review = need(&payload.review, "review")?;
            review_of(&place, action, need(&payload.pull_request, "pull_request")?, review)
        }
        "issues" => issue(&place, action, need(&payload.issue, "issue")?),
        "issue_comment" => {
            let comment = need(&payload.comment, "comment")?;
            comment_on(&place, action, need(&payload.issue, "issue")?, comment)
        }
        _ if action != "completed" => return Ok(Received::Ignored(NO_ACTION)),
        _ => {
            let run = match event {
                "check_run" => &payload.check_run,
                "check_suite" => &payload.check_suite,
                _ => &payload.workflow_run,
            };
            let kind = CHECKS.into_iter().find(|kind| *kind == event).unwrap_or(CHECKS[0]);
            let run = need(run, kind)?;
            source.checked = checked(&place, run);
            if source.checked.is_none() && ways_of_check(&place, run).is_empty() {
                return Ok(Received::Ignored(NO_PULL_REQUEST));
            }
            check(&place, kind, run)
        }
    };
    let entry = entry.line("actor", actor);
    Ok(Received::Delivery(Box::new(Delivery { id, search: Search { ways }, source, subject, entry })))
}

/// What the payload says of its repository and of a fork's commit.
fn source_of(place: &Place<'_>, event: &str, action: &str, payload: &Payload) -> Source {
    let before = |action: &str| {
        let (owner, name) = place.repository.name.split_once('/')?;
        let from = |pointer: &str| payload.changes.pointer(pointer).and_then(Value::as_str);
        let old_name = from("/repository/name/from");
        let old_owner = from("/owner/from/user/login").or(from("/owner/from/organization/login"));
        let is_told = old_owner.is_some() || old_name.is_some();
        let before = format!("{}/{}", old_owner.unwrap_or(owner), old_name.unwrap_or(name));
        repo_name(&before).filter(|_| is_told && matches!(action, "renamed" | "transferred"))
    };
    let moved = match (event, action) {
        ("repository", "deleted") => Moved::Deleted,
        ("repository", action) => before(action).map_or(Moved::No, Moved::From),
        _ => Moved::No,
    };
    let created = match &place.payload.created_at {
        Value::String(text) => Timestamp::parse(text).map(Timestamp::millis),
        Value::Number(seconds) => seconds.as_i64().and_then(|seconds| seconds.checked_mul(1000)),
        _ => None,
    };
    let head = payload.pull_request.as_ref().and_then(|pr| place.fork_head(pr));
    Source { repository: place.repository.clone(), created, moved, head, checked: None }
}

type Understood = (Vec<Way>, Subject, Entry);

/// The repository that a delivery comes from, and the GitHub it is on.
struct Place<'a> {
    repository: Repository,
    payload: &'a payload::Repository,
}

impl Place<'_> {
    /// The ways to the task of a pull request: its number, and its branch if that is a branch of this repository.
    fn pull_request(&self, pr: &payload::PullRequest) -> Vec<Way> {
        let number = Way::PullRequest {
            repo: self.repository.clone(),
            number: pr.number,
            url: web_link(pr.html_url.as_deref()),
        };
        let own = pr.head.as_ref().filter(|_| !self.is_from_fork(pr));
        let branch = own.and_then(|head| usable_branch(head.branch.as_deref()));
        [number].into_iter().chain(branch.map(|branch| self.branch(branch))).collect()
    }

    fn is_from_fork(&self, pr: &payload::PullRequest) -> bool {
        pr.head.as_ref().is_some_and(|head| self.repository.relation(&head.repo) == Relation::Foreign)
    }

    fn branch(&self, branch: String) -> Way {
        Way::Branch { repo: self.repository.clone(), branch }
    }

    fn fork_head(&self, pr: &payload::PullRequest) -> Option<ForkHead> {
        let head = pr.head.as_ref().filter(|_| self.is_from_fork(pr))?;
        Some(ForkHead {
            number: pr.number,
            sha: usable_sha(head.sha.as_deref())?,
            fork: id_of(&head.repo),
            branch: usable_branch(head.branch.as_deref()),
        })
    }

    /// The issues that somebody's text says are closed. A repository of another owner may be anybody's, and so may
    /// be who writes there: what is written there closes nothing here.
    fn closed_by(&self, text: &str) -> impl Iterator<Item = Way> {
        let host = self.repository.host.as_str();
        closed_issues(text, host).into_iter().filter_map(move |reference| {
            let repo = match reference.repo {
                Some(name) if name.eq_ignore_ascii_case(&self.repository.name) => self.repository.clone(),
                Some(name) if self.repository.has_same_owner_as(&name) => self.repository.beside(None, name),
                Some(_) => return None,
                None => self.repository.clone(),
            };
            let url = Some(format!("{host}/{}/issues/{}", repo.name, reference.number));
            Some(Way::Issue { repo, number: reference.number, url })
        })
    }
}

fn usable_branch(branch: Option<&str>) -> Option<String> {
    branch.filter(|branch| (1..=MAX_BRANCH_BYTES).contains(&branch.len())).map(str::to_owned)
}

fn usable_sha(sha: Option<&str>) -> Option<String> {
    let sha = sha.filter(|sha| (1..=MAX_SHA).contains(&sha.len()))?;
    sha.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| sha.to_ascii_lowercase())
}

fn id_of(origin: &Origin) -> Option<u64> {
    match origin {
        Origin::Repository(repository) => repository.id,
        Origin::Unsaid | Origin::Deleted => None,
    }
}

fn pull_request(
    place: &Place<'_>,
    action: &str,
    pr: &payload::PullRequest,
) -> Result<Understood, UnusableDelivery> {
    let snapshot =
        Snapshot::of(action, pr).ok_or(UnusableDelivery::Lacks("a usable pull_request.updated_at"))?;
    let mut ways = place.pull_request(pr);
    // Whoever has pushed a branch to the repository may do so; a stranger can only push to a fork.
    let may_refer = !place.is_from_fork(pr) || is_insider(place.payload, pr.author_association.as_deref());
    let texts = [pr.title.as_deref(), pr.body.as_deref()].map(|text| text.filter(|_| may_refer));
    ways.extend(texts.into_iter().flatten().flat_map(|text| place.closed_by(text)).take(MAX_REFERENCES));
    let event_type = match (action, snapshot.state.as_str()) {
        ("closed", "merged") => "pr_merged".to_owned(),
        (action, _) => format!("pr_{action}"),
    };
    let entry = Entry::new(event_type)
        .number("prNumber", pr.number)
        .link("prUrl", pr.html_url.as_deref())
        .line("prTitle", pr.title.as_deref())
        .line("prState", Some(snapshot.state.as_str()));
    Ok((ways, Subject::PullRequest(snapshot), entry))
}

fn review_of(
    place: &Place<'_>,
    action: &str,
    pr: &payload::PullRequest,
    review: &payload::Remark,
) -> Understood {
    let entry = Entry::new("pr_review")
        .line("action", Some(action))
        .number("prNumber", pr.number)
        .line("state", review.state.as_deref());
    (place.pull_request(pr), Subject::Other, remark(entry, review))
}

fn issue(place: &Place<'_>, action: &str, issue: &payload::Issue) -> Understood {
    let url = web_link(issue.html_url.as_deref());
    let mut ways =
        vec![Way::Issue { repo: place.repository.clone(), number: issue.number, url: url.clone() }];
    // A pull request is an issue to GitHub, but not one that a task could have.
    let is_pull_request =
        issue.pull_request.is_some() || url.as_deref().is_some_and(|url| url.contains("/pull/"));
    let ids = named_tasks(issue.body.as_deref().unwrap_or_default());
    if !ids.is_empty() && !is_pull_request && is_insider(place.payload, issue.author_association.as_deref()) {
        ways.push(Way::Named { repo: place.repository.clone(), ids });
    }
    let entry = Entry::new(format!("issue_{action}"))
        .number("issueNumber", issue.number)
        .link("issueUrl", issue.html_url.as_deref())
        .line("issueTitle", issue.title.as_deref());
    (ways, Subject::Issue { number: issue.number, url }, entry)
}

fn comment_on(
    place: &Place<'_>,
    action: &str,
    issue: &payload::Issue,
    comment: &payload::Remark,
) -> Understood {
    let (repo, number) = (place.repository.clone(), issue.number);
    let pr = issue.pull_request.as_ref();
    let url = web_link(pr.and_then(|pr| pr.html_url.as_deref()));
    let mut ways = vec![Way::PullRequest { repo: repo.clone(), number, url }];
    if pr.is_none() {
        ways.push(Way::Issue { repo, number, url: web_link(issue.html_url.as_deref()) });
    }
    let (event_type, name) =
        if pr.is_some() { ("pr_comment", "prNumber") } else { ("issue_comment", "issueNumber") };
    let entry = Entry::new(event_type).line("action", Some(action)).number(name, number);
    (ways, Subject::Comment { number }, remark(entry, comment))
}

fn remark(entry: Entry, remark: &payload::Remark) -> Entry {
    let author = remark.user.as_ref().and_then(|user| user.login.as_deref());
    entry
        .line("author", author)
        .link("url", remark.html_url.as_deref())
        .remark("text", remark.body.as_deref())
}

fn check(place: &Place<'_>, kind: &str, run: &payload::Run) -> Understood {
    let name = run.name.as_deref().or(run.app.as_ref().and_then(|app| app.name.as_deref()));
    let entry = Entry::new("ci_completed")
        .line("kind", Some(kind))
        .line("name", name)
        .line("conclusion", run.conclusion.as_deref())
        .line("headSha", run.head_sha.as_deref())
        .link("url", run.html_url.as_deref());
    (ways_of_check(place, run), Subject::Other, entry)
}

/// The pull requests that a check names, then its branch.
fn ways_of_check(place: &Place<'_>, run: &payload::Run) -> Vec<Way> {
    let mut ways: Vec<Way> = named_pull_requests(place, run)
        .map(|pr| {
            let base = pr.base.as_ref().and_then(|base| base.repo.as_ref());
            // A fork's checks name the pull requests that go from it to the original.
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

/// GitHub compares branches by their names alone here, so a fork's run may be said to be of a pull request whose
/// branch has the same name.
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

/// The commit of a check that names no pull request: GitHub names none for commits of forks.
fn checked(place: &Place<'_>, run: &payload::Run) -> Option<Checked> {
    let names_none = named_pull_requests(place, run).next().is_none();
    Some(Checked {
        sha: usable_sha(run.head_sha.as_deref()).filter(|_| names_none)?,
        relation: run_relation(place, run),
        fork: id_of(&run.head_repository),
        branch: branch_of(run),
    })
}

/// From `https://api.github.com/repos/owner/name`.
fn repo_of_api(url: &str) -> Option<String> {
    repo_name(url.split_once("/repos/")?.1)
}

/// The words that look like a task's id.
fn named_tasks(text: &str) -> Vec<TaskId> {
    let mut ids: Vec<TaskId> = Vec::new();
    let text = &text[..text.floor_char_boundary(MAX_NAMED_BYTES)];
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        let is_id = word.len() == 24 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if let Some(id) = TaskId::parse(word).filter(|id| is_id && !ids.contains(id)) {
            ids.push(id);
        }
        if ids.len() == MAX_NAMED {
            break;
        }
    }
    ids
}

fn need<'a, T>(part: &'a Option<T>, name: &'static str) -> Result<&'a T, UnusableDelivery> {
    part.as_ref().ok_or(UnusableDelivery::Lacks(name))
}
