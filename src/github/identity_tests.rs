//! Tests with forks, with other users' repositories, and with repositories that change their names.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::task::{DefaultOrg, Task, Timestamp};

const OWN: u64 = 1;
const STRANGER: u64 = 666;
const SHA: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

/// The facts in a store. The store keeps the first fact under each id.
#[derive(Default)]
struct Memory(BTreeMap<String, FactRecord>);

impl Memory {
    fn with_known_facts(&mut self, delivery: &Delivery, now: i64) -> Delivery {
        let mut known = KnownFacts::default();
        loop {
            let keys = delivery.missing_keys(&known);
            if keys.is_empty() {
                break;
            }
            let found = self.0.values().filter(|record| record.keys.iter().any(|key| keys.contains(key)));
            let facts: Vec<Fact> = found.map(|record| record.fact.clone()).collect();
            known.add(keys, facts);
        }
        let new_facts = delivery.new_facts(&known, at(now));
        for record in &new_facts {
            self.0.entry(record.id.clone()).or_insert_with(|| record.clone());
        }
        known.add_facts(new_facts.into_iter().map(|record| record.fact));
        delivery.with_known_facts(&known)
    }

    /// The id of the task that the delivery is about.
    fn finds(&mut self, now: i64, event: &str, payload: &Value, tasks: &[Task]) -> Option<String> {
        let delivery = self.with_known_facts(&delivery(event, payload), now);
        let among: Vec<&Task> = tasks.iter().collect();
        delivery.search.choose(&among).map(|task| task.id.to_string())
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(second * 1000).expect("a time")
}

fn delivery(event: &str, payload: &Value) -> Delivery {
    let id = DeliveryId::parse(payload["delivery"].as_str().unwrap_or("d")).expect("an id");
    match Received::parse(id, event, payload.to_string().as_bytes()).map(|(received, _)| received) {
        Ok(Received::Delivery(delivery)) => *delivery,
        other => panic!("a delivery was expected, not {other:?}"),
    }
}

fn task(id: &str, made: i64, fields: Value) -> Task {
    let mut document = Map::from_iter([
        ("_id".to_owned(), json!(id)),
        ("createdAt".to_owned(), json!(at(made).to_string())),
        ("status".to_owned(), json!("coding")),
    ]);
    document.extend(fields.as_object().expect("fields").clone());
    Task::from_document(document, &DefaultOrg::default()).expect("a task")
}

fn repository(id: u64, name: &str, created: i64) -> Value {
    json!({
        "id": id, "full_name": name, "html_url": format!("https://github.com/{name}"), "private": false,
        "created_at": at(created).to_string(),
    })
}

/// Pull request `number` of `acme/web`, whose branch is in the repository `head`.
fn pr(number: u64, head: Value) -> Value {
    json!({
        "action": "opened", "repository": repository(OWN, "Acme/Web", 10),
        "pull_request": {
            "number": number, "html_url": format!("https://github.com/Acme/Web/pull/{number}"), "title": "t",
            "body": "Fixes #42", "state": "open", "updated_at": "2026-01-02T03:04:05Z", "author_association": "NONE",
            "head": {"ref": "agent/42", "sha": SHA, "repo": head},
        },
    })
}

fn own() -> Value {
    json!({"id": OWN, "full_name": "Acme/Web"})
}

fn fork() -> Value {
    json!({"id": STRANGER, "full_name": "stranger/Web", "fork": true})
}

fn tasks() -> [Task; 2] {
    [
        task("by_branch", 100, json!({"repo": "acme/web", "githubBranch": "agent/42"})),
        task("by_issue", 100, json!({"repo": "acme/web", "issueNumber": 42})),
    ]
}

#[test]
fn a_forks_branch_of_the_same_name_is_another_branch() {
    let mut memory = Memory::default();
    for head in [fork(), json!(null), json!({"id": STRANGER}), json!({"full_name": "stranger/web"})] {
        let stranger = pr(9, head);
        assert_eq!(memory.finds(200, "pull_request", &stranger, &tasks()), None);
        let mut review = stranger.clone();
        review["review"] = json!({"state": "approved"});
        assert_eq!(memory.finds(200, "pull_request_review", &review, &tasks()), None);
        let mut closed = stranger;
        closed["action"] = "closed".into();
        assert_eq!(memory.finds(200, "pull_request", &closed, &tasks()), None);
    }
    let mine = memory.finds(200, "pull_request", &pr(7, own()), &tasks());
    assert_eq!(mine.as_deref(), Some("by_branch"));
    let renamed = json!({"id": OWN, "full_name": "acme/older-name"});
    assert_eq!(memory.finds(200, "pull_request", &pr(7, renamed), &tasks()).as_deref(), Some("by_branch"));
}

/// Another repository may take the name of a renamed or deleted one. The id tells them apart.
#[test]
fn a_repository_with_the_same_name_and_another_id_is_another_one() {
    let mut memory = Memory::default();
    let namesake = json!({"id": STRANGER, "full_name": "acme/web"});
    assert_eq!(memory.finds(200, "pull_request", &pr(9, namesake.clone()), &tasks()), None);
    let run = check("workflow_run", json!({"head_repository": namesake, "repository": own()}));
    assert_eq!(memory.finds(200, "workflow_run", &run, &tasks()), None);
    let without_id = json!({"full_name": "acme/web"});
    let mine = memory.finds(200, "pull_request", &pr(7, without_id), &tasks());
    assert_eq!(mine.as_deref(), Some("by_branch"), "without an id, the name decides");
}

#[test]
fn a_pull_request_of_a_fork_is_found_by_its_number_and_link() {
    let mut memory = Memory::default();
    let numbered = [task("numbered", 1, json!({"repo": "ACME/web", "prNumber": 9}))];
    assert_eq!(memory.finds(2, "pull_request", &pr(9, fork()), &numbered).as_deref(), Some("numbered"));
    let linked = [task("linked", 1, json!({"prUrl": "https://github.com/Acme/Web/pull/9"}))];
    assert_eq!(memory.finds(2, "pull_request", &pr(9, json!(null)), &linked).as_deref(), Some("linked"));
}

#[test]
fn from_a_fork_only_the_text_of_an_insider_chooses_a_task() {
    let mut memory = Memory::default();
    let by = |association: &str, private: bool| {
        let mut payload = pr(9, fork());
        payload["pull_request"]["author_association"] = association.into();
        payload["repository"]["private"] = private.into();
        payload
    };
    for stranger in ["NONE", "CONTRIBUTOR", "FIRST_TIMER", "FIRST_TIME_CONTRIBUTOR", "MANNEQUIN", "", "owner"]
    {
        assert_eq!(memory.finds(2, "pull_request", &by(stranger, false), &tasks()), None, "{stranger}");
        let private = memory.finds(2, "pull_request", &by(stranger, true), &tasks());
        assert_eq!(private.as_deref(), Some("by_issue"), "strangers see no private repository");
    }
    for insider in ["OWNER", "MEMBER", "COLLABORATOR"] {
        let found = memory.finds(2, "pull_request", &by(insider, false), &tasks());
        assert_eq!(found.as_deref(), Some("by_issue"), "{insider}");
    }
}

/// Any GitHub user may open a pull request for a branch that another user has pushed to a public repository.
#[test]
fn from_an_own_branch_only_the_text_of_an_insider_or_a_bot_chooses_a_task() {
    let mut memory = Memory::default();
    let by = |association: &str, kind: &str, head: Value| {
        let mut payload = pr(9, head);
        payload["pull_request"]["author_association"] = association.into();
        payload["pull_request"]["user"] = json!({"login": "somebody", "type": kind});
        payload["pull_request"]["head"]["ref"] = "release".into();
        payload
    };
    for stranger in ["NONE", "CONTRIBUTOR", "FIRST_TIMER", "FIRST_TIME_CONTRIBUTOR"] {
        assert_eq!(
            memory.finds(2, "pull_request", &by(stranger, "User", own()), &tasks()),
            None,
            "{stranger}"
        );
        assert_eq!(
            memory.finds(2, "pull_request", &by(stranger, "Bot", fork()), &tasks()),
            None,
            "{stranger}"
        );
    }
    for (association, kind) in [("MEMBER", "User"), ("NONE", "Bot"), ("CONTRIBUTOR", "Bot")] {
        let found = memory.finds(2, "pull_request", &by(association, kind, own()), &tasks());
        assert_eq!(found.as_deref(), Some("by_issue"), "{association}, {kind}");
    }
}

#[test]
fn an_issue_of_a_stranger_does_not_become_the_issue_of_a_task() {
    let id = "65a1b2c3d4e5f60718293a4b";
    let named = [task(id, 1, json!({"repo": "acme/web"}))];
    let issue = |association: &str| {
        json!({"action": "opened", "repository": repository(OWN, "Acme/Web", 1),
               "issue": {"number": 5, "body": format!("task: {id}"), "author_association": association}})
    };
    let mut memory = Memory::default();
    assert_eq!(memory.finds(2, "issues", &issue("NONE"), &named), None);
    assert_eq!(memory.finds(2, "issues", &issue("MEMBER"), &named).as_deref(), Some(id));
}

/// A stranger may own a repository whose deliveries arrive here too, for example through a GitHub App.
#[test]
fn a_repository_of_another_owner_closes_no_issue_here() {
    let mut payload = pr(9, json!({"id": STRANGER, "full_name": "stranger/own"}));
    payload["repository"] = repository(STRANGER, "stranger/own", 1);
    payload["pull_request"]["body"] = "Fixes acme/web#42, https://github.com/acme/web/issues/42".into();
    payload["pull_request"]["author_association"] = "OWNER".into();
    let mut memory = Memory::default();
    assert_eq!(memory.finds(2, "pull_request", &payload, &tasks()), None);
    payload["repository"] = repository(STRANGER, "Acme/other", 1);
    payload["pull_request"]["head"]["repo"]["full_name"] = "Acme/other".into();
    assert_eq!(memory.finds(2, "pull_request", &payload, &tasks()).as_deref(), Some("by_issue"));
}

fn check(event: &str, run: Value) -> Value {
    let mut payload = json!({"action": "completed", "repository": repository(OWN, "Acme/Web", 10)});
    payload[event] =
        json!({"head_sha": SHA, "head_branch": "agent/42", "pull_requests": [], "conclusion": "failure"});
    payload[event].as_object_mut().expect("an object").extend(run.as_object().expect("fields").clone());
    payload
}

#[test]
fn checks_of_a_fork_belong_to_its_pull_request_and_to_no_branch() {
    let of_fork = json!({"head_repository": fork(), "repository": own(), "event": "pull_request"});
    let numbered = task("numbered", 1, json!({"repo": "acme/web", "prNumber": 9}));
    let all = [tasks()[0].clone(), numbered];
    let mut memory = Memory::default();
    assert_eq!(memory.finds(2, "workflow_run", &check("workflow_run", of_fork.clone()), &all), None);
    assert_eq!(memory.finds(3, "pull_request", &pr(9, fork()), &all).as_deref(), Some("numbered"));
    for (event, run) in [
        ("workflow_run", of_fork.clone()),
        ("workflow_run", json!({"head_repository": null})),
        ("check_run", json!({})),
        ("check_run", json!({"head_branch": null})),
        ("check_suite", json!({"head_branch": null})),
        ("check_suite", json!({})),
    ] {
        let found = memory.finds(4, event, &check(event, run.clone()), &all);
        assert_eq!(found.as_deref(), Some("numbered"), "{event} {run}");
    }
    // Another fork, another commit and another branch do not lead to the pull request.
    for run in [
        json!({"head_repository": {"id": 5, "full_name": "other/web"}}),
        json!({"head_repository": fork(), "head_sha": "abc"}),
        json!({"head_repository": fork(), "head_branch": "another"}),
    ] {
        assert_eq!(memory.finds(4, "workflow_run", &check("workflow_run", run.clone()), &all), None, "{run}");
    }
    let own = check("workflow_run", json!({"head_repository": own()}));
    assert_eq!(memory.finds(4, "workflow_run", &own, &all).as_deref(), Some("by_branch"));
}

#[test]
fn commits_before_and_after_a_forced_push_are_both_known() {
    let numbered = [task("numbered", 1, json!({"repo": "acme/web", "prNumber": 9}))];
    let mut memory = Memory::default();
    memory.finds(2, "pull_request", &pr(9, fork()), &numbered);
    let mut pushed = pr(9, fork());
    pushed["action"] = "synchronize".into();
    pushed["pull_request"]["head"]["sha"] = "abcdef".into();
    for _ in 0..3 {
        memory.finds(3, "pull_request", &pushed, &numbered);
    }
    assert_eq!(memory.0.values().filter(|record| record.expires).count(), 2);
    for sha in [SHA, "abcdef", "ABCDEF"] {
        let run = check("check_suite", json!({"head_sha": sha, "head_branch": null}));
        assert_eq!(memory.finds(4, "check_suite", &run, &numbered).as_deref(), Some("numbered"));
    }
}

/// The same commit can be the head of a pull request from the repository and of one from a fork.
#[test]
fn two_pull_requests_with_the_same_commit_have_their_own_checks() {
    let own_pr = task(
        "own",
        1,
        json!({"repo": "acme/web", "prNumber": 7, "githubBranch": "agent/42", "prState": "open"}),
    );
    let forked = task("forked", 1, json!({"repo": "acme/web", "prNumber": 9}));
    let all = [own_pr, forked];
    let mut memory = Memory::default();
    let unknown = check("check_run", json!({}));
    assert_eq!(memory.finds(2, "check_run", &unknown, &all), None, "GitHub would name the open pull request");
    memory.finds(2, "pull_request", &pr(7, own()), &all);
    memory.finds(2, "pull_request", &pr(9, fork()), &all);
    assert_eq!(memory.finds(3, "check_run", &unknown, &all).as_deref(), Some("forked"));
    let named = check("check_run", json!({"pull_requests": [{"number": 7}]}));
    assert_eq!(memory.finds(3, "check_run", &named, &all).as_deref(), Some("own"));
    // GitHub matches by the name of the branch, so it names the wrong pull request.
    let said =
        json!({"head_repository": fork(), "pull_requests": [{"number": 7, "head": {"repo": {"id": OWN}}}]});
    let found = memory.finds(3, "workflow_run", &check("workflow_run", said), &all);
    assert_eq!(found.as_deref(), Some("forked"));
}

/// A `pull_request` delivery about number 7 of a repository.
fn seven(id: u64, name: &str, created: i64) -> Value {
    let mut payload = pr(7, json!({"id": id, "full_name": name}));
    payload["repository"] = repository(id, name, created);
    payload["pull_request"]["html_url"] = format!("https://github.com/{name}/pull/7").into();
    payload
}

fn moved(delivery: &str, id: u64, name: &str, changes: Value) -> Value {
    let action = if changes.get("owner").is_some() { "transferred" } else { "renamed" };
    json!({"action": action, "delivery": delivery, "changes": changes, "repository": repository(id, name, 10)})
}

fn renamed(delivery: &str, id: u64, name: &str, from: &str) -> Value {
    moved(delivery, id, name, json!({"repository": {"name": {"from": from}}}))
}

fn old_tasks() -> [Task; 2] {
    [
        task("named", 100, json!({"repo": "acme/web", "prNumber": 7})),
        task("linked", 100, json!({"prUrl": "https://github.com/Acme/Web/pull/7"})),
    ]
}

#[test]
fn tasks_follow_a_repository_to_its_new_name() {
    type Teach = fn(&mut Memory);
    let teachers: [(&str, Teach); 5] = [
        ("Acme/Site", |memory| {
            drop(memory.finds(200, "repository", &renamed("a", OWN, "Acme/Site", "Web"), &[]))
        }),
        ("Other/Web", |memory| {
            let changes = json!({"owner": {"from": {"user": {"login": "Acme"}}}});
            memory.finds(200, "repository", &moved("a", OWN, "Other/Web", changes), &[]);
        }),
        ("Other/Web", |memory| {
            let changes = json!({"owner": {"from": {"organization": {"login": "Acme"}}}});
            memory.finds(200, "repository", &moved("a", OWN, "Other/Web", changes), &[]);
        }),
        ("Acme2/Web", |memory| drop(memory.finds(200, "pull_request", &seven(OWN, "Acme/Web", 10), &[]))),
        ("Acme/Third", |memory| {
            memory.finds(200, "repository", &renamed("b", OWN, "Acme/Third", "Second"), &[]);
            memory.finds(201, "repository", &renamed("a", OWN, "Acme/Second", "Web"), &[]);
        }),
    ];
    for (name, teach) in teachers {
        for task in old_tasks() {
            let mut memory = Memory::default();
            let tasks = [task];
            assert_eq!(memory.finds(150, "pull_request", &seven(STRANGER, name, 10), &tasks), None);
            let mut memory = Memory::default();
            teach(&mut memory);
            let found = memory.finds(300, "pull_request", &seven(OWN, name, 10), &tasks);
            assert_eq!(found.as_deref(), Some(tasks[0].id.as_str()), "{name}");
            // The backend may still write the old name into new tasks, or the new name.
            for repo in ["acme/web", name] {
                let later = [task_seven("later", 400, repo)];
                let found = memory.finds(500, "pull_request", &seven(OWN, name, 10), &later);
                assert_eq!(found.as_deref(), Some("later"), "{name} {repo}");
            }
        }
    }
}

fn task_seven(id: &str, made: i64, repo: &str) -> Task {
    task(id, made, json!({"repo": repo, "prNumber": 7}))
}

#[test]
fn a_repository_that_takes_a_freed_name_has_none_of_the_old_tasks() {
    let older = task_seven("older", 100, "acme/web");
    let newer = task_seven("newer", 400, "acme/web");
    let both = [older.clone(), newer];
    // The creation time of the new repository must not matter, even if it is not later than that of the old repository.
    for made in [300, 10, 5] {
        let mut memory = Memory::default();
        memory.finds(150, "pull_request", &seven(OWN, "Acme/Web", 10), &both);
        memory.finds(200, "repository", &renamed("a", OWN, "Acme/Site", "Web"), &both);
        let theirs = seven(2, "Acme/Web", made);
        assert_eq!(memory.finds(500, "pull_request", &theirs, &both[..1]), None, "{made}");
        assert_eq!(memory.finds(500, "pull_request", &theirs, &both).as_deref(), Some("newer"));
        let ours = seven(OWN, "Acme/Site", 10);
        assert_eq!(memory.finds(501, "pull_request", &ours, &both).as_deref(), Some("older"));
        assert_eq!(memory.finds(501, "pull_request", &ours, &both[1..]), None);
        // Deliveries from before the rename that are late or repeated.
        memory.finds(502, "repository", &renamed("a", OWN, "Acme/Site", "Web"), &both);
        let late = memory.finds(503, "pull_request", &seven(OWN, "Acme/Web", 10), &both);
        assert_eq!(late.as_deref(), Some("older"));
        assert_eq!(memory.finds(504, "pull_request", &theirs, &both).as_deref(), Some("newer"));
    }
    // No delivery has reported the end of the old repository, for example because it was deleted while no webhook was set up.
    let mut memory = Memory::default();
    memory.finds(150, "pull_request", &seven(OWN, "Acme/Web", 10), &both);
    assert_eq!(memory.finds(500, "pull_request", &seven(2, "Acme/Web", 300), &[older]), None);
    assert_eq!(
        memory.finds(500, "pull_request", &seven(2, "Acme/Web", 300), &both).as_deref(),
        Some("newer")
    );
}

#[test]
fn two_repositories_may_swap_their_names() {
    let web = task_seven("web", 100, "acme/web");
    let next = task_seven("next", 100, "acme/next");
    let both = [web, next];
    let mut memory = Memory::default();
    memory.finds(150, "repository", &renamed("a", 1, "Acme/old", "Web"), &both);
    memory.finds(160, "repository", &renamed("b", 2, "Acme/Web", "Next"), &both);
    assert_eq!(memory.finds(200, "pull_request", &seven(1, "Acme/old", 10), &both).as_deref(), Some("web"));
    assert_eq!(memory.finds(200, "pull_request", &seven(2, "Acme/Web", 20), &both).as_deref(), Some("next"));
    // The repositories swap their names back.
    memory.finds(300, "repository", &renamed("c", 2, "Acme/Next", "Web"), &both);
    memory.finds(310, "repository", &renamed("d", 1, "Acme/Web", "old"), &both);
    assert_eq!(memory.finds(400, "pull_request", &seven(1, "Acme/Web", 10), &both).as_deref(), Some("web"));
    assert_eq!(memory.finds(400, "pull_request", &seven(2, "Acme/Next", 20), &both).as_deref(), Some("next"));
}

#[test]
fn the_same_id_on_another_github_server_is_another_repository() {
    let mut memory = Memory::default();
    memory.finds(1, "repository", &renamed("a", OWN, "Acme/Site", "Web"), &[]);
    let mut elsewhere = seven(OWN, "Acme/Site", 10);
    elsewhere["repository"]["html_url"] = "https://ghe.test/Acme/Site".into();
    assert_eq!(memory.finds(2, "pull_request", &elsewhere, &old_tasks()), None);
}

#[test]
fn a_closed_issue_may_be_named_by_an_old_name() {
    let mut memory = Memory::default();
    memory.finds(200, "repository", &renamed("a", OWN, "Acme/Site", "Web"), &[]);
    let mut payload = seven(3, "acme/other", 1);
    payload["pull_request"]["author_association"] = "MEMBER".into();
    payload["pull_request"]["body"] = "Fixes acme/web#42".into();
    for repo in ["acme/web", "acme/site"] {
        let named = [task("t", 300, json!({"repo": repo, "issueNumber": 42}))];
        assert_eq!(memory.finds(400, "pull_request", &payload, &named).as_deref(), Some("t"), "{repo}");
    }
}

#[test]
fn the_number_of_facts_about_one_repository_is_limited() {
    let mut memory = Memory::default();
    for n in 0..500 {
        memory.finds(n, "pull_request", &seven(OWN, &format!("acme/web-{n}"), 1), &[]);
    }
    assert!(memory.0.len() < 110, "{}", memory.0.len());
    assert!(memory.0.values().all(|record| record.id.len() < 1000 && record.keys.len() <= 2));
}

proptest! {
    /// Each repository keeps its own tasks, in whatever order the deliveries arrive and however often.
    #[test]
    fn in_any_order_and_repeated_each_repository_has_its_own_tasks(
        order in proptest::collection::vec(0_usize..6, 0..14),
    ) {
        let older = task_seven("older", 100, "acme/web");
        let newer = task_seven("newer", 3000, "acme/web");
        let both = [older, newer];
        let deliveries = [
            ("repository", renamed("a", OWN, "Acme/Site", "Web")),
            ("pull_request", seven(OWN, "Acme/Site", 10)),
            ("pull_request", seven(OWN, "Acme/Web", 10)),
            ("pull_request", seven(2, "Acme/Web", 2000)),
            ("check_run", check("check_run", json!({}))),
            ("repository", json!({"action": "created", "repository": repository(2, "Acme/Web", 2000)})),
        ];
        let mut memory = Memory::default();
        // This delivery arrived while only the first repository existed.
        memory.finds(150, "pull_request", &seven(OWN, "Acme/Web", 10), &[]);
        let mut now = 2000;
        for which in order.into_iter().chain([0, 3]) {
            now += 1;
            let (event, payload) = &deliveries[which];
            let found = memory.finds(now, event, payload, &both);
            if which == 3 {
                prop_assert_eq!(found.as_deref(), Some("newer"));
            }
        }
        let ours = memory.finds(4000, "pull_request", &deliveries[1].1, &both);
        prop_assert_eq!(ours.as_deref(), Some("older"));
        let theirs = memory.finds(4001, "pull_request", &deliveries[3].1, &both[..1]);
        prop_assert_eq!(theirs, None);
        let entries = memory.0.len();
        for (event, payload) in &deliveries {
            memory.finds(5000, event, payload, &both);
        }
        prop_assert_eq!(memory.0.len(), entries, "repeats teach nothing new");
    }
}
