//! Exact history: every change of a task gives one `Change`, with the fields at the time of the change.

use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use serde_json::{Value, json};
use taskcast::{
    feed::{Change, FeedItem, TimelineChange},
    task::{Field, FullTask, Task, TimelineEntry},
};

use crate::mongod::{TestDatabase, TestFeed};

async fn change(feed: &mut TestFeed) -> Change {
    loop {
        match feed.next().await {
            FeedItem::Change(change) => return *change,
            FeedItem::Idle(_) => {}
            other => panic!("a change was expected: {other:?}"),
        }
    }
}

async fn changes(feed: &mut TestFeed, n: usize) -> Vec<Change> {
    let mut all = Vec::with_capacity(n);
    for _ in 0..n {
        all.push(change(feed).await);
    }
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position), "in order, none twice");
    all
}

fn status(task: &Option<Task>) -> Option<String> {
    task.as_ref().map(|task| task.status().to_string())
}

fn status_changes(changes: &[Change]) -> Vec<(Option<String>, Option<String>)> {
    changes.iter().map(|change| (status(&change.before), status(&change.after))).collect()
}

fn entry(kind: &str) -> Document {
    doc! {"eventType": kind, "payload": {"n": kind}, "createdAt": DateTime::from_millis(0)}
}

fn entries(kinds: &[&str]) -> Vec<TimelineEntry> {
    let one = |kind: &&str| json!({"eventType": kind, "payload": {"n": kind}, "createdAt": "1970-01-01T00:00:00.000Z"});
    kinds.iter().map(|kind| TimelineEntry::from_document(one(kind))).collect()
}

fn added(kinds: &[&str]) -> TimelineChange {
    TimelineChange::Added(entries(kinds))
}

fn rewritten(kinds: &[&str]) -> TimelineChange {
    TimelineChange::Rewritten(entries(kinds))
}

/// How each update changes the timeline of a task whose first timeline is `begin`.
async fn timeline_of_updates(begin: Bson, updates: Vec<Document>) -> Vec<TimelineChange> {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    db.tasks().insert_one(doc! {"_id": "t", "status": "coding", "events": begin}).await.expect("inserted");
    change(&mut feed).await;
    let n = updates.len();
    for update in updates {
        db.tasks().update_one(doc! {"_id": "t"}, update).await.expect("updated");
    }
    changes(&mut feed, n).await.into_iter().map(|change| change.timeline).collect()
}

#[tokio::test]
async fn five_status_changes_of_one_task_are_five_changes() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let id = ObjectId::new();
    let mut before = "received".to_owned();
    let insert = doc! {"_id": id, "status": &before, "createdBy": ObjectId::new(), "githubPrNumber": 7.0};
    db.tasks().insert_one(insert).await.expect("inserted");
    let created = change(&mut feed).await;
    assert_eq!((created.before, created.timeline), (None, TimelineChange::Unchanged));
    let task = created.after.expect("there");
    assert_eq!((task.id.as_str(), task.get(Field::PrNumber)), (id.to_hex().as_str(), &json!(7)));

    let steps = ["analyzing", "needs_clarification", "dispatched", "coding", "pr_open"];
    for step in steps {
        let update = doc! {"$set": {"status": step, "prTitle": format!("at {step}")}};
        db.tasks().update_one(doc! {"_id": id}, update).await.expect("updated");
    }
    for (got, step) in changes(&mut feed, steps.len()).await.into_iter().zip(steps) {
        assert_eq!((status(&got.before), status(&got.after)), (Some(before), Some(step.to_owned())));
        let after = got.after.expect("there");
        assert_eq!(after.get(Field::PrTitle), &json!(format!("at {step}")));
        before = step.to_owned();
    }
}

#[tokio::test]
async fn each_push_gives_its_entries() {
    let push = |kinds: &[&str]| {
        let each: Vec<Document> = kinds.iter().map(|kind| entry(kind)).collect();
        doc! {"$push": {"events": {"$each": each}}}
    };
    let got = timeline_of_updates(
        Bson::Array(vec![]),
        vec![
            doc! {"$push": {"events": entry("a")}},
            doc! {"$push": {"events": entry("b")}, "$set": {"status": "pr_open"}},
            doc! {"$push": {"events": entry("c")}},
            push(&["d", "e"]),
            doc! {"$set": {"status": "failed"}},
            doc! {"$set": {"eventsSeen": 3}},
        ],
    )
    .await;
    let unchanged = TimelineChange::Unchanged;
    assert_eq!(
        got,
        [added(&["a"]), added(&["b"]), added(&["c"]), added(&["d", "e"]), unchanged.clone(), unchanged]
    );
}

#[tokio::test]
async fn the_first_entries_of_a_task_without_a_timeline_are_added() {
    for begin in [Bson::Null, "none".into(), doc! {"a": 1}.into()] {
        let set = doc! {"$set": {"events": [entry("a"), entry("b")]}};
        assert_eq!(timeline_of_updates(begin, vec![set]).await, [added(&["a", "b"])]);
    }
}

#[tokio::test]
async fn an_update_that_does_not_only_append_gives_the_whole_timeline() {
    let begin = || Bson::Array(["a", "b", "c"].map(|kind| Bson::Document(entry(kind))).into());
    let got = timeline_of_updates(
        begin(),
        vec![
            doc! {"$push": {"events": {"$each": [entry("d")], "$slice": -3}}},
            doc! {"$push": {"events": {"$each": [entry("e")], "$slice": -10}}},
            doc! {"$pull": {"events": {"eventType": "c"}}},
            doc! {"$push": {"events": {"$each": [entry("f")], "$position": 0}}},
            doc! {"$set": {"events.0": entry("g")}},
            doc! {"$set": {"events.0.hidden": "nobody sees it"}},
            doc! {"$pop": {"events": 1}},
            doc! {"$unset": {"events": ""}},
            doc! {"$push": {"events": entry("h")}},
            doc! {"$set": {"events.2": entry("i")}},
        ],
    )
    .await;
    let with_a_hole = {
        let mut all = entries(&["h"]);
        all.push(TimelineEntry::from_document(Value::Null));
        all.extend(entries(&["i"]));
        TimelineChange::Added(all.split_off(1))
    };
    assert_eq!(
        got,
        [
            rewritten(&["b", "c", "d"]),
            added(&["e"]),
            rewritten(&["b", "d", "e"]),
            rewritten(&["f", "b", "d", "e"]),
            rewritten(&["g", "b", "d", "e"]),
            TimelineChange::Unchanged,
            rewritten(&["g", "b", "d"]),
            rewritten(&[]),
            added(&["h"]),
            with_a_hole,
        ]
    );
}

#[tokio::test]
async fn an_update_by_pipeline_that_truncates_and_appends_is_reported() {
    let begin = Bson::Array(["a", "b"].map(|kind| Bson::Document(entry(kind))).into());
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    db.tasks().insert_one(doc! {"_id": "t", "events": begin}).await.expect("inserted");
    assert_eq!(change(&mut feed).await.timeline, added(&["a", "b"]));
    let shorter = doc! {"$set": {"events": {"$slice": ["$events", 1]}}};
    let longer = doc! {"$set": {"events": {"$concatArrays": ["$events", [{"$literal": entry("c")}]]}}};
    for stage in [shorter, longer] {
        db.tasks().update_one(doc! {"_id": "t"}, vec![stage]).await.expect("updated");
    }
    let got = changes(&mut feed, 2).await;
    assert_eq!((&got[0].timeline, &got[1].timeline), (&rewritten(&["a"]), &added(&["c"])));
}

#[tokio::test]
async fn every_kind_of_write_gives_a_change() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let tasks = db.tasks();
    let by_id = || doc! {"_id": "t"};
    let upsert = doc! {"$set": {"status": "received"}, "$push": {"events": entry("a")}};
    tasks.update_one(by_id(), upsert).upsert(true).await.expect("upserted");
    tasks.find_one_and_update(by_id(), doc! {"$set": {"status": "coding"}}).await.expect("updated");
    let replacement = doc! {"_id": "t", "status": "pr_open", "events": [entry("a"), entry("b")]};
    tasks.replace_one(by_id(), replacement.clone()).await.expect("replaced");
    let other = doc! {"_id": "t", "status": "merged", "events": [entry("b")]};
    tasks.find_one_and_replace(by_id(), other).await.expect("replaced");
    tasks.delete_one(by_id()).await.expect("deleted");
    let got = changes(&mut feed, 5).await;
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        status_changes(&got),
        [
            (None, some("received")),
            (some("received"), some("coding")),
            (some("coding"), some("pr_open")),
            (some("pr_open"), some("merged")),
            (some("merged"), None),
        ]
    );
    let timelines: Vec<TimelineChange> = got.into_iter().map(|change| change.timeline).collect();
    let unchanged = TimelineChange::Unchanged;
    assert_eq!(timelines, [added(&["a"]), unchanged.clone(), added(&["b"]), rewritten(&["b"]), unchanged]);
}

#[tokio::test]
async fn a_transaction_has_one_time_and_ordinals() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let tasks = db.tasks();
    let mut session = db.client.start_session().await.expect("a session");
    session.start_transaction().await.expect("started");
    for id in ["a", "b", "c"] {
        tasks
            .insert_one(doc! {"_id": id, "status": "received"})
            .session(&mut session)
            .await
            .expect("inserted");
    }
    let update = doc! {"$set": {"status": "coding"}};
    tasks.update_one(doc! {"_id": "a"}, update).session(&mut session).await.expect("updated");
    session.commit_transaction().await.expect("committed");
    let got = changes(&mut feed, 4).await;
    assert!(got.iter().all(|change| change.position.time == got[0].position.time));
    let order: Vec<(u32, &str)> =
        got.iter().map(|change| (change.position.ordinal, change.task.as_str())).collect();
    assert_eq!(order, [(0, "a"), (1, "b"), (2, "c"), (3, "a")]);
    assert_eq!(status(&got[3].before).as_deref(), Some("received"));
}

#[tokio::test]
async fn a_write_to_hidden_fields_changes_nothing_visible() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let tasks = db.tasks();
    tasks.insert_one(doc! {"_id": "t", "status": "coding", "embedding": [0.5]}).await.expect("inserted");
    tasks.update_one(doc! {"_id": "t"}, doc! {"$set": {"embedding": [0.1]}}).await.expect("updated");
    let got = changes(&mut feed, 2).await;
    assert_eq!(got[1].before, got[1].after);
    assert_eq!(got[1].timeline, TimelineChange::Unchanged);
}

/// Both images of such a document together exceed the limit of 16 MiB for one event. Without the projection, the change
/// stream would fail at this change, and at every attempt to resume.
#[tokio::test]
async fn a_large_document_passes() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let tasks = db.tasks();
    let large = "x".repeat(9 * 1024 * 1024);
    tasks.insert_one(doc! {"_id": "t", "status": "received", "llmRaw": large}).await.expect("inserted");
    tasks.update_one(doc! {"_id": "t"}, doc! {"$set": {"status": "coding"}}).await.expect("updated");
    let got = changes(&mut feed, 2).await;
    assert_eq!(status(&got[1].after).as_deref(), Some("coding"));
}

#[tokio::test]
async fn odd_documents_do_not_stop_the_feed() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let tasks = db.tasks();
    for id in [Bson::MinKey, Bson::Null, doc! {"a": 1}.into(), Bson::String(String::new())] {
        tasks.insert_one(doc! {"_id": id.clone(), "events": 3}).await.expect("inserted");
        tasks.update_one(doc! {"_id": id.clone()}, doc! {"$set": {"status": "x"}}).await.expect("updated");
        tasks.delete_one(doc! {"_id": id}).await.expect("deleted");
    }
    let unusual = doc! {
        "_id": "t", "status": 5, "createdBy": Bson::MaxKey, "orgId": [1], "createdAt": "yesterday",
        "prNumber": f64::NAN, "events": [1, null, {"payload": Bson::MinKey}],
    };
    tasks.insert_one(unusual).await.expect("inserted");
    let got = change(&mut feed).await;
    assert_eq!(got.task.as_str(), "t");
    assert!(matches!(got.timeline, TimelineChange::Added(entries) if entries.len() == 3));
}

/// The feed and a read give the same view of a document, whichever of a field's two names the document uses.
#[tokio::test]
async fn the_feed_reads_as_a_lookup_does() {
    use taskcast::store::Store;
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let id = ObjectId::new();
    let task = doc! {
        "_id": id, "llmSummary": "S", "status": "needs_clarification", "createdBy": ObjectId::new(),
        "creatorName": "Ann", "orgId": "acme", "isPrivate": false, "createdAt": DateTime::now(),
        "githubIssueNumber": 3, "githubIssueUrl": "u", "githubPrUrl": "p", "clarificationQuestions": ["q", {"k": 1}],
        "events": [entry("a")], "embedding": [1.0],
    };
    db.tasks().insert_one(task).await.expect("inserted");
    let received = change(&mut feed).await;
    let found = db.store().task(&received.task).await.expect("read");
    let FullTask { task, timeline, .. } = found.task.expect("there");
    assert_eq!(Some(task), received.after);
    assert_eq!(TimelineChange::Added(timeline), received.timeline);
    assert!(received.position <= found.position);
}
