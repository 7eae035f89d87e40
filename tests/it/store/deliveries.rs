//! GitHub's deliveries: each changes the right task once, however often and in whatever order the deliveries arrive.

use serde_json::json;
use taskcast::{
    feed::TimelineChange,
    github::{Delivery, DeliveryId, Received},
    store::Delivered,
};

use super::*;

pub fn delivery(id: &str, event: &str, payload: &Value) -> Delivery {
    let id = DeliveryId::parse(id).expect("an id");
    match Received::parse(id, event, payload.to_string().as_bytes()).expect("usable").0 {
        Received::Delivery(delivery) => *delivery,
        other => panic!("a delivery was expected, not {other:?}"),
    }
}

/// A `pull_request` delivery about number 7 of `Acme/web.site`, with this second in `updated_at`.
pub fn pr(action: &str, second: u32, state: &str) -> Value {
    let at = format!("2026-01-02T03:04:{second:02}Z");
    json!({
        "action": action,
        "repository": {"full_name": "Acme/web.site", "html_url": "https://github.com/Acme/web.site"},
        "pull_request": {
            "number": 7, "html_url": "https://github.com/Acme/web.site/pull/7", "title": format!("title {second}"),
            "body": "Fixes #42", "state": if state == "open" || state == "draft" { "open" } else { "closed" },
            "draft": state == "draft", "merged": state == "merged",
            "merged_at": if state == "merged" { json!(at) } else { json!(null) },
            "merge_commit_sha": "abc", "updated_at": at, "head": {"ref": "agent/42"},
        },
    })
}

/// A task of that repository with these fields.
async fn task(store: &dyn Store, fields: Value) -> TaskId {
    let alice = viewer("alice", "acme");
    let new = parsed(json!({"title": "t", "repo": "acme/Web.Site"}));
    let id = store.create(new, &alice, None).await.expect("created").task.id;
    store.patch(&id, &alice, patch(fields)).await.expect("patched");
    id
}

async fn view(store: &dyn Store, id: &TaskId) -> Value {
    full(&store.task(id).await.expect("read").task.expect("there"))
}

fn entries(view: &Value) -> Vec<&str> {
    let events = view["events"].as_array().expect("an array").iter();
    events.map(|event| event["eventType"].as_str().expect("a name")).collect()
}

pub async fn a_delivery_is_one_change(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let mut feed = Following::start(&store).await;
    let id = task(&*store, json!({"status": "coding", "issueNumber": 42})).await;
    let before = store.task(&id).await.expect("read").task.expect("there");
    let opened = delivery("d1", "pull_request", &pr("opened", 1, "open"));
    let delivered = store.deliver(opened.clone()).await.expect("delivered");
    assert_eq!(delivered, Delivered::Written(id.clone()));
    let after = store.task(&id).await.expect("read").task.expect("there");
    assert_eq!(store.deliver(opened).await.expect("delivered"), Delivered::Duplicate);
    let closed = delivery("d2", "pull_request", &pr("closed", 2, "merged"));
    store.deliver(closed).await.expect("delivered");

    let changes = feed.changes(4).await;
    assert_eq!(changes[2].before.as_ref(), Some(&before.task));
    assert_eq!(changes[2].after.as_ref(), Some(&after.task));
    assert_eq!(changes[2].timeline, TimelineChange::Added(after.timeline.clone()));
    assert_eq!((&changes[2].task, changes[2].position.index), (&id, 0));
    let told = full(&after);
    assert_eq!(
        [
            &told["status"],
            &told["prNumber"],
            &told["prTitle"],
            &told["prState"],
            &told["events"][0]["eventType"]
        ],
        [&json!("pr_open"), &json!(7), &json!("title 1"), &json!("open"), &json!("pr_opened")]
    );
    assert!(told["updatedAt"].as_str() >= full(&before)["updatedAt"].as_str());
    let merged = view(&*store, &id).await;
    assert_eq!(
        [&merged["status"], &merged["mergeCommitSha"], &merged["mergedAt"], &merged["prState"]],
        [&json!("merged"), &json!("abc"), &json!("2026-01-02T03:04:02.000Z"), &json!("merged")]
    );
    assert!(changes[3].position > changes[2].position);
}

pub async fn concurrent_copies_of_a_delivery_have_one_effect(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let id = task(&*store, json!({"issueNumber": 42})).await;
    let mut at_once = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        let delivery = delivery("d", "pull_request", &pr("opened", 1, "open"));
        at_once.spawn(async move { store.deliver(delivery).await.expect("delivered") });
    }
    let outcomes = at_once.join_all().await;
    let written = Delivered::Written(id.clone());
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == written).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Delivered::Duplicate).count(), 99);
    assert_eq!(entries(&view(&*store, &id).await), ["pr_opened"]);
}

/// Concurrent deliveries are applied in any order.
pub async fn concurrent_deliveries_end_in_the_same_state_as_ordered_ones(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    for (round, end, status) in [(0, "merged", "merged"), (1, "closed", "pr_open"), (2, "closed", "pr_open")]
    {
        let id = task(&*store, json!({"status": "coding", "issueNumber": 42})).await;
        let life = [
            pr("opened", 1, "open"),
            pr("edited", 2, "open"),
            pr("converted_to_draft", 3, "draft"),
            pr("ready_for_review", 4, "open"),
            pr("closed", 5, end),
            pr("reopened", 6, "open"),
        ];
        let mut at_once = tokio::task::JoinSet::new();
        for (n, mut payload) in life.into_iter().cycle().take(12).enumerate() {
            payload["pull_request"]["number"] = (100 + round).into();
            let delivery = delivery(&format!("{round}-{}", n % 6), "pull_request", &payload);
            let store = store.clone();
            at_once.spawn(async move { store.deliver(delivery).await.expect("delivered") });
        }
        let outcomes = at_once.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Delivered::Duplicate).count(), 6);
        let end = view(&*store, &id).await;
        assert_eq!((&end["status"], &end["prTitle"]), (&json!(status), &json!("title 6")));
        assert_eq!(entries(&end).len(), 6);
        // The task is changed so that only the next round's task can be found.
        let ended = patch(json!({"issueNumber": null, "prNumber": null}));
        store.patch(&id, &viewer("alice", "acme"), ended).await.expect("patched");
    }
}

pub async fn a_delivery_finds_its_task_in_every_way(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let opened = |id: &str| delivery(id, "pull_request", &pr("labeled", 1, "open"));
    let link = "https://github.com/Acme/web.site/pull/7";
    for elsewhere in [
        json!({"repo": "Acme/webXsite", "prNumber": 7, "githubBranch": "agent/42", "issueNumber": 42}),
        json!({"repo": "Acme/web.site2", "prNumber": 7, "githubPrUrl": link}),
        json!({"repo": null, "prNumber": 7, "githubBranch": "agent/42", "issueNumber": 42}),
        json!({"prNumber": 77, "githubBranch": "agent/4", "issueNumber": 4}),
        json!({"githubBranch": "Agent/42"}),
    ] {
        task(&*store, elsewhere).await;
    }
    assert_eq!(store.deliver(opened("d")).await.expect("delivered"), Delivered::NoTask);
    // Each task is preferred to those before it: its way comes earlier in the search, or the task is newer.
    for (n, fields) in [
        json!({"githubIssueNumber": 42}),
        json!({"issueNumber": 42}),
        json!({"repo": null, "issueUrl": "https://github.com/Acme/web.site/issues/42"}),
        json!({"githubBranch": "agent/42"}),
        json!({"repo": null, "githubPrUrl": link}),
        json!({"repo": null, "prUrl": link}),
        json!({"githubPrNumber": 7}),
        json!({"prNumber": 7}),
    ]
    .into_iter()
    .enumerate()
    {
        let id = task(&*store, fields.clone()).await;
        let delivered = store.deliver(opened(&n.to_string())).await.expect("delivered");
        assert_eq!(delivered, Delivered::Written(id.clone()), "{fields}");
        // The delivery has written the number. Without this reset the number would hide the next way.
        let forgotten = patch(json!({"prNumber": null, "prUrl": null}));
        store.patch(&id, &viewer("alice", "acme"), forgotten).await.expect("patched");
    }

    let named = task(&*store, json!({"title": "named"})).await;
    let issue = json!({"action": "opened", "repository": {"full_name": "ACME/WEB.SITE"}, "issue": {
        "number": 99, "html_url": "https://github.com/Acme/web.site/issues/99", "body": format!("Task: {named}"),
    }});
    let delivered = store.deliver(delivery("i", "issues", &issue)).await.expect("delivered");
    assert_eq!(delivered, Delivered::Written(named.clone()));
    let told = view(&*store, &named).await;
    assert_eq!((&told["issueNumber"], entries(&told)), (&json!(99), vec!["issue_opened"]));
}

pub async fn a_delivery_without_a_task_leaves_no_mark(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let opened = delivery("d", "pull_request", &pr("opened", 1, "open"));
    assert_eq!(store.deliver(opened.clone()).await.expect("delivered"), Delivered::NoTask);
    let id = task(&*store, json!({"issueNumber": 42})).await;
    assert_eq!(store.deliver(opened.clone()).await.expect("delivered"), Delivered::Written(id));
    assert_eq!(store.deliver(opened).await.expect("delivered"), Delivered::Duplicate);
}

pub async fn concurrent_deliveries_and_writes_are_all_kept(backend: &impl Backend) {
    let Prepared { store, keep: _keep } = backend.fresh(no_org()).await;
    let id = task(&*store, json!({"prNumber": 7})).await;
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..40_u32 {
        let (store, id) = (store.clone(), id.clone());
        writes.spawn(async move {
            if n % 2 == 0 {
                let event = patch(json!({"event": {"eventType": "patched"}}));
                store.patch(&id, &viewer("alice", "acme"), event).await.map(drop).expect("patched");
            } else {
                let labeled = delivery(&n.to_string(), "pull_request", &pr("labeled", n, "open"));
                assert_eq!(store.deliver(labeled).await.expect("delivered"), Delivered::Written(id));
            }
        });
    }
    writes.join_all().await;
    let end = view(&*store, &id).await;
    assert_eq!(entries(&end).iter().filter(|name| **name == "pr_labeled").count(), 20);
    assert_eq!(entries(&end).len(), 40);
    assert_eq!(end["prTitle"], "title 39");
}
