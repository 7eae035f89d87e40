//! Checks the errors for MongoDB servers that are not suitable, and the start of nodes on new servers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use taskcast::{
    feed::FeedItem,
    store::{Images, MongoConfig, MongoStore, Store, StoreError},
    task::TaskId,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::mongod::{DEADLINE, Mongod, TestDatabase};

fn unusable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unusable(text)) => text,
        other => panic!("it should not be usable: {other:?}"),
    }
}

async fn images_are_on(db: &TestDatabase) -> bool {
    let name = db.config.database.as_deref().expect("named");
    let reply = db.client.database(name).run_command(doc! {"listCollections": 1}).await.expect("listed");
    format!("{reply}").contains("\"changeStreamPreAndPostImages\": { \"enabled\": true }")
}

#[tokio::test]
async fn a_standalone_server_is_refused_with_advice() {
    let server = Mongod::standalone();
    let db = TestDatabase::on(&server).await;
    let text = unusable(db.store().prepare().await);
    assert!(text.contains("--replSet") && text.contains("rs.initiate()"), "{text}");
    let (sender, _items) = mpsc::channel(1);
    unusable(db.store().follow(sender, CancellationToken::new()).await);
    assert_eq!(db.store().probe(true).await.expect("probed").replica_set, None);
}

/// The race: nodes that start together on an empty database create the collection at the same moment.
#[tokio::test]
async fn nodes_that_start_together_are_all_ready_at_once() {
    for _ in 0..5 {
        let db = TestDatabase::new().await;
        let nodes: Vec<_> = (0..6).map(|_| db.store()).collect();
        for prepared in join_all(nodes.iter().map(Store::prepare)).await {
            prepared.expect("prepared");
        }
        assert!(images_are_on(&db).await);
    }
}

/// The race: a member restarts when the change stream is about to be opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_know_its_set_yet_is_waited_for() {
    let server = Mongod::not_initiated();
    let mut db = TestDatabase::on(&server).await;
    db.config.uri.push_str("?directConnection=true");
    let store = Arc::new(db.store());
    let (sender, mut items) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let follower = (store.clone(), stop.clone());
    let following = tokio::spawn(async move { follower.0.follow(sender, follower.1).await });
    while store.stream().is_some_and(|stream| stream.restarts == 0) {
        assert!(!following.is_finished(), "{:?}", following.await);
        tokio::task::yield_now().await;
    }
    server.initiate();
    let first = tokio::time::timeout(DEADLINE, items.recv()).await.expect("in time");
    assert!(matches!(first, Some(FeedItem::Opened(_))), "{first:?}");
    stop.cancel();
    following.await.expect("no panic").expect("stopped");
}

#[tokio::test]
async fn an_absent_server_is_a_temporary_error() {
    let config = MongoConfig {
        uri: "mongodb://someone:secret@127.0.0.1:1/?serverSelectionTimeoutMS=200".to_owned(),
        database: None,
        collection: "tasks".to_owned(),
        images: Images::Auto,
        default_org: Default::default(),
        webhooks: true,
        task_writes: true,
    };
    let store = MongoStore::new(config).expect("nobody was asked");
    let id = TaskId::parse("t").expect("an id");
    for result in [store.prepare().await, store.ping().await, store.task(&id).await.map(drop)] {
        let error = result.expect_err("nobody is there");
        assert!(error.is_temporary() && !error.to_string().contains("secret"), "{error}");
    }
    assert!(!format!("{store:?}").contains("secret"));
    let (sender, _items) = mpsc::channel(1);
    let stop = CancellationToken::new();
    stop.cancel();
    let begun = Instant::now();
    store.follow(sender, stop).await.expect("stopped");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn images_are_switched_on_or_the_error_asks_for_them() {
    let mut db = TestDatabase::new().await;
    db.tasks().insert_one(doc! {"_id": "t"}).await.expect("inserted");
    db.config.images = Images::Require;
    let text = unusable(db.store().prepare().await);
    let command = format!(
        "db.getSiblingDB(\"{}\").runCommand({{collMod: \"tasks\", changeStreamPreAndPostImages: {{enabled: true}}}})",
        db.config.database.as_deref().expect("named"),
    );
    assert!(text.contains(&command), "{text}");
    assert!(!images_are_on(&db).await);
    assert_eq!(db.store().probe(true).await.expect("probed").images, Some(false));

    db.config.images = Images::Auto;
    db.prepared_store().await;
    assert!(images_are_on(&db).await);
    db.config.images = Images::Require;
    db.prepared_store().await;
}

#[tokio::test]
async fn preparing_twice_makes_the_indexes_once() {
    let db = TestDatabase::new().await;
    // An index as Mongoose creates it, with Mongoose's own options.
    let existing = doc! {"createIndexes": "tasks", "indexes": [
        {"key": {"status": 1.0}, "name": "by_status"}, {"key": {"createdBy": 1}, "name": "c", "sparse": true},
    ]};
    let name = db.config.database.as_deref().expect("named");
    db.client.database(name).run_command(existing).await.expect("made");
    db.prepared_store().await;
    db.prepared_store().await;
    let names = db.tasks().list_index_names().await.expect("listed");
    for expected in
        ["by_status", "createdAt_-1", "events.eventType_1", "orgId_1_isPrivate_1_createdAt_-1__id_-1"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
    }
    assert!(!names.iter().any(|name| name == "status_1"), "{names:?}");
}

#[tokio::test]
async fn a_view_is_refused() {
    let db = TestDatabase::new().await;
    let name = db.config.database.as_deref().expect("named");
    let view = doc! {"create": "tasks", "viewOn": "other", "pipeline": Vec::<Document>::new()};
    db.client.database(name).run_command(view).await.expect("made");
    assert!(unusable(db.store().prepare().await).contains("view"));
}

#[tokio::test]
async fn a_probe_reports_what_check_needs() {
    let db = TestDatabase::new().await;
    let before = db.store().probe(true).await.expect("probed");
    assert_eq!((before.images, before.replica_set.as_deref()), (None, Some("rs0")));
    db.prepared_store().await;
    let probe = db.store().probe(true).await.expect("probed");
    assert_eq!((probe.images, probe.journal_commit_interval_ms), (Some(true), Some(5)));
    assert!(probe.version.starts_with(|c: char| c.is_ascii_digit()), "{probe:?}");
    assert!(probe.oplog_window_secs.is_some(), "{probe:?}");
}
