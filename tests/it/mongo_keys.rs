//! Idempotency keys and positions of writes with several nodes, with failures of MongoDB, and after the end of a process.

use std::sync::Arc;

use mongodb::{
    Collection,
    bson::{Document, doc},
};
use serde_json::json;
use taskcast::{
    feed::{FeedItem, Position, last_room_event},
    store::{MongoStore, Store, WriteError, WriteOutcome, WriteRequest},
    task::{OrgId, TaskId, UserId, Viewer},
};

use crate::{
    mongod::{Mongod, TestDatabase, TestFeed},
    store::keys::{creation, patching, repeated, written},
};

fn alice() -> Viewer {
    Viewer { user: UserId::parse("alice").expect("a user"), org: OrgId::parse("acme") }
}

fn keys(db: &TestDatabase) -> Collection<Document> {
    let name = db.config.database.as_deref().expect("named");
    db.client.database(name).collection("tasks_idempotency_keys")
}

/// A task whose creation is not a part of the test.
async fn task(db: &TestDatabase, id: &str) -> TaskId {
    let task = doc! {"_id": id, "status": "coding", "createdBy": "alice", "orgId": "acme", "events": []};
    db.tasks().insert_one(task).await.expect("inserted");
    TaskId::parse(id).expect("an id")
}

fn appending(id: &TaskId, n: usize) -> WriteRequest {
    patching(&alice(), id, json!({"event": {"eventType": "e", "payload": {"n": n}}}))
}

async fn length(db: &TestDatabase, id: &TaskId) -> usize {
    let task = db.tasks().find_one(doc! {"_id": id.as_str()}).await.expect("read").expect("there");
    task.get_array("events").expect("a timeline").len()
}

/// The position of the last event in the room of the next change.
async fn told(feed: &mut TestFeed) -> Option<Position> {
    loop {
        match feed.next().await {
            FeedItem::Change(change) => return last_room_event(&change),
            FeedItem::Idle(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test]
async fn keys_expire_after_a_day() {
    let db = TestDatabase::new().await;
    db.prepared_store().await;
    db.prepared_store().await;
    let indexes: Vec<_> =
        futures_util::TryStreamExt::try_collect(keys(&db).list_indexes().await.expect("listed"))
            .await
            .expect("listed");
    let after = indexes.iter().find_map(|index| index.options.as_ref()?.expire_after);
    assert_eq!(after.map(|after| after.as_secs()), Some(24 * 60 * 60));
}

#[tokio::test]
async fn a_key_reveals_neither_its_text_nor_the_content_of_the_request() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    written(&store, creation(&alice(), "a secret title").with_key("the-key")).await;
    let record = keys(&db).find_one(doc! {}).await.expect("read").expect("there").to_string();
    for hidden in ["secret", "the-key", "alice", "acme"] {
        assert!(!record.contains(hidden), "{record}");
    }
}

/// Two nodes get copies of one request at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_requests_to_two_nodes_have_one_effect() {
    let db = TestDatabase::new().await;
    let nodes: [Arc<MongoStore>; 2] =
        [Arc::new(db.prepared_store().await), Arc::new(db.prepared_store().await)];
    for round in 0..10 {
        let id = task(&db, &format!("t{round}")).await;
        let key = format!("k{round}");
        let mut at_once = tokio::task::JoinSet::new();
        for n in 0..12 {
            let (node, request) = (nodes[n % 2].clone(), appending(&id, 0).with_key(&key));
            at_once.spawn(async move { node.write(request).await });
            let (node, request) = (nodes[n % 2].clone(), creation(&alice(), &key).with_key(&key));
            at_once.spawn(async move { node.write(request).await });
        }
        let outcomes = at_once.join_all().await;
        let made = outcomes.iter().filter(|outcome| matches!(outcome, Ok(WriteOutcome::Written(_))));
        assert_eq!(made.count(), 2, "{outcomes:?}");
        for outcome in &outcomes {
            let is_expected = matches!(outcome, Ok(_) | Err(WriteError::KeyInUse));
            assert!(is_expected, "{outcome:?}");
        }
        assert_eq!(length(&db, &id).await, 1);
        let created = db.tasks().count_documents(doc! {"title": &key}).await.expect("counted");
        assert_eq!(created, 1);
        let other = repeated(&*nodes[1], appending(&id, 0).with_key(&key)).await;
        assert_eq!(other, repeated(&*nodes[0], appending(&id, 0).with_key(&key)).await);
        assert!(other.1.is_some());
    }
}

/// A transaction that has inserted the key is open: the first request is still being processed on another node.
#[tokio::test]
async fn a_second_request_during_the_first_is_refused() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let id = task(&db, "t").await;
    let request = appending(&id, 0).with_key("k");
    let key = request.key.clone().expect("a key");
    let mut session = db.client.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let record = doc! {"_id": &key.name, "content": &key.content, "task": "t"};
    keys(&db).insert_one(record).session(&mut session).await.expect("inserted");
    let refused = store.write(request.clone()).await;
    assert!(matches!(refused, Err(WriteError::KeyInUse)), "{refused:?}");
    session.abort_transaction().await.expect("aborted");
    written(&store, request).await;
    assert_eq!(length(&db, &id).await, 1);
}

/// The process may end between the commit and the moment when it stores the time of the commit.
#[tokio::test]
async fn the_position_of_a_write_is_found_again() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let store = db.store();
    let id = task(&db, "t").await;
    told(&mut feed).await;
    let first = written(&store, appending(&id, 0).with_key("k")).await;
    let position = told(&mut feed).await;
    assert!(first.event_id.is_some() && first.event_id == position);
    let without_time = doc! {"$unset": {"time": ""}};
    let changed = keys(&db).update_one(doc! {}, without_time).await.expect("updated");
    assert_eq!(changed.modified_count, 1, "the time was stored");
    written(&store, appending(&id, 1)).await;
    for _ in 0..2 {
        assert_eq!(repeated(&store, appending(&id, 0).with_key("k")).await, (id.clone(), position));
    }
    let record = keys(&db).find_one(doc! {}).await.expect("read").expect("there");
    assert!(record.get_timestamp("time").is_ok(), "it is stored for the next request: {record}");
}

/// The driver repeats requests by itself, and MongoDB may not report whether a commit succeeded. Each write is still made once, and its
/// position is the one that clients get. Another program writes all the time: when a request is repeated, MongoDB reports the time of
/// its newest write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_write_is_made_once_and_knows_its_position() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let mut feed = db.open_feed().await;
    let store = db.store();
    let id = task(&db, "t").await;
    told(&mut feed).await;
    let name = db.config.database.as_deref().expect("named");
    let others: Collection<Document> = db.client.database(name).collection("others");
    let writer = tokio::spawn(async move {
        loop {
            others.insert_one(doc! {}).await.expect("inserted");
        }
    });
    let fail = |data: Document, times: i32| {
        let mut data = data;
        data.insert("appName", "taskcast");
        server.command(doc! {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data});
    };
    let transient = ["TransientTransactionError"];
    let repeated_by_the_driver = ["RetryableWriteError"];
    let unknown = doc! {"code": 91, "errmsg": "e"};
    for (n, data) in [
        doc! {"failCommands": ["insert"], "errorCode": 246, "errorLabels": transient},
        doc! {"failCommands": ["findAndModify"], "errorCode": 112, "errorLabels": transient},
        doc! {"failCommands": ["findAndModify"], "closeConnection": true},
        doc! {"failCommands": ["commitTransaction"], "errorCode": 10107},
        doc! {"failCommands": ["commitTransaction"], "closeConnection": true},
        doc! {"failCommands": ["commitTransaction"], "writeConcernError": unknown.clone(), "errorLabels": repeated_by_the_driver},
        // A write without a transaction.
        doc! {"failCommands": ["findAndModify"], "writeConcernError": unknown, "errorLabels": repeated_by_the_driver},
    ]
    .into_iter()
    .enumerate()
    {
        let is_plain = n == 6;
        fail(data.clone(), if is_plain { 1 } else { 2 });
        let request = appending(&id, n);
        let request = if is_plain { request } else { request.with_key(&n.to_string()) };
        let event_id = match store.write(request.clone()).await.expect("written") {
            WriteOutcome::Written(written) => written.event_id,
            WriteOutcome::Repeated(earlier) => earlier.event_id,
        };
        server.command(doc! {"configureFailPoint": "failCommand", "mode": "off"});
        let position = told(&mut feed).await;
        assert!(position.is_some());
        assert_eq!(event_id, position, "{data}");
        if !is_plain {
            assert_eq!(repeated(&store, request).await, (id.clone(), position), "{data}");
        }
        assert_eq!(length(&db, &id).await, n + 1, "{data}");
    }

    // A write without a transaction that appends nothing: after it, only a field has another value.
    let unknown = doc! {"failCommands": ["findAndModify"], "writeConcernError": {"code": 91, "errmsg": "e"}, "errorLabels": repeated_by_the_driver};
    fail(unknown, 1);
    let renamed = written(&store, patching(&alice(), &id, json!({"title": "renamed"}))).await;
    assert_eq!(renamed.event_id, told(&mut feed).await);
    writer.abort();
}

/// Without the task API's writes, taskcast makes no collection for keys.
#[tokio::test]
async fn without_writes_there_is_no_collection_for_keys() {
    let mut db = TestDatabase::new().await;
    (db.config.task_writes, db.config.webhooks) = (false, false);
    db.prepared_store().await;
    let name = db.config.database.as_deref().expect("named");
    let collections = db.client.database(name).list_collection_names().await.expect("listed");
    assert_eq!(collections, ["tasks"]);
}
