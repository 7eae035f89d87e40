//! Writes to documents that the existing backend wrote.

use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use serde_json::{Value, json};
use taskcast::{
    store::{MongoStore, Store, WriteError},
    task::{Answers, FullTask, NewTask, OrgId, TaskId, TaskPatch, UserId, Viewer},
};

use crate::mongod::TestDatabase;

fn viewer(user: &str, org: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse(org) }
}

async fn patch(store: &MongoStore, id: &str, body: Value) -> Result<FullTask, WriteError> {
    let patch = TaskPatch::parse(body).expect("a valid patch");
    store.patch(&TaskId::parse(id).expect("an id"), &viewer("ci", ""), patch).await
}

async fn stored(db: &TestDatabase, id: impl Into<Bson>) -> Document {
    db.tasks().find_one(doc! {"_id": id.into()}).await.expect("read").expect("there")
}

/// Waits until this many writes of the store are waiting in MongoDB.
async fn until_writes_wait(db: &TestDatabase, number: usize) {
    let admin = db.client.database("admin");
    loop {
        let namespace = db.tasks().namespace().to_string();
        let waiting = doc! {"$match": {"ns": namespace, "command.findAndModify": {"$exists": true}}};
        let mut found = admin.aggregate([doc! {"$currentOp": {}}, waiting]).await.expect("asked");
        let mut count = 0;
        while found.advance().await.expect("told") {
            count += 1;
        }
        if count >= number {
            return;
        }
    }
}

#[tokio::test]
async fn the_document_keeps_its_names_and_its_types() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let (id, user, other) = (ObjectId::new(), ObjectId::new(), ObjectId::new());
    let task = doc! {
        "_id": id, "llmSummary": "old", "status": "coding", "createdBy": user, "orgId": "acme",
        "issueNumber": 1, "embedding": [0.5], "errorMessage": "e",
    };
    db.tasks().insert_one(task).await.expect("inserted");
    let body = json!({
        "title": "new", "status": "pr_open", "createdBy": other.to_hex(), "orgId": other.to_hex(),
        "githubIssueNumber": 2, "prNumber": 3, "mergedAt": "2026-01-02T03:04:05.678Z", "errorMessage": null,
        "event": {"eventType": "pr", "payload": {"n": 5_000_000_000_i64, "$odd.key": true}},
    });
    let patched = patch(&store, &id.to_hex(), body).await.expect("patched");
    assert_eq!(patched.timeline.len(), 1);

    let mut task = stored(&db, id).await;
    let updated_at = *task.get_datetime("updatedAt").expect("a date");
    task.remove("updatedAt");
    let expected = doc! {
        "_id": id, "llmSummary": "new", "status": "pr_open", "createdBy": other, "orgId": other.to_hex(),
        "issueNumber": 2, "embedding": [0.5],
        "events": [{"eventType": "pr", "payload": {"n": 5_000_000_000_i64, "$odd.key": true},
                    "createdAt": updated_at}],
        "githubPrNumber": 3, "mergedAt": DateTime::parse_rfc3339_str("2026-01-02T03:04:05.678Z").expect("a time"),
    };
    let sorted = |task: &Document| {
        let mut fields: Vec<(String, Bson)> = task.clone().into_iter().collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields
    };
    assert_eq!(sorted(&task), sorted(&expected));
}

#[tokio::test]
async fn a_new_task_has_the_backends_types() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let user = ObjectId::new().to_hex();
    let new = NewTask::parse(json!({"title": "t", "repo": "o/r"})).expect("valid");
    let made = store.create(new, &viewer(&user, "acme"), Some("Ann")).await.expect("created");
    let id = ObjectId::parse_str(made.task.id.as_str()).expect("an ObjectId");
    let task = stored(&db, id).await;
    assert!(task.get_datetime("createdAt").is_ok() && task.get_datetime("updatedAt").is_ok());
    assert_eq!(task.get_str("createdBy").ok(), Some(user.as_str()));
    assert_eq!(task.get_array("events").expect("an array").len(), 0);
}

#[tokio::test]
async fn a_value_that_is_not_a_timeline_is_replaced_by_one() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    for (id, events) in [
        ("null", Bson::Null),
        ("text", "x".into()),
        ("object", doc! {"a": 1}.into()),
        ("undefined", Bson::Undefined),
    ] {
        db.tasks().insert_one(doc! {"_id": id, "events": events}).await.expect("inserted");
        let patched = patch(&store, id, json!({"event": {"eventType": "e"}})).await.expect("patched");
        assert_eq!(patched.timeline.len(), 1, "{id}");
    }
    db.tasks().insert_one(doc! {"_id": "absent"}).await.expect("inserted");
    let patched = patch(&store, "absent", json!({"event": {"eventType": "e"}})).await.expect("patched");
    assert_eq!(patched.timeline.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_several_racing_answers_is_accepted() {
    let db = TestDatabase::new().await;
    let store = std::sync::Arc::new(db.prepared_store().await);
    for round in 0..10 {
        let id = format!("t{round}");
        let task = doc! {"_id": &id, "status": "needs_clarification", "createdBy": "alice", "events": []};
        db.tasks().insert_one(task).await.expect("inserted");
        let mut racing = tokio::task::JoinSet::new();
        for n in 0..8 {
            let (store, id) = (store.clone(), TaskId::parse(&id).expect("an id"));
            racing.spawn(async move {
                let answers = Answers::parse(json!({"answers": [n.to_string()]})).expect("valid");
                store.clarify(&id, &viewer("alice", ""), answers).await
            });
        }
        let results = racing.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(WriteError::Conflict(_)))));
        assert_eq!(stored(&db, id).await.get_array("events").expect("an array").len(), 1);
    }
}

/// No task leaves `merged`, because a status changes only if it is still the one that the decision was based on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_merged_in_a_race() {
    let db = TestDatabase::new().await;
    let store = std::sync::Arc::new(db.prepared_store().await);
    for round in 0..10 {
        let id = format!("t{round}");
        db.tasks().insert_one(doc! {"_id": &id, "status": "pr_open"}).await.expect("inserted");
        let mut racing = tokio::task::JoinSet::new();
        for status in ["coding", "merged", "failed", "pr_open"] {
            let (store, id) = (store.clone(), id.clone());
            racing.spawn(async move { (status, patch(&store, &id, json!({"status": status})).await) });
        }
        let results = racing.join_all().await;
        let merged = results.iter().find(|(status, _)| *status == "merged").expect("one of them");
        assert!(merged.1.is_ok(), "{:?}", merged.1);
        assert_eq!(stored(&db, id).await.get_str("status").ok(), Some("merged"));
    }
}

/// A write compares the values that its decision was based on byte by byte, whatever the collation treats as equal.
#[tokio::test]
async fn a_task_that_has_just_left_the_organisation_is_not_written() {
    let db = TestDatabase::new().await;
    let name = db.config.database.as_deref().expect("named");
    let command = doc! {"create": "tasks", "collation": {"locale": "en", "strength": 2}};
    db.client.database(name).run_command(command).await.expect("created");
    let store = std::sync::Arc::new(db.prepared_store().await);
    let tasks = db.tasks();
    let task = doc! {"_id": "t", "status": "needs_clarification", "createdBy": "alice", "orgId": "acme"};
    tasks.insert_one(task).await.expect("inserted");
    let mut session = db.client.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let leaves = tasks.update_one(doc! {"_id": "t"}, doc! {"$set": {"orgId": "ACME"}}).session(&mut session);
    leaves.await.expect("held");

    // The write is decided while the user still sees the task, and is made when the user no longer does.
    let writer = store.clone();
    let clarified = tokio::spawn(async move {
        let answers = Answers::parse(json!({"answers": ["a"]})).expect("valid");
        writer.clarify(&TaskId::parse("t").expect("an id"), &viewer("bob", "acme"), answers).await
    });
    until_writes_wait(&db, 1).await;
    session.commit_transaction().await.expect("committed");
    let refused = clarified.await.expect("no panic");
    assert!(matches!(refused, Err(WriteError::NotFound)), "{refused:?}");
    assert_eq!(stored(&db, "t").await.get_str("status").ok(), Some("needs_clarification"));
}

/// A client must not be able to send a write that looks like an outage of the store.
#[tokio::test]
async fn a_write_that_the_document_can_not_hold_is_a_conflict() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let nearly_full = doc! {"_id": "t", "status": "coding", "llmRaw": "x".repeat(16_700_000)};
    db.tasks().insert_one(nearly_full).await.expect("inserted");
    let deep = (0..300).fold(json!({}), |inner, _| json!({"d": inner}));
    for payload in [json!({"text": "x".repeat(200_000)}), deep, json!({"a\u{0}b": 1})] {
        let refused = patch(&store, "t", json!({"event": {"eventType": "e", "payload": payload}})).await;
        assert!(matches!(refused, Err(WriteError::Conflict(_))), "{refused:?}");
    }
    patch(&store, "t", json!({"status": "pr_open"})).await.expect("still writable");
}

#[tokio::test]
async fn a_write_to_a_task_that_the_user_may_not_see_is_answered_not_found() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let task = doc! {"_id": "t", "status": "needs_clarification", "createdBy": "alice", "orgId": "acme"};
    db.tasks().insert_one(task).await.expect("inserted");
    let answers = || Answers::parse(json!({"answers": ["a"]})).expect("valid");
    for (id, viewer) in
        [("t", viewer("eve", "evil")), ("t", viewer("eve", "")), ("u", viewer("alice", "acme"))]
    {
        let id = TaskId::parse(id).expect("an id");
        let refused = store.clarify(&id, &viewer, answers()).await;
        assert!(matches!(refused, Err(WriteError::NotFound)), "{refused:?}");
    }
}

/// The deadlock: writes that wait in MongoDB for a document of a transaction occupy all connections. The commit of the
/// transaction then gets no connection.
#[tokio::test]
async fn writes_that_wait_for_a_transaction_leave_connections_to_others() {
    let db = TestDatabase::new().await;
    let store = std::sync::Arc::new(db.prepared_store().await);
    let tasks = db.tasks();
    let id = ObjectId::new();
    tasks
        .insert_one(doc! {"_id": id, "title": "t", "status": "coding", "createdBy": "ci"})
        .await
        .expect("inserted");
    let mut session = db.client.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let held = tasks.update_one(doc! {"_id": id}, doc! {"$set": {"title": "held"}}).session(&mut session);
    held.await.expect("held");

    let patches: Vec<_> = (0..60)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                patch(&store, &id.to_hex(), json!({"event": {"eventType": "e"}})).await.map(drop)
            })
        })
        .collect();
    until_writes_wait(&db, 16).await;
    let task = TaskId::parse(&id.to_hex()).expect("an id");
    let answered = tokio::time::timeout(std::time::Duration::from_secs(10), store.access(&task)).await;
    session.commit_transaction().await.expect("committed");
    assert!(answered.is_ok_and(|answer| answer.is_ok()), "others are answered meanwhile");
    for patched in patches {
        patched.await.expect("no panic").expect("patched");
    }
    let end = stored(&db, id).await;
    assert_eq!(end.get_array("events").expect("a timeline").len(), 60);
}
