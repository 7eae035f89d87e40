//! What each event means: how its task is found, what changes, what is told.

use super::{
    delivery::{Delivery, DeliveryId, NO_ACTION, Received, Subject, UnusableDelivery},
    entry::{Entry, web_link},
    payload::{self, Payload},
    pull_request::Snapshot,
    reference::{MAX_REFERENCES, closed_issues},
    search::{Search, Way, repo_name},
};
use crate::task::TaskId;

/// Of one text at most.
const MAX_NAMED: usize = 10;
const MAX_NAMED_BYTES: usize = 256 * 1024;
/// Of one check at most.
const MAX_CHECKED: usize = 10;
/// Git allows no longer ones, give or take.
const MAX_BRANCH_BYTES: usize = 500;
const DEFAULT_HOST: &str = "https://github.com";

const NO_REPOSITORY: &str = "the payload names no repository";
const NO_PULL_REQUEST: &str = "the payload names neither a pull request nor a branch";

/// What a delivery of an event that is used means.
pub(super) fn understood(
    id: DeliveryId,
    event: &str,
    action: &str,
    payload: &Payload,
) -> Result<Received, UnusableDelivery> {
    let Some(place) = payload.repository.as_ref().and_then(Place::of) else {
        return Ok(Received::Ignored(NO_REPOSITORY));
    };
    let actor = payload.sender.as_ref().and_then(|sender| sender.login.as_deref());
    let (ways, subject, entry) = match event {
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
        "check_run" => check(&place, "check_run", need(&payload.check_run, "check_run")?),
        "check_suite" => check(&place, "check_suite", need(&payload.check_suite, "check_suite")?),
        _ => check(&place, "workflow_run", need(&payload.workflow_run, "workflow_run")?),
    };
    if ways.is_empty() {
        return Ok(Received::Ignored(NO_PULL_REQUEST));
    }
    let entry = entry.line("actor", actor);
    Ok(Received::Delivery(Box::new(Delivery { id, search: Search { ways }, subject, entry })))
}

type Understood = (Vec<Way>, Subject, Entry);

/// The repository that a delivery comes from, and the GitHub it is on.
struct Place {
    repo: String,
    host: String,
}

impl Place {
    fn of(repository: &payload::Repository) -> Option<Self> {
        let repo = repo_name(&repository.full_name)?;
        let url = web_link(repository.html_url.as_deref()).unwrap_or_default();
        let host = url.strip_suffix(&format!("/{repo}")).unwrap_or(DEFAULT_HOST).to_owned();
        Some(Self { repo, host })
    }

    fn pull_request(&self, pr: &payload::PullRequest) -> Vec<Way> {
        let number = Way::PullRequest {
            repo: self.repo.clone(),
            number: pr.number,
            url: web_link(pr.html_url.as_deref()),
        };
        let branch = pr.head.as_ref().and_then(|head| head.branch.as_deref());
        [number].into_iter().chain(self.branch(branch)).collect()
    }

    fn branch(&self, branch: Option<&str>) -> Option<Way> {
        let branch = branch.filter(|branch| (1..=MAX_BRANCH_BYTES).contains(&branch.len()))?.to_owned();
        Some(Way::Branch { repo: self.repo.clone(), branch })
    }

    fn closed_by(&self, text: &str) -> impl Iterator<Item = Way> {
        closed_issues(text, &self.host).into_iter().map(|reference| {
            let repo = reference.repo.unwrap_or_else(|| self.repo.clone());
            let url = Some(format!("{}/{repo}/issues/{}", self.host, reference.number));
            Way::Issue { repo, number: reference.number, url }
        })
    }
}

fn pull_request(
    place: &Place,
    action: &str,
    pr: &payload::PullRequest,
) -> Result<Understood, UnusableDelivery> {
    let snapshot =
        Snapshot::of(action, pr).ok_or(UnusableDelivery::Lacks("a usable pull_request.updated_at"))?;
    let mut ways = place.pull_request(pr);
    let texts = [pr.title.as_deref(), pr.body.as_deref()];
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

fn review_of(place: &Place, action: &str, pr: &payload::PullRequest, review: &payload::Remark) -> Understood {
    let entry = Entry::new("pr_review")
        .line("action", Some(action))
        .number("prNumber", pr.number)
        .line("state", review.state.as_deref());
    (place.pull_request(pr), Subject::Other, remark(entry, review))
}

fn issue(place: &Place, action: &str, issue: &payload::Issue) -> Understood {
    let url = web_link(issue.html_url.as_deref());
    let mut ways = vec![Way::Issue { repo: place.repo.clone(), number: issue.number, url: url.clone() }];
    // A pull request is an issue to GitHub, but not one that a task could have.
    let is_pull_request =
        issue.pull_request.is_some() || url.as_deref().is_some_and(|url| url.contains("/pull/"));
    let ids = named_tasks(issue.body.as_deref().unwrap_or_default());
    if !ids.is_empty() && !is_pull_request {
        ways.push(Way::Named { repo: place.repo.clone(), ids });
    }
    let entry = Entry::new(format!("issue_{action}"))
        .number("issueNumber", issue.number)
        .link("issueUrl", issue.html_url.as_deref())
        .line("issueTitle", issue.title.as_deref());
    (ways, Subject::Issue { number: issue.number, url }, entry)
}

fn comment_on(place: &Place, action: &str, issue: &payload::Issue, comment: &payload::Remark) -> Understood {
    let (repo, number) = (place.repo.clone(), issue.number);
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

fn check(place: &Place, kind: &str, run: &payload::Run) -> Understood {
    let prs = run.pull_requests.iter().flatten().take(MAX_CHECKED);
    let mut ways: Vec<Way> = prs
        .map(|pr| {
            let base = pr.base.as_ref().and_then(|base| base.repo.as_ref());
            // A fork's checks name the pull requests that go from it to the original.
            let repo = base.and_then(|repo| repo_of_api(repo.url.as_deref()?));
            let repo = repo.unwrap_or_else(|| place.repo.clone());
            let url = Some(format!("{}/{repo}/pull/{}", place.host, pr.number));
            Way::PullRequest { repo, number: pr.number, url }
        })
        .collect();
    let suite = run.check_suite.as_ref();
    let branch = run.head_branch.as_deref().or(suite.and_then(|suite| suite.head_branch.as_deref()));
    ways.extend(place.branch(branch));
    let name = run.name.as_deref().or(run.app.as_ref().and_then(|app| app.name.as_deref()));
    let entry = Entry::new("ci_completed")
        .line("kind", Some(kind))
        .line("name", name)
        .line("conclusion", run.conclusion.as_deref())
        .line("headSha", run.head_sha.as_deref())
        .link("url", run.html_url.as_deref());
    (ways, Subject::Other, entry)
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
