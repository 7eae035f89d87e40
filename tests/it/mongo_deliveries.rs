//! GitHub deliveries for documents that the existing backend wrote, also while MongoDB fails.

use std::{future::IntoFuture, time::Duration};

use mongodb::{
    Collection,
    bson::{Bson, DateTime, Document, doc, oid::ObjectId},
};
use taskcast::{
    github::Delivery,
    store::{Delivered, MongoStore, Store, WriteError},
};

use crate::{
    mongod::{Mongod, TestDatabase},
    store::deliveries::{delivery, pr},
};

fn deliveries(db: &TestDatabase) -> Collection<Document> {
    let name = db.config.database.as_deref().expect("named");
    db.client.database(name).collection("tasks_github_deliveries")
}

async fn insert(db: &TestDatabase, fields: Document) -> ObjectId {
    let id = ObjectId::new();
    let mut task = doc! {"_id": id, "repo": "Acme/web.site", "status": "coding", "githubIssueNumber": 42.0};
    task.extend(fields);
    db.tasks().insert_one(task).await.expect("inserted");
    id
}

async fn stored(db: &TestDatabase, id: impl Into<Bson>) -> Document {
    db.tasks().find_one(doc! {"_id": id.into()}).await.expect("read").expect("there")
}

async fn marks(db: &TestDatabase) -> u64 {
    deliveries(db).count_documents(doc! {}).await.expect("counted")
}

fn opened(id: &str) -> Delivery {
    delivery(id, "pull_request", &pr("opened", 1, "open"))
}

async fn written(store: &MongoStore, delivery: Delivery) {
    let delivered = store.deliver(delivery).await.expect("delivered");
    assert!(matches!(delivered, Delivered::Written(_)), "{delivered:?}");
}

#[tokio::test]
async fn the_document_keeps_its_names_and_its_types() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let user = ObjectId::new();
    let more = doc! {"createdBy": user, "prUrl": Bson::Null, "embedding": [0.5], "events": []};
    let id = insert(&db, more).await;
    written(&store, opened("d1")).await;
    written(&store, delivery("d2", "pull_request", &pr("closed", 2, "merged"))).await;

    let task = stored(&db, id).await;
    assert_eq!(task.get("createdBy"), Some(&Bson::ObjectId(user)));
    assert_eq!(task.get("githubIssueNumber"), Some(&Bson::Double(42.0)));
    assert_eq!(task.get("githubPrNumber"), Some(&Bson::Int32(7)));
    assert_eq!(task.get_str("prUrl").ok(), Some("https://github.com/Acme/web.site/pull/7"));
    assert_eq!(task.get("githubPrUrl"), None);
    assert_eq!(task.get_array("embedding").expect("an array").len(), 1);
    let merged_at = DateTime::parse_rfc3339_str("2026-01-02T03:04:02Z").expect("a time");
    assert_eq!(task.get("mergedAt"), Some(&Bson::DateTime(merged_at)));
    assert!(task.get_datetime("updatedAt").is_ok());
    let applied = doc! {"number": 7, "updatedAt": "2026-01-02T03:04:02.000Z"};
    assert_eq!(task.get("githubPrSeen"), Some(&Bson::Document(applied)));
    let events = task.get_array("events").expect("an array");
    let entry = events[1].as_document().expect("an entry");
    assert_eq!((events.len(), entry.get_str("eventType").ok()), (2, Some("pr_merged")));
    assert_eq!(entry.get("createdAt"), task.get("updatedAt"));
    let mark = deliveries(&db).find_one(doc! {"_id": "d1"}).await.expect("read").expect("there");
    assert!(mark.get_datetime("at").is_ok() && mark.len() == 2, "{mark}");
}

#[tokio::test]
async fn a_value_that_is_not_a_timeline_is_replaced_by_one() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    for (n, events) in [Bson::Null, "x".into(), doc! {"a": 1}.into(), Bson::Undefined].into_iter().enumerate()
    {
        let id = insert(&db, doc! {"events": events}).await;
        written(&store, opened(&n.to_string())).await;
        assert_eq!(stored(&db, id).await.get_array("events").expect("an array").len(), 1);
        db.tasks().delete_one(doc! {"_id": id}).await.expect("deleted");
    }
    let id = insert(&db, doc! {}).await;
    written(&store, opened("absent")).await;
    assert_eq!(stored(&db, id).await.get_array("events").expect("an array").len(), 1);
}

#[tokio::test]
async fn a_delivery_that_makes_the_document_too_large_leaves_no_mark() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let id = insert(&db, doc! {"llmRaw": "x".repeat((16 << 20) - 200)}).await;
    let refused = store.deliver(opened("d")).await;
    assert!(matches!(refused, Err(WriteError::Conflict(_))), "{refused:?}");
    assert_eq!(marks(&db).await, 0);
    let smaller = doc! {"$set": {"llmRaw": ""}};
    db.tasks().update_one(doc! {"_id": id}, smaller).await.expect("updated");
    written(&store, opened("d")).await;
}

/// The store searches by the number and link of the pull request, by branch, and by the number and link of the issue. Each
/// number and link has two field names.
#[tokio::test]
async fn a_task_is_found_by_an_index() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let name = db.config.database.as_deref().expect("named");
    let database = db.client.database(name);
    insert(&db, doc! {}).await;
    let others = (100..2100).map(|n| doc! {"repo": "Acme/web.site", "prNumber": n, "githubIssueNumber": n});
    db.tasks().insert_many(others).await.expect("inserted");
    database.run_command(doc! {"profile": 2}).await.expect("profiled");
    written(&store, opened("d")).await;
    database.run_command(doc! {"profile": 0}).await.expect("profiled");
    let profile = database.collection::<Document>("system.profile");
    let looked = profile.find_one(doc! {"command.find": "tasks"}).await.expect("read").expect("profiled");
    assert!(looked.get_str("planSummary").expect("a plan").contains("IXSCAN"), "{looked}");
    assert_eq!(looked.get_i32("docsExamined").ok(), Some(1), "{looked}");
}

#[tokio::test]
async fn marks_expire_after_two_weeks() {
    let db = TestDatabase::new().await;
    db.prepared_store().await;
    db.prepared_store().await;
    let indexes: Vec<_> =
        futures_util::TryStreamExt::try_collect(deliveries(&db).list_indexes().await.expect("listed"))
            .await
            .expect("listed");
    let after = indexes.iter().find_map(|index| index.options.as_ref()?.expire_after);
    assert_eq!(after.map(|after| after.as_secs()), Some(14 * 24 * 60 * 60));
    let names = db.tasks().list_index_names().await.expect("listed");
    assert_eq!(names.iter().filter(|name| *name == "found_by_github").count(), 1, "{names:?}");
}

/// Facts about names of repositories do not expire, and facts about commits of forks do. Neither adds a field to a task.
#[tokio::test]
async fn facts_are_stored_beside_the_tasks() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let name = db.config.database.as_deref().expect("named");
    let facts: Collection<Document> = db.client.database(name).collection("tasks_github_repositories");
    let indexes: Vec<_> =
        futures_util::TryStreamExt::try_collect(facts.list_indexes().await.expect("listed"))
            .await
            .expect("listed");
    let expiring = indexes.iter().find(|index| index.keys == doc! {"at": 1}).expect("an index");
    let after = expiring.options.as_ref().and_then(|options| options.expire_after).expect("it expires");
    assert_eq!(after.as_secs(), 90 * 24 * 60 * 60);
    assert!(indexes.iter().any(|index| index.keys == doc! {"keys": 1}), "{indexes:?}");

    let mut payload = pr("opened", 1, "open");
    payload["repository"]["id"] = 1.into();
    payload["pull_request"]["head"] = serde_json::json!({"ref": "b", "sha": "abc", "repo": {"id": 2}});
    let id = insert(&db, doc! {"githubPrNumber": 7}).await;
    for n in 0..3 {
        written(&store, delivery(&n.to_string(), "pull_request", &payload)).await;
    }
    assert_eq!(facts.count_documents(doc! {}).await.expect("counted"), 2);
    let commit = facts.find_one(doc! {"fact.kind": "head"}).await.expect("read").expect("there");
    assert!(commit.get_datetime("at").is_ok(), "{commit}");
    let named = facts.find_one(doc! {"fact.kind": "named"}).await.expect("read").expect("there");
    assert_eq!(named.get("at"), None, "{named}");
    let task = stored(&db, id).await;
    let mut fields: Vec<&str> = task.keys().map(String::as_str).collect();
    fields.sort_unstable();
    let expected = [
        "_id",
        "events",
        "githubIssueNumber",
        "githubPrNumber",
        "githubPrSeen",
        "githubPrUrl",
        "prState",
        "prTitle",
        "repo",
        "status",
        "updatedAt",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn without_webhooks_their_index_and_collections_are_not_created() {
    let mut db = TestDatabase::new().await;
    (db.config.webhooks, db.config.task_writes) = (false, false);
    db.prepared_store().await;
    let names = db.tasks().list_index_names().await.expect("listed");
    assert!(!names.iter().any(|name| name == "found_by_github"), "{names:?}");
    let name = db.config.database.as_deref().expect("named");
    let collections = db.client.database(name).list_collection_names().await.expect("listed");
    assert_eq!(collections, ["tasks"]);
}

/// When MongoDB does not report whether the commit succeeded, the mark of the delivery shows it.
#[tokio::test]
async fn an_interrupted_transaction_has_one_effect_or_none() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let store = db.prepared_store().await;
    let id = insert(&db, doc! {}).await;
    let fail = |data: Document, times: i32| {
        server.command(doc! {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data});
    };
    let transient = ["TransientTransactionError"];
    for (n, data) in [
        doc! {"failCommands": ["insert"], "errorCode": 112, "errorLabels": transient},
        doc! {"failCommands": ["update"], "errorCode": 112, "errorLabels": transient},
        doc! {"failCommands": ["update"], "closeConnection": true},
        doc! {"failCommands": ["commitTransaction"], "errorCode": 10107},
        doc! {"failCommands": ["commitTransaction"], "closeConnection": true},
        doc! {"failCommands": ["commitTransaction"], "writeConcernError": {"code": 91, "errmsg": "e"}},
    ]
    .into_iter()
    .enumerate()
    {
        fail(data.clone(), 3);
        let delivered = store.deliver(opened(&n.to_string())).await.expect("delivered");
        assert!(delivered != Delivered::NoTask, "{data}");
        assert_eq!(store.deliver(opened(&n.to_string())).await.expect("delivered"), Delivered::Duplicate);
        let entries = stored(&db, id).await.get_array("events").expect("an array").len();
        assert_eq!((entries, marks(&db).await), (n + 1, n as u64 + 1), "{data}");
    }

    fail(doc! {"failCommands": ["update"], "errorCode": 8000}, 1);
    let failed = store.deliver(opened("failed")).await;
    assert!(matches!(failed, Err(WriteError::Store(_))), "{failed:?}");
    assert_eq!(marks(&db).await, 6);
    written(&store, opened("failed")).await;
}

/// The race: the network fails during a commit for longer than GitHub waits. The transaction stays open in MongoDB. All
/// other writers of the task, including the existing backend, wait for its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_given_up_leaves_no_transaction_open() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let store = db.prepared_store().await;
    let id = insert(&db, doc! {}).await;
    let failed = doc! {"failCommands": ["commitTransaction"], "closeConnection": true, "appName": "taskcast"};
    let set = server.command(doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": failed});
    let count = set.get_i32("count").expect("a count");
    let entered = doc! {"waitForFailPoint": "failCommand", "timesEntered": count + 2, "maxTimeMS": 30_000};
    let admin = db.client.database("admin");
    tokio::select! {
        delivered = store.deliver(opened("given-up")) => panic!("it can't be committed: {delivered:?}"),
        entered = admin.run_command(entered) => drop(entered.expect("a commit was tried")),
    }
    server.command(doc! {"configureFailPoint": "failCommand", "mode": "off"});

    let title = doc! {"$set": {"title": "written by the backend"}};
    let tasks = db.tasks();
    let plain = tasks.update_one(doc! {"_id": id}, title);
    let written = tokio::time::timeout(Duration::from_secs(20), plain.into_future()).await;
    assert_eq!(written.expect("no open transaction blocks it").expect("written").modified_count, 1);
    assert_eq!(store.deliver(opened("given-up")).await.expect("delivered"), Delivered::Duplicate);
    assert_eq!(stored(&db, id).await.get_array("events").expect("an array").len(), 1);
}
