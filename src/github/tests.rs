//! Tests which task a delivery finds, and what the delivery writes into it.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::task::{Assigned, DefaultOrg, Field, Task, Timestamp};

const REPO: &str = "Acme/Web";

/// A task in a store, with the timeline entries that were written into it.
#[derive(Clone, Debug)]
struct StoredTask {
    document: Map<String, Value>,
    timeline: Vec<(String, Value)>,
}

impl StoredTask {
    fn new(fields: Value) -> Self {
        let mut document =
            Map::from_iter([("_id".to_owned(), json!("t")), ("repo".to_owned(), json!("acme/web"))]);
        document.extend(fields.as_object().expect("fields").clone());
        Self { document, timeline: Vec::new() }
    }

    fn task(&self) -> Task {
        Task::from_document(self.document.clone(), &DefaultOrg::default()).expect("a task")
    }

    /// Applies the delivery to the task if the search finds the task. Returns whether it was found.
    fn apply(&mut self, event: &str, payload: &Value) -> bool {
        let delivery = delivery(event, payload);
        let task = self.task();
        if delivery.search.choose(&[&task]).is_none() {
            return false;
        }
        let writes = delivery.writes(&task, &self.document, Timestamp::now());
        for (name, value) in writes.set {
            let value = match value {
                Assigned::Json(value) => value,
                Assigned::Time(time) => time.to_string().into(),
                other => panic!("unexpected {other:?}"),
            };
            self.document.insert(name.to_owned(), value);
        }
        let entry = writes.push_event.expect("an entry");
        self.timeline.push((entry.event_type, entry.payload.into()));
        true
    }

    /// The fields that clients see, without the time of the last write.
    fn visible_fields(&self) -> Vec<Value> {
        let task = self.task();
        Field::ALL
            .into_iter()
            .filter(|field| *field != Field::UpdatedAt)
            .map(|field| task.get(field).clone())
            .collect()
    }

    fn assert_state(&self, status: &str, pr_state: &str, title: &str) {
        let task = self.task();
        let actual = [Field::Status, Field::PrState, Field::PrTitle].map(|field| task.get(field).clone());
        assert_eq!(actual, [json!(status), json!(pr_state), json!(title)], "{:?}", self.timeline);
    }
}

fn receive(event: &str, payload: &Value) -> Result<Received, UnusableDelivery> {
    let id = DeliveryId::parse("d").expect("an id");
    Received::parse(id, event, payload.to_string().as_bytes()).map(|(received, _)| received)
}

fn delivery(event: &str, payload: &Value) -> Delivery {
    match receive(event, payload) {
        Ok(Received::Delivery(delivery)) => *delivery,
        other => panic!("a delivery was expected, not {other:?}"),
    }
}

/// A `pull_request` delivery about number 7, with this second in `updated_at`.
fn pr(action: &str, second: u32, state: &str, title: &str) -> Value {
    let at = format!("2026-01-02T03:04:{second:02}Z");
    let merged = state == "merged";
    json!({
        "action": action,
        "repository": {"full_name": REPO, "html_url": format!("https://github.com/{REPO}")},
        "sender": {"login": "ann"},
        "pull_request": {
            "number": 7, "html_url": format!("https://github.com/{REPO}/pull/7"), "title": title,
            "body": "Fixes #42", "state": if state == "open" || state == "draft" { "open" } else { "closed" },
            "draft": state == "draft", "merged": merged, "merged_at": if merged { json!(at) } else { json!(null) },
            "merge_commit_sha": "abc", "updated_at": at, "head": {"ref": "agent/42"},
        },
    })
}

fn coding() -> StoredTask {
    StoredTask::new(json!({"status": "coding", "githubIssueNumber": 42}))
}

/// All deliveries of one pull request, in their real order. The title changes several times.
fn life(end: &str) -> Vec<Value> {
    vec![
        pr("opened", 1, "open", "a"),
        pr("edited", 2, "open", "b"),
        pr("converted_to_draft", 3, "draft", "b"),
        pr("ready_for_review", 4, "open", "b"),
        pr("closed", 5, end, "b"),
        pr("reopened", 6, "open", "c"),
    ]
}

fn permutations(items: &[Value]) -> Vec<Vec<Value>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    (0..items.len())
        .flat_map(|first| {
            let mut rest = items.to_vec();
            let first = rest.remove(first);
            permutations(&rest).into_iter().map(move |rest| [vec![first.clone()], rest].concat())
        })
        .collect()
}

#[test]
fn deliveries_in_any_order_end_in_the_same_state() {
    for (end, status, state) in [("merged", "merged", "merged"), ("closed", "pr_open", "open")] {
        for count in 1..=6 {
            let life = &life(end)[..count];
            let ended = |order: &[Value]| {
                let mut stored = coding();
                assert!(order.iter().all(|payload| stored.apply("pull_request", payload)));
                assert_eq!(stored.timeline.len(), count);
                stored
            };
            let right = ended(life);
            if count == 6 {
                right.assert_state(status, state, "c");
            }
            for order in permutations(life) {
                assert_eq!(ended(&order).visible_fields(), right.visible_fields(), "{order:#?}");
            }
        }
    }
}

#[test]
fn each_action_does_what_it_says() {
    let mut stored = coding();
    let mut step = |payload: Value, status: &str, state: &str, title: &str, entry: &str| {
        stored.apply("pull_request", &payload);
        stored.assert_state(status, state, title);
        assert_eq!(stored.timeline.last().expect("an entry").0, entry);
        stored.task()
    };
    let task = step(pr("opened", 1, "draft", "a"), "pr_open", "draft", "a", "pr_opened");
    assert_eq!(task.get(Field::PrNumber), 7);
    assert_eq!(task.get(Field::PrUrl), "https://github.com/Acme/Web/pull/7");
    step(pr("ready_for_review", 2, "open", "a"), "pr_open", "open", "a", "pr_ready_for_review");
    step(pr("converted_to_draft", 3, "draft", "a"), "pr_open", "draft", "a", "pr_converted_to_draft");
    step(pr("edited", 4, "draft", "b"), "pr_open", "draft", "b", "pr_edited");
    step(pr("synchronize", 5, "draft", "b"), "pr_open", "draft", "b", "pr_synchronize");
    let task = step(pr("closed", 6, "closed", "b"), "failed", "closed", "b", "pr_closed");
    assert_eq!(
        (task.get(Field::MergeCommitSha), task.get(Field::ErrorMessage)),
        (&json!(null), &json!(null))
    );
    step(pr("reopened", 7, "open", "b"), "pr_open", "open", "b", "pr_reopened");
    let task = step(pr("closed", 8, "merged", "b"), "merged", "merged", "b", "pr_merged");
    assert_eq!(task.get(Field::MergeCommitSha), "abc");
    assert_eq!(task.get(Field::MergedAt), "2026-01-02T03:04:08.000Z");
    step(pr("edited", 9, "merged", "c"), "merged", "merged", "c", "pr_edited");
    let (_, payload) = &stored.timeline[0];
    let expected = json!({"prNumber": 7, "prUrl": "https://github.com/Acme/Web/pull/7", "prTitle": "a",
                          "prState": "draft", "actor": "ann"});
    assert_eq!(*payload, expected);
}

#[test]
fn an_edit_does_not_change_the_status_that_the_pipeline_set() {
    let mut stored = coding();
    stored.apply("pull_request", &pr("opened", 1, "open", "a"));
    stored.document.insert("status".to_owned(), "failed".into());
    stored.apply("pull_request", &pr("edited", 2, "open", "b"));
    stored.apply("pull_request", &pr("converted_to_draft", 3, "draft", "b"));
    stored.assert_state("failed", "draft", "b");
    stored.apply("pull_request", &pr("ready_for_review", 4, "open", "b"));
    stored.assert_state("pr_open", "open", "b");
}

#[test]
fn within_one_second_only_an_action_that_changes_the_state_replaces_it() {
    let mut stored = coding();
    stored.apply("pull_request", &pr("closed", 5, "closed", "a"));
    stored.apply("pull_request", &pr("labeled", 5, "open", "a"));
    stored.apply("pull_request", &pr("opened", 5, "open", "a"));
    stored.assert_state("failed", "closed", "a");
    stored.apply("pull_request", &pr("edited", 5, "open", "b"));
    stored.assert_state("failed", "closed", "b");
    stored.apply("pull_request", &pr("reopened", 5, "open", "a"));
    stored.assert_state("pr_open", "open", "b");
}

#[test]
fn a_second_pull_request_waits_for_the_end_of_the_first() {
    let second = |action, second, state| {
        let mut payload = pr(action, second, state, "second");
        payload["pull_request"]["number"] = 8.into();
        payload
    };
    let mut stored = coding();
    stored.apply("pull_request", &pr("opened", 1, "open", "first"));
    stored.apply("pull_request", &second("opened", 2, "open"));
    stored.apply("pull_request", &second("closed", 3, "merged"));
    stored.assert_state("pr_open", "open", "first");
    stored.apply("pull_request", &pr("closed", 5, "closed", "first"));
    stored.apply("pull_request", &second("reopened", 4, "open"));
    stored.apply("pull_request", &second("labeled", 6, "closed"));
    stored.assert_state("failed", "closed", "first");
    stored.apply("pull_request", &second("edited", 7, "open"));
    stored.assert_state("pr_open", "open", "second");
    assert_eq!(stored.task().get(Field::PrNumber), 8);
    stored.apply("pull_request", &pr("reopened", 8, "open", "first"));
    stored.assert_state("pr_open", "open", "second");
    stored.apply("pull_request", &second("closed", 9, "merged"));
    stored.apply("pull_request", &pr("closed", 10, "merged", "first"));
    stored.assert_state("merged", "merged", "second");
    assert_eq!(stored.timeline.len(), 10);
}

/// The old pull request names the same issue, and a user gives it a label.
#[test]
fn a_pull_request_that_ended_long_ago_ends_no_task() {
    let mut stored = coding();
    stored.apply("pull_request", &pr("labeled", 1, "merged", "old"));
    assert_eq!(
        (stored.task().get(Field::Status), stored.task().get(Field::PrNumber)),
        (&json!("coding"), &json!(null))
    );
    assert_eq!(stored.timeline.len(), 1);
}

#[test]
fn fields_keep_their_names() {
    let mut stored =
        StoredTask::new(json!({"status": "coding", "githubBranch": "agent/42", "prUrl": "https://old"}));
    assert!(stored.apply("pull_request", &pr("opened", 1, "open", "a")));
    assert_eq!(stored.document["prUrl"], "https://github.com/Acme/Web/pull/7");
    assert_eq!(stored.document["githubPrNumber"], 7);
    assert!(stored.document.get("githubPrUrl").is_none() && stored.document.get("prNumber").is_none());
}

#[test]
fn a_task_is_found_by_number_then_branch_then_issue() {
    let task = |id: &str, fields: Value| {
        let mut stored = StoredTask::new(fields);
        stored.document.insert("_id".to_owned(), id.into());
        stored.task()
    };
    let tasks = [
        task("by_issue", json!({"issueNumber": 42})),
        task("by_branch", json!({"githubBranch": "agent/42"})),
        task("by_number", json!({"prNumber": 7, "githubBranch": "x"})),
        task(
            "elsewhere",
            json!({"repo": "acme/other", "prNumber": 7, "githubBranch": "agent/42", "issueNumber": 42}),
        ),
        task("longer", json!({"repo": "acme/web2", "prNumber": 7})),
        task("by_link", json!({"repo": null, "githubPrUrl": "https://github.com/Acme/Web/pull/7"})),
        task("no_repo", json!({"repo": null, "prNumber": 7, "githubBranch": "agent/42"})),
        task("other_case", json!({"githubBranch": "Agent/42"})),
    ];
    let delivery = delivery("pull_request", &pr("opened", 1, "open", "a"));
    let chosen = |ids: &[&str]| {
        let among: Vec<&Task> = tasks.iter().filter(|task| ids.contains(&task.id.as_str())).collect();
        delivery.search.choose(&among).map(|task| task.id.as_str())
    };
    assert_eq!(chosen(&["by_issue", "by_branch", "by_number"]), Some("by_number"));
    assert_eq!(chosen(&["by_issue", "by_branch", "by_link"]), Some("by_link"));
    assert_eq!(chosen(&["by_issue", "by_branch"]), Some("by_branch"));
    assert_eq!(chosen(&["by_issue"]), Some("by_issue"));
    assert_eq!(chosen(&["elsewhere", "longer", "no_repo", "other_case"]), None);
}

#[test]
fn the_newest_unfinished_task_is_chosen_among_several() {
    let task = |id: &str, status: &str, second: u32| {
        let created = format!("2026-01-02T03:04:{second:02}Z");
        let mut stored = StoredTask::new(json!({"status": status, "issueNumber": 42, "createdAt": created}));
        stored.document.insert("_id".to_owned(), id.into());
        stored.task()
    };
    let delivery = delivery("pull_request", &pr("opened", 1, "open", "a"));
    let (old, new) = (task("old", "coding", 1), task("new", "coding", 2));
    let (failed, merged) = (task("failed", "failed", 3), task("merged", "merged", 4));
    let chosen = |tasks: &[&Task]| delivery.search.choose(tasks).map(|task| task.id.to_string());
    assert_eq!(chosen(&[&old, &failed, &new, &merged]).as_deref(), Some("new"));
    assert_eq!(chosen(&[&merged, &failed]).as_deref(), Some("merged"));
    assert_eq!(chosen(&[]), None);
}

#[test]
fn an_issue_fills_in_the_fields_that_the_task_lacks() {
    let issue = |number: u64, body: &str| {
        json!({"action": "opened", "repository": {"full_name": REPO}, "issue": {
            "number": number, "html_url": format!("https://github.com/{REPO}/issues/{number}"), "title": "t", "body": body,
        }})
    };
    let mut stored = coding();
    assert!(stored.apply("issues", &issue(42, "")));
    assert_eq!(stored.document["githubIssueUrl"], "https://github.com/Acme/Web/issues/42");
    assert_eq!(stored.timeline[0].0, "issue_opened");
    assert!(!stored.apply("issues", &issue(43, "")));

    let mut linked =
        StoredTask::new(json!({"repo": null, "issueUrl": "https://github.com/Acme/Web/issues/42"}));
    assert!(linked.apply("issues", &issue(42, "")));
    assert_eq!(linked.document["githubIssueNumber"], 42);

    let id = "65a1b2c3d4e5f60718293a4b";
    let mut named = StoredTask::new(json!({"_id": id}));
    assert!(!named.apply("issues", &issue(5, &format!("task {id}0"))));
    assert!(named.apply("issues", &issue(5, &format!("See [{id}](https://tasks.test/{id})."))));
    assert_eq!((&named.document["githubIssueNumber"], named.timeline.len()), (&json!(5), 1));
    assert!(!named.apply("issues", &issue(6, id)), "it has an issue now");
    let mut elsewhere = StoredTask::new(json!({"_id": id, "repo": "acme/other"}));
    assert!(!elsewhere.apply("issues", &issue(5, id)));
}

#[test]
fn comments_reviews_and_checks_become_timeline_entries() {
    let mut stored = StoredTask::new(json!({"prNumber": 7, "issueNumber": 42, "githubBranch": "agent/42"}));
    let repository = json!({"full_name": REPO});
    let comment = json!({"html_url": "https://c", "body": "hello", "user": {"login": "bob"}});
    let on_issue = |number: u64, pr: Value| json!({"action": "created", "repository": repository, "comment": comment, "issue": {"number": number, "pull_request": pr}});
    assert!(stored.apply("issue_comment", &on_issue(7, json!({"html_url": "https://p"}))));
    assert!(stored.apply("issue_comment", &on_issue(7, json!(null))));
    assert!(stored.apply("issue_comment", &on_issue(42, json!(null))));
    assert!(!stored.apply("issue_comment", &on_issue(8, json!({}))));
    assert!(!stored.apply("issue_comment", &on_issue(42, json!({}))), "the issue is not a pull request");
    let mut review = pr("submitted", 1, "merged", "a");
    review["review"] =
        json!({"state": "approved", "html_url": "https://r", "body": "", "user": {"login": "bob"}});
    assert!(stored.apply("pull_request_review", &review));
    assert_eq!(stored.task().get(Field::PrState), &json!(null), "a review moves nothing");
    let run = |prs: Value, branch: &str| {
        json!({"action": "completed", "repository": repository, "check_run": {
            "name": "lint", "conclusion": "failure", "head_sha": "abc", "html_url": "https://k",
            "pull_requests": prs, "check_suite": {"head_branch": branch},
        }})
    };
    let of = |repo: &str| json!({"repo": {"url": format!("https://api.github.com/repos/{repo}")}});
    assert!(stored.apply("check_run", &run(json!([{"number": 1}, {"number": 7, "base": of(REPO)}]), "main")));
    assert!(stored.apply("check_run", &run(json!([]), "agent/42")));
    assert!(stored.apply("check_run", &run(json!(null), "agent/42")));
    assert!(!stored.apply("check_run", &run(json!([{"number": 7, "base": of("other/web")}]), "main")));

    let actual: Vec<&str> = stored.timeline.iter().map(|(name, _)| name.as_str()).collect();
    let ci = "ci_completed";
    assert_eq!(actual, ["pr_comment", "pr_comment", "issue_comment", "pr_review", ci, ci, ci]);
    let payloads: Vec<&Value> = stored.timeline.iter().map(|(_, payload)| payload).collect();
    assert_eq!(
        *payloads[0],
        json!({"action": "created", "prNumber": 7, "author": "bob", "url": "https://c", "text": "hello"})
    );
    assert_eq!(
        *payloads[3],
        json!({"action": "submitted", "prNumber": 7, "state": "approved", "author": "bob",
                                    "url": "https://r", "actor": "ann"})
    );
    assert_eq!(
        *payloads[4],
        json!({"kind": "check_run", "name": "lint", "conclusion": "failure", "headSha": "abc", "url": "https://k"})
    );
}

#[test]
fn deliveries_that_concern_no_task_are_ignored_and_broken_ones_are_errors() {
    let ignored = |event: &str, payload: Value| matches!(receive(event, &payload), Ok(Received::Ignored(_)));
    assert_eq!(receive("ping", &json!({"zen": "z"})), Ok(Received::Ping));
    assert!(ignored("star", json!({"action": "created"})));
    assert!(ignored("star", json!({"action": {"odd": 1}})));
    assert!(ignored("pull_request", json!({})));
    assert!(ignored("pull_request", json!({"action": "Odd action"})));
    assert!(ignored("pull_request", json!({"action": "opened"})));
    assert!(ignored("check_run", json!({"action": "created", "repository": {"full_name": REPO}})));
    for name in ["", "acme", "/web", "acme/", "acme/web/x", "acme/..", "a me/web", ".*/.*", "acme/w\u{eb}b"] {
        let mut payload = pr("opened", 1, "open", "a");
        payload["repository"]["full_name"] = name.into();
        assert!(ignored("pull_request", payload), "{name}");
    }
    let broken = |change: fn(&mut Value)| {
        let mut payload = pr("opened", 1, "open", "a");
        change(&mut payload);
        receive("pull_request", &payload).expect_err("unusable").to_string()
    };
    assert!(broken(|p| p["pull_request"] = json!(null)).contains("lacks pull_request"));
    assert!(broken(|p| p["pull_request"]["updated_at"] = json!("hunter2")).contains("updated_at"));
    for odd in [
        broken(|p| p["pull_request"]["number"] = json!("hunter2")),
        broken(|p| p["pull_request"]["number"] = json!(-7)),
        broken(|p| p["pull_request"]["title"] = json!({"hunter2": 1})),
        broken(|p| p["repository"] = json!("hunter2")),
        broken(|p| *p = json!(["hunter2"])),
    ] {
        assert!(!odd.contains("hunter2"), "{odd}");
    }
    let raw = |body: &[u8]| Received::parse(DeliveryId::parse("d").expect("an id"), "pull_request", body);
    for body in
        [&b""[..], b"{", b"{}{}", b"\xff", b"{\"a\":\"\xff\"}", b"[]", b"null", b"7", &b"[".repeat(1 << 20)]
    {
        assert!(raw(body).is_err(), "{body:?}");
    }
    assert_eq!(raw(b"{\"x\": \"\xff\"}").err(), Some(UnusableDelivery::NotUtf8));
}

proptest! {
    /// A merged task stays merged, whatever known actions GitHub sends and in whatever order.
    #[test]
    fn nothing_leaves_merged(steps in proptest::collection::vec((0_usize..8, 0_u32..60, 0_usize..4, 7_u64..9), 0..12)) {
        const ACTIONS: [&str; 8] =
            ["opened", "edited", "converted_to_draft", "ready_for_review", "closed", "reopened", "labeled", "odd"];
        let mut stored = coding();
        let mut merged = false;
        for (action, second, state, number) in steps {
            let mut payload = pr(ACTIONS[action], second, ["open", "draft", "merged", "closed"][state], "t");
            payload["pull_request"]["number"] = number.into();
            stored.apply("pull_request", &payload);
            let task = stored.task();
            prop_assert!(!merged || task.get(Field::Status) == "merged");
            merged = task.get(Field::Status) == "merged";
            prop_assert_eq!(merged, task.get(Field::PrState) == "merged");
        }
    }
}
