//! Tests creating and changing tasks, and every refusal.

use serde_json::json;
use taskcast::{store::WriteError, task::Answers};

use super::*;

pub async fn a_task_is_created(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let body = json!({"title": "Fix it", "description": "All of it", "repo": "acme/app", "isPrivate": true});
    let created = store.create(parsed(body), &alice, Some("Alice")).await.expect("created");

    let view = full(&created);
    assert_eq!(view["title"], "Fix it");
    assert_eq!(view["status"], "received");
    assert_eq!(view["creator"], "Alice");
    assert_eq!(view["createdBy"], "alice");
    assert_eq!(view["orgId"], "acme");
    assert_eq!(view["isPrivate"], true);
    assert_eq!(view["repo"], "acme/app");
    assert_eq!(view["events"], json!([]));
    assert_eq!(view["createdAt"], view["updatedAt"]);
    assert!(view.get("description").is_none(), "clients are never sent it");
    let id = created.task.id.as_str();
    assert!(id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");

    let read = store.task(&created.task.id).await.expect("read").task.expect("there");
    assert_eq!(read, created);
    let second = create(&*store, &viewer("bob", ""), "Another").await;
    assert_ne!(second.task.id, created.task.id);
    assert_eq!(full(&second)["orgId"], json!(null));
    assert_eq!(full(&second)["creator"], "bob");
}

pub async fn writes_to_forbidden_tasks_are_refused(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let (alice, eve) = (viewer("alice", "acme"), viewer("eve", "evil"));
    let task = create(&*store, &alice, "t").await;
    store
        .patch(&task.task.id, &alice, patch(json!({"status": "needs_clarification"})))
        .await
        .expect("patched");
    let private = create_private(&*store, &alice, "p").await;
    store
        .patch(&private.task.id, &alice, patch(json!({"status": "needs_clarification"})))
        .await
        .expect("patched");
    let absent = task_id("507f1f77bcf86cd799439011");
    let odd = task_id("no such id / at all");

    for id in [&task.task.id, &absent, &odd] {
        let refusal = store.patch(id, &eve, patch(json!({"title": "hers"}))).await.expect_err("refused");
        assert!(matches!(refusal, WriteError::NotFound), "{refusal:?}");
        let refusal = store.clarify(id, &eve, answers(&["hers"])).await.expect_err("refused");
        assert!(matches!(refusal, WriteError::NotFound), "{refusal:?}");
    }
    // Another member does not see the private task, but the organisation's pipeline may write to it.
    let bob = viewer("bob", "acme");
    let refusal = store.clarify(&private.task.id, &bob, answers(&["his"])).await.expect_err("refused");
    assert!(matches!(refusal, WriteError::NotFound), "{refusal:?}");
    store.patch(&private.task.id, &bob, patch(json!({"title": "by the pipeline"}))).await.expect("patched");
    // A writer without an organisation may write to all tasks.
    store
        .patch(&task.task.id, &viewer("pipeline", ""), patch(json!({"title": "too"})))
        .await
        .expect("patched");

    let read = store.task(&task.task.id).await.expect("read").task.expect("there");
    assert_eq!(full(&read)["title"], "too");
    assert_eq!(full(&read)["clarificationAnswers"], json!(null));
}

pub async fn answers_are_accepted_only_after_questions(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let (alice, bob) = (viewer("alice", "acme"), viewer("bob", "acme"));
    let id = create(&*store, &alice, "t").await.task.id;
    let early = store.clarify(&id, &bob, answers(&["a"])).await.expect_err("refused");
    assert!(matches!(&early, WriteError::Conflict(text) if text.contains("received")), "{early:?}");

    let asked = patch(json!({"status": "needs_clarification", "questions": ["Which?", "When?"]}));
    let asked = store.patch(&id, &alice, asked).await.expect("patched");
    assert_eq!(full(&asked)["questions"], json!(["Which?", "When?"]));
    let answered = store.clarify(&id, &bob, answers(&["This", "Now"])).await.expect("clarified");
    let view = full(&answered);
    assert_eq!(view["status"], "analyzing");
    assert_eq!(view["clarificationAnswers"], json!(["This", "Now"]));
    assert_eq!(view["events"][0]["eventType"], "clarified");
    assert_eq!(view["events"][0]["payload"], json!({"answers": ["This", "Now"]}));
    assert_eq!(view["events"][0]["createdAt"], view["updatedAt"]);
    assert_eq!(store.task(&id).await.expect("read").task, Some(answered));

    let late = store.clarify(&id, &bob, answers(&["again"])).await.expect_err("refused");
    assert!(matches!(&late, WriteError::Conflict(text) if text.contains("analyzing")), "{late:?}");
}

pub async fn a_patch_changes_only_its_fields(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let created = create(&*store, &alice, "t").await;
    let id = created.task.id.clone();
    let body = json!({
        "title": "new", "errorMessage": "oops", "mergedAt": "2026-01-02T03:04:05+01:00",
        "event": {"eventType": "note", "payload": {"a": 1, "api_key": "hidden"}},
    });
    let patched = store.patch(&id, &alice, patch(body)).await.expect("patched");
    let view = full(&patched);
    assert_eq!(view["title"], "new");
    assert_eq!(view["errorMessage"], "oops");
    assert_eq!(view["mergedAt"], "2026-01-02T02:04:05.000Z");
    assert_eq!(view["createdAt"], full(&created)["createdAt"]);
    assert!(view["updatedAt"].as_str() >= view["createdAt"].as_str());
    assert_eq!(view["events"][0]["payload"], json!({"a": 1, "api_key": "[redacted]"}));

    let body = json!({"errorMessage": null, "event": {"eventType": "second"}});
    let patched = store.patch(&id, &alice, patch(body)).await.expect("patched");
    let view = full(&patched);
    assert_eq!(view["errorMessage"], json!(null));
    assert_eq!(view["title"], "new");
    let kinds: Vec<_> =
        view["events"].as_array().expect("an array").iter().map(|e| &e["eventType"]).collect();
    assert_eq!(kinds, ["note", "second"]);
    assert_eq!(store.task(&id).await.expect("read").task, Some(patched));
}

pub async fn status_changes_are_checked(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "t").await.task.id;
    let to = |status: &'static str| {
        let (store, id, alice) = (store.clone(), id.clone(), alice.clone());
        async move { store.patch(&id, &alice, patch(json!({"status": status}))).await }
    };
    for status in ["received", "failed", "analyzing", "pr_open", "coding", "merged", "merged"] {
        assert_eq!(full(&to(status).await.expect("moved"))["status"], status);
    }
    for status in ["failed", "received", "pr_open"] {
        let refusal = to(status).await.expect_err("refused");
        let WriteError::Conflict(text) = refusal else { panic!("{refusal:?}") };
        assert!(text.contains("merged") && text.contains(status), "{text}");
    }
    let title = store.patch(&id, &alice, patch(json!({"title": "still writable"}))).await.expect("patched");
    assert_eq!(full(&title)["title"], "still writable");

    let id = create(&*store, &alice, "u").await.task.id;
    store.patch(&id, &alice, patch(json!({"status": "coding"}))).await.expect("moved");
    let refusal = store.patch(&id, &alice, patch(json!({"status": "received", "title": "x"}))).await;
    assert!(matches!(refusal, Err(WriteError::Conflict(_))), "{refusal:?}");
    let read = store.task(&id).await.expect("read").task.expect("there");
    assert_eq!(full(&read)["title"], "u", "a refused patch writes nothing at all");
}

pub async fn writes_are_read_under_both_names(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let pairs = [
        ("issueNumber", "githubIssueNumber", json!(1), json!(2)),
        ("issueUrl", "githubIssueUrl", json!("https://a"), json!("https://b")),
        ("prNumber", "githubPrNumber", json!(3), json!(4)),
        ("prUrl", "githubPrUrl", json!("https://c"), json!("https://d")),
    ];
    let id = create(&*store, &alice, "t").await.task.id;
    for (plain, github, first, second) in pairs {
        for (name, value) in [(plain, &first), (github, &second), (plain, &first), (github, &json!(null))] {
            let patched = store.patch(&id, &alice, patch(json!({name: value}))).await.expect("patched");
            let view = full(&patched);
            assert_eq!((&view[plain], &view[github]), (value, value), "after {name}");
        }
    }
    let both = [("title", "llmSummary"), ("questions", "clarificationQuestions")];
    for (plain, other) in both {
        let value = if plain == "title" { json!("v") } else { json!(["v"]) };
        let patched = store.patch(&id, &alice, patch(json!({other: value}))).await.expect("patched");
        assert_eq!(full(&patched)[plain], value);
        assert!(full(&patched).get(other).is_none());
    }
}

pub async fn concurrent_writes_are_all_kept(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "t").await.task.id;
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (store, id, alice) = (store.clone(), id.clone(), alice.clone());
        writes.spawn(async move {
            let event = json!({"event": {"eventType": "n", "payload": {"n": n}}});
            store.patch(&id, &alice, patch(event)).await.expect("patched")
        });
    }
    writes.join_all().await;
    let read = full(&store.task(&id).await.expect("read").task.expect("there"));
    let mut numbers: Vec<u64> = read["events"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|event| event["payload"]["n"].as_u64().expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
}

pub fn answers(texts: &[&str]) -> Answers {
    Answers::parse(json!({"answers": texts})).expect("valid answers")
}
