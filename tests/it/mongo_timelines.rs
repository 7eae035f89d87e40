//! Long timelines in MongoDB: checks which entries are read, and what happens when a document has another value in its place.

use std::iter;

use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::json;
use taskcast::{
    store::Store,
    task::{Answers, OrgId, TaskId, TaskPatch, UserId, Viewer, Window},
};

use crate::{
    mongod::{TestDatabase, response_bytes},
    store::full,
};

const ENTRIES: usize = 20_000;

fn id(text: &str) -> TaskId {
    TaskId::parse(text).expect("an id")
}

fn viewer() -> Viewer {
    Viewer { user: UserId::parse("alice").expect("a user"), org: OrgId::parse("acme") }
}

async fn insert_long(db: &TestDatabase) {
    let entry = |n: usize| {
        let payload = doc! {"n": n as i64, "password": "p", "text": "x".repeat(100)};
        Bson::from(doc! {"eventType": "step", "payload": payload, "createdAt": DateTime::now()})
    };
    let events: Vec<Bson> = (0..ENTRIES).map(entry).collect();
    let task = doc! {
        "_id": "long", "title": "T", "status": "needs_clarification", "createdBy": "alice", "orgId": "acme",
        "events": events,
    };
    db.tasks().insert_one(task).await.expect("inserted");
}

/// The size of each of MongoDB's answers in bytes.
async fn answers(db: &TestDatabase, work: impl Future<Output = ()>) -> Vec<i64> {
    db.profile(work).await.iter().map(response_bytes).collect()
}

#[tokio::test]
async fn only_the_requested_entries_are_read() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    insert_long(&db).await;
    for (window, older, newer) in [
        (Window::newest(10), ENTRIES - 10, 0),
        (Window { before: 15_000, limit: 10 }, 14_990, ENTRIES - 15_000),
    ] {
        let answers = answers(&db, async {
            let part = store.task_part(&id("long"), window).await.expect("read").task.expect("there");
            assert_eq!((part.timeline.len(), part.older, part.newer), (10, older, newer));
            let first = serde_json::to_value(&part.timeline[0]).expect("serialises");
            assert_eq!(first["payload"]["n"], json!(older));
            assert_eq!(first["payload"]["password"], "[redacted]");
        });
        let answers = answers.await;
        assert!(answers.iter().sum::<i64>() < 10_000, "{answers:?} bytes for ten entries of 150");
    }
}

/// A write reads the task without its timeline to decide. Its answer has the timeline, as documented.
#[tokio::test]
async fn a_write_reads_no_timeline_to_decide() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    insert_long(&db).await;
    let answers = answers(&db, async {
        let answers = Answers::parse(json!({"answers": ["a"]})).expect("answers");
        let clarified = store.clarify(&id("long"), &viewer(), answers).await.expect("clarified");
        assert_eq!(clarified.timeline.len(), ENTRIES + 1);
        let body = json!({"status": "coding", "event": {"eventType": "begun"}});
        let patched = store.patch(&id("long"), &viewer(), TaskPatch::parse(body).expect("a patch")).await;
        assert_eq!(patched.expect("patched").timeline.len(), ENTRIES + 2);
    });
    let answers = answers.await;
    let large = answers.iter().filter(|bytes| **bytes > 10_000).count();
    assert_eq!(large, 2, "the two answers to the writers, of {answers:?}");
}

#[tokio::test]
async fn a_value_that_is_not_a_timeline_has_no_parts() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let odd =
        [Bson::Null, Bson::Undefined, "x".into(), 5.into(), doc! {"a": 1}.into(), Bson::Array(Vec::new())];
    let odd = odd.into_iter().map(|events| doc! {"events": events}).chain(iter::once(doc! {}));
    for (n, fields) in odd.enumerate() {
        let mut task: Document = doc! {"_id": n.to_string(), "title": "T", "timelineLength": 7};
        task.extend(fields);
        db.tasks().insert_one(&task).await.expect("inserted");
        let whole = store.task(&id(&n.to_string())).await.expect("read").task.expect("there");
        for window in [Window::newest(3), Window { before: 2, limit: 1 }, Window { before: 0, limit: 1 }] {
            let part = store.task_part(&id(&n.to_string()), window).await.expect("read").task;
            assert_eq!(part.as_ref(), Some(&whole), "{task}");
        }
        assert_eq!(full(&whole)["events"], json!([]), "{task}");
    }
}

/// Entries that are not objects, or that contain invalid values, count like other entries.
#[tokio::test]
async fn malformed_entries_keep_their_positions() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let odd: Vec<Bson> = vec![
        Bson::Null,
        5.into(),
        Bson::Array(vec![1.into(), doc! {"token": "t"}.into()]),
        doc! {"payload": ["x"]}.into(),
        Bson::Undefined,
        doc! {"eventType": "e", "payload": {"Set-Cookie": "c"}, "createdAt": Bson::Undefined}.into(),
    ];
    db.tasks().insert_one(doc! {"_id": "odd", "events": odd}).await.expect("inserted");
    let whole = store.task(&id("odd")).await.expect("read").task.expect("there");
    assert_eq!(whole.timeline.len(), 6);
    for before in 0..=6 {
        let window = Window { before, limit: 2 };
        let part = store.task_part(&id("odd"), window).await.expect("read").task.expect("there");
        assert_eq!(part.timeline, whole.timeline[window.range_in(6)], "{window:?}");
        let sent = serde_json::to_string(&part.timeline).expect("serialises");
        assert!(!sent.contains(r#""t""#) && !sent.contains(r#""c""#), "{sent}");
    }
}
