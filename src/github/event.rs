//! Translates each event: how its task is found, which fields change, and what its timeline entry says.

use serde_json::Value;

use super::{
    check::{check, check_criteria, checked_commit},
    delivery::{Delivery, DeliveryId, EventName, Received, Subject, UNUSED_ACTION, UnusableDelivery},
    entry::{Entry, web_link},
    payload::{self, Payload},
    pull_request::Snapshot,
    reference::MAX_REFERENCES,
    repository::{Repository, is_insider},
    repository_context::RepositoryContext,
    search::{Criterion, Search, repo_name},
    source::{NameChange, Source},
};
use crate::task::{TaskId, Timestamp};

/// The maximum number of task ids that are read from one text.
const MAX_TASK_IDS: usize = 10;
const MAX_TEXT_BYTES: usize = 256 * 1024;

const NO_REPOSITORY: &str = "the payload names no repository";
const NO_PULL_REQUEST: &str = "the payload names neither a pull request nor a branch";

/// Translates a delivery of an event that taskcast uses.
pub(super) fn interpret(
    id: DeliveryId,
    event: EventName,
    action: &str,
    payload: &Payload,
) -> Result<Received, UnusableDelivery> {
    let named = payload.repository.as_ref();
    let Some((payload_of, repository)) = named.and_then(|named| Some((named, Repository::of(named)?))) else {
        return Ok(Received::Ignored(NO_REPOSITORY));
    };
    let context = RepositoryContext { repository, payload: payload_of };
    let actor = payload.sender.as_ref().and_then(|sender| sender.login.as_deref());
    let mut source = source_of(&context, event, action, payload);
    let (criteria, subject, entry) = match event {
        EventName::Repository => (Vec::new(), Subject::Other, Entry::new(<&str>::from(event))),
        EventName::PullRequest => {
            pull_request(&context, action, required(&payload.pull_request, "pull_request")?)?
        }
        EventName::PullRequestReview => {
            let review = required(&payload.review, "review")?;
            review_of(&context, action, required(&payload.pull_request, "pull_request")?, review)
        }
        EventName::Issues => issue(&context, action, required(&payload.issue, "issue")?),
        EventName::IssueComment => {
            let comment = required(&payload.comment, "comment")?;
            comment_on(&context, action, required(&payload.issue, "issue")?, comment)
        }
        EventName::CheckRun | EventName::CheckSuite | EventName::WorkflowRun => {
            if action != "completed" {
                return Ok(Received::Ignored(UNUSED_ACTION));
            }
            let kind = event.into();
            let run = required(run_of(event, payload), kind)?;
            source.checked_commit = checked_commit(&context, run);
            if source.checked_commit.is_none() && check_criteria(&context, run).is_empty() {
                return Ok(Received::Ignored(NO_PULL_REQUEST));
            }
            check(&context, kind, run)
        }
        // `Received::parse` answers pings before it calls this function.
        EventName::Ping => return Ok(Received::Ping),
    };
    let entry = entry.line("actor", actor);
    Ok(Received::Delivery(Box::new(Delivery { id, search: Search { criteria }, source, subject, entry })))
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
fn source_of(context: &RepositoryContext<'_>, event: EventName, action: &str, payload: &Payload) -> Source {
    let before = |action: &str| {
        let (owner, name) = context.repository.name.split_once('/')?;
        let from = |pointer: &str| payload.changes.pointer(pointer).and_then(Value::as_str);
        let old_name = from("/repository/name/from");
        let old_owner = from("/owner/from/user/login").or(from("/owner/from/organization/login"));
        let has_old_name = old_owner.is_some() || old_name.is_some();
        let before = format!("{}/{}", old_owner.unwrap_or(owner), old_name.unwrap_or(name));
        repo_name(&before).filter(|_| has_old_name && matches!(action, "renamed" | "transferred"))
    };
    let name_change = match (event, action) {
        (EventName::Repository, "deleted") => NameChange::Deleted,
        (EventName::Repository, action) => before(action).map_or(NameChange::None, NameChange::RenamedFrom),
        _ => NameChange::None,
    };
    let created = match &context.payload.created_at {
        Value::String(text) => Timestamp::parse(text).map(Timestamp::millis),
        Value::Number(seconds) => seconds.as_i64().and_then(|seconds| seconds.checked_mul(1000)),
        _ => None,
    };
    let head = payload.pull_request.as_ref().and_then(|pr| context.fork_head(pr));
    Source { repository: context.repository.clone(), created, name_change, head, checked_commit: None }
}

pub(super) type Interpretation = (Vec<Criterion>, Subject, Entry);

fn pull_request(
    context: &RepositoryContext<'_>,
    action: &str,
    pr: &payload::PullRequest,
) -> Result<Interpretation, UnusableDelivery> {
    let snapshot =
        Snapshot::of(action, pr).ok_or(UnusableDelivery::Lacks("a usable pull_request.updated_at"))?;
    let mut criteria = context.pull_request(pr);
    // Any GitHub user may open a pull request for a branch of a public repository. A bot can do so only if it is installed
    // in the repository.
    let is_bot = pr.user.as_ref().is_some_and(|user| user.kind.as_deref() == Some("Bot"));
    let may_select_task = is_insider(context.payload, pr.author_association.as_deref())
        || (is_bot && !context.is_from_fork(pr));
    let texts = [pr.title.as_deref(), pr.body.as_deref()].map(|text| text.filter(|_| may_select_task));
    criteria
        .extend(texts.into_iter().flatten().flat_map(|text| context.closed_by(text)).take(MAX_REFERENCES));
    let event_type = match (action, snapshot.state.as_str()) {
        ("closed", "merged") => "pr_merged".to_owned(),
        (action, _) => format!("pr_{action}"),
    };
    let entry = Entry::new(event_type)
        .number("prNumber", pr.number)
        .link("prUrl", pr.html_url.as_deref())
        .line("prTitle", pr.title.as_deref())
        .line("prState", Some(snapshot.state.as_str()));
    Ok((criteria, Subject::PullRequest(snapshot), entry))
}

fn review_of(
    context: &RepositoryContext<'_>,
    action: &str,
    pr: &payload::PullRequest,
    review: &payload::Remark,
) -> Interpretation {
    let entry = Entry::new("pr_review")
        .line("action", Some(action))
        .number("prNumber", pr.number)
        .line("state", review.state.as_deref());
    (context.pull_request(pr), Subject::Other, remark(entry, review))
}

fn issue(context: &RepositoryContext<'_>, action: &str, issue: &payload::Issue) -> Interpretation {
    let url = web_link(issue.html_url.as_deref());
    let mut criteria =
        vec![Criterion::Issue { repo: context.repository.clone(), number: issue.number, url: url.clone() }];
    // To GitHub a pull request is also an issue, but it can't be the issue of a task.
    let is_pull_request =
        issue.pull_request.is_some() || url.as_deref().is_some_and(|url| url.contains("/pull/"));
    let ids = named_tasks(issue.body.as_deref().unwrap_or_default());
    if !ids.is_empty() && !is_pull_request && is_insider(context.payload, issue.author_association.as_deref())
    {
        criteria.push(Criterion::TaskIds { repo: context.repository.clone(), ids });
    }
    let entry = Entry::new(format!("issue_{action}"))
        .number("issueNumber", issue.number)
        .link("issueUrl", issue.html_url.as_deref())
        .line("issueTitle", issue.title.as_deref());
    (criteria, Subject::Issue { number: issue.number, url }, entry)
}

fn comment_on(
    context: &RepositoryContext<'_>,
    action: &str,
    issue: &payload::Issue,
    comment: &payload::Remark,
) -> Interpretation {
    let (repo, number) = (context.repository.clone(), issue.number);
    let pr = issue.pull_request.as_ref();
    let url = web_link(pr.and_then(|pr| pr.html_url.as_deref()));
    let mut criteria = vec![Criterion::PullRequest { repo: repo.clone(), number, url }];
    if pr.is_none() {
        criteria.push(Criterion::Issue { repo, number, url: web_link(issue.html_url.as_deref()) });
    }
    let (event_type, name) =
        if pr.is_some() { ("pr_comment", "prNumber") } else { ("issue_comment", "issueNumber") };
    let entry = Entry::new(event_type).line("action", Some(action)).number(name, number);
    (criteria, Subject::Comment { number }, remark(entry, comment))
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
    let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        let is_id = word.len() == 24 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if let Some(id) = TaskId::parse(word).filter(|id| is_id && !ids.contains(id)) {
            ids.push(id);
        }
        if ids.len() == MAX_TASK_IDS {
            break;
        }
    }
    ids
}

fn required<'a, T>(part: &'a Option<T>, name: &'static str) -> Result<&'a T, UnusableDelivery> {
    part.as_ref().ok_or(UnusableDelivery::Lacks(name))
}
