//! Translates each event: how its task is found, which fields change, and what its timeline entry says.

use serde_json::Value;

use super::{
    check::{check, checked, ways_of_check},
    delivery::{Delivery, DeliveryId, EventName, NO_ACTION, Received, Subject, UnusableDelivery},
    entry::{Entry, web_link},
    payload::{self, Payload},
    place::Place,
    pull_request::Snapshot,
    reference::MAX_REFERENCES,
    repository::{Repository, is_insider},
    search::{Search, Way, repo_name},
    source::{Moved, Source},
};
use crate::task::{TaskId, Timestamp};

/// The maximum number of task ids that are read from one text.
const MAX_NAMED: usize = 10;
const MAX_NAMED_BYTES: usize = 256 * 1024;

const NO_REPOSITORY: &str = "the payload names no repository";
const NO_PULL_REQUEST: &str = "the payload names neither a pull request nor a branch";

/// Translates a delivery of an event that taskcast uses.
pub(super) fn understood(
    id: DeliveryId,
    event: EventName,
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
        EventName::Repository => (Vec::new(), Subject::Other, Entry::new(<&str>::from(event))),
        EventName::PullRequest => pull_request(&place, action, need(&payload.pull_request, "pull_request")?)?,
        EventName::PullRequestReview => {
            let review = need(&payload.review, "review")?;
            review_of(&place, action, need(&payload.pull_request, "pull_request")?, review)
        }
        EventName::Issues => issue(&place, action, need(&payload.issue, "issue")?),
        EventName::IssueComment => {
            let comment = need(&payload.comment, "comment")?;
            comment_on(&place, action, need(&payload.issue, "issue")?, comment)
        }
        EventName::CheckRun | EventName::CheckSuite | EventName::WorkflowRun => {
            if action != "completed" {
                return Ok(Received::Ignored(NO_ACTION));
            }
            let kind = event.into();
            let run = need(run_of(event, payload), kind)?;
            source.checked = checked(&place, run);
            if source.checked.is_none() && ways_of_check(&place, run).is_empty() {
                return Ok(Received::Ignored(NO_PULL_REQUEST));
            }
            check(&place, kind, run)
        }
        EventName::Ping => return Ok(Received::Ping),
    };
    let entry = entry.line("actor", actor);
    Ok(Received::Delivery(Box::new(Delivery { id, search: Search { ways }, source, subject, entry })))
}

/// The part of the payload that describes a check.
fn run_of(event: EventName, payload: &Payload) -> &Option<payload::Run> {
    match event {
        EventName::CheckRun => &payload.check_run,
        EventName::CheckSuite => &payload.check_suite,
        EventName::WorkflowRun => &payload.workflow_run,
        EventName::Ping
        | EventName::PullRequest
        | EventName::Issues
        | EventName::IssueComment
        | EventName::PullRequestReview
        | EventName::Repository => &None,
    }
}

/// The payload's information about its repository and about the commit of a fork.
fn source_of(place: &Place<'_>, event: EventName, action: &str, payload: &Payload) -> Source {
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
        (EventName::Repository, "deleted") => Moved::Deleted,
        (EventName::Repository, action) => before(action).map_or(Moved::No, Moved::From),
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

pub(super) type Understood = (Vec<Way>, Subject, Entry);

fn pull_request(
    place: &Place<'_>,
    action: &str,
    pr: &payload::PullRequest,
) -> Result<Understood, UnusableDelivery> {
    let snapshot =
        Snapshot::of(action, pr).ok_or(UnusableDelivery::Lacks("a usable pull_request.updated_at"))?;
    let mut ways = place.pull_request(pr);
    // Any GitHub user may open a pull request for a branch of a public repository. A bot can do so only if it is installed
    // in the repository.
    let is_bot = pr.user.as_ref().is_some_and(|user| user.kind.as_deref() == Some("Bot"));
    let may_refer =
        is_insider(place.payload, pr.author_association.as_deref()) || (is_bot && !place.is_from_fork(pr));
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
    // To GitHub a pull request is also an issue, but it can't be the issue of a task.
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

/// The words that have the form of a task id.
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
