//! Checks how the feed reacts when the change stream fails.

use mongodb::bson::{Document, doc};
use taskcast::{
    feed::{FeedItem, Position},
    store::{Images, StoreError},
    task::Field,
};

use crate::mongod::{Mongod, TestDatabase, TestFeed};

/// Receives the changes up to the number `last`, and returns their numbers. Each change must have a later position than the one before.
async fn receive_until(feed: &mut TestFeed, reached: &mut Position, last: i64) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        match feed.next().await {
            FeedItem::Change(change) => {
                assert!(change.position > *reached, "{:?} after {reached:?}", change.position);
                *reached = change.position;
                numbers.push(change.after.expect("there").get(Field::PrNumber).as_i64().expect("a number"));
            }
            FeedItem::Idle(position) => {
                assert!(position >= *reached);
                *reached = position;
            }
            other => panic!("{other:?}"),
        }
    }
    numbers
}

async fn write(db: &TestDatabase, number: i64) {
    let update = doc! {"$set": {"prNumber": number}};
    db.tasks().update_one(doc! {"_id": "t"}, update).upsert(true).await.expect("written");
}

/// The change stream cursors on this collection, idle ones included.
async fn stream_cursors(db: &TestDatabase) -> Vec<Document> {
    let admin = db.client.database("admin");
    let name = db.tasks().namespace().to_string();
    let pipeline = vec![
        doc! {"$currentOp": {"idleCursors": true}},
        doc! {"$match": {
            "ns": name,
            "cursor.originatingCommand.pipeline.0.$changeStream": {"$exists": true},
        }},
    ];
    use futures_util::TryStreamExt;
    admin.aggregate(pipeline).await.expect("asked").try_collect().await.expect("listed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_cursors_neither_lose_nor_repeat_changes() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let mut reached = Position::ZERO;
    let (mut expected, mut got, mut killed) = (Vec::new(), Vec::new(), 0);
    for round in 0..12_i64 {
        for n in 0..20 {
            let number = round * 20 + n;
            write(&db, number).await;
            expected.push(number);
            if n == 7 || n == 13 {
                for operation in stream_cursors(&db).await {
                    killed += 1;
                    let database = db.client.database(db.config.database.as_deref().expect("named"));
                    if let (true, Ok(id)) = (
                        n == 7,
                        operation.get_document("cursor").and_then(|cursor| cursor.get_i64("cursorId")),
                    ) {
                        database
                            .run_command(doc! {"killCursors": "tasks", "cursors": [id]})
                            .await
                            .expect("killed");
                    } else if let Some(id) = operation.get("opid") {
                        let kill = doc! {"killOp": 1, "op": id.clone()};
                        db.client.database("admin").run_command(kill).await.expect("killed");
                    }
                }
            }
        }
        got.extend(receive_until(&mut feed, &mut reached, round * 20 + 19).await);
    }
    assert_eq!(got, expected);
    assert!(killed >= 12, "too few cursors were killed: {killed}");
}

/// The stream is resumed in the middle of a transaction. The ordinals of its changes continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordinals_continue_after_a_resume_inside_a_transaction() {
    // The test needs its own server, because the fail point affects every getMore on the server.
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let mut feed = db.open_feed().await;
    // The changes fill several batches of 16 MiB, so a getMore is needed between them.
    let title = "x".repeat(200_000);
    let mut session = db.client.start_session().await.expect("a session");
    session.start_transaction().await.expect("started");
    for n in 0..100_i64 {
        let task = doc! {"_id": format!("{n:03}"), "title": &title, "prNumber": n};
        db.tasks().insert_one(task).session(&mut session).await.expect("inserted");
    }
    let failpoint = |mode: Document| {
        doc! {"configureFailPoint": "failCommand", "mode": mode,
        "data": {"failCommands": ["getMore", "aggregate"], "errorCode": 6, "appName": "taskcast",
                 "errorLabels": ["ResumableChangeStreamError"]}}
    };
    session.commit_transaction().await.expect("committed");
    let (mut positions, mut reached) = (Vec::new(), None);
    while positions.len() < 100 {
        match feed.next().await {
            FeedItem::Change(change) => {
                let number = change.after.as_ref().expect("there").get(Field::PrNumber).as_i64();
                assert_eq!(number, Some(positions.len() as i64));
                assert!(Some(change.position) > reached, "after {reached:?}");
                positions.push(change.position);
                if positions.len() == 1 {
                    db.client.database("admin").run_command(failpoint(doc! {"times": 4})).await.expect("set");
                }
            }
            FeedItem::Idle(position) => reached = Some(position),
            other => panic!("{other:?}"),
        }
    }
    let failpoint_status =
        db.client.database("admin").run_command(failpoint_off()).await.expect("switched off");
    let fired = failpoint_status.get_i32("count").ok();
    assert_eq!(fired, Some(4), "the fail point must fire four times: {failpoint_status}");
    let ordinals: Vec<u32> = positions.iter().map(|position| position.ordinal).collect();
    assert_eq!(ordinals, (0..100).collect::<Vec<_>>());
    assert!(positions.iter().all(|position| position.time == positions[0].time));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_continues_after_temporary_errors() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let mut feed = db.open_feed().await;
    let mut reached = Position::ZERO;
    write(&db, 0).await;
    receive_until(&mut feed, &mut reached, 0).await;
    for (round, mode) in [doc! {"errorCode": 10107}, doc! {"errorCode": 189}, doc! {"closeConnection": true}]
        .into_iter()
        .enumerate()
    {
        let mut data = doc! {"failCommands": ["getMore", "aggregate"], "appName": "taskcast"};
        data.extend(mode);
        let failpoint = doc! {"configureFailPoint": "failCommand", "mode": {"times": 3}, "data": data};
        db.client.database("admin").run_command(failpoint).await.expect("set");
        let number = round as i64 + 1;
        write(&db, number).await;
        assert_eq!(receive_until(&mut feed, &mut reached, number).await, [number]);
    }
}

/// Each of these errors means that the stream can't be resumed. The feed reports a gap, and then all later changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_history_is_reported_as_a_gap_then_reopened() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let mut feed = db.open_feed().await;
    let mut reached = Position::ZERO;
    for (round, code) in [286, 280, 260, 10334].into_iter().enumerate() {
        let failpoint = doc! {
            "configureFailPoint": "failCommand", "mode": {"times": 1},
            "data": {"failCommands": ["getMore"], "errorCode": code, "appName": "taskcast"},
        };
        db.client.database("admin").run_command(failpoint).await.expect("set");
        expect_gap_then_opened(&mut feed, &mut reached).await;
        write(&db, round as i64).await;
        assert_eq!(
            receive_until(&mut feed, &mut reached, round as i64).await,
            [round as i64],
            "after {code}"
        );
    }
}

/// After the gap, the feed creates the dropped collection again, with pre- and post-images. It then misses no change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_collection_is_reported_as_a_gap_then_reopened() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let mut reached = Position::ZERO;
    write(&db, 0).await;
    receive_until(&mut feed, &mut reached, 0).await;
    db.tasks().drop().await.expect("dropped");
    expect_gap_then_opened(&mut feed, &mut reached).await;
    write(&db, 1).await;
    write(&db, 2).await;
    assert_eq!(receive_until(&mut feed, &mut reached, 2).await, [1, 2]);
}

/// Another process switches the images off while the feed runs. The feed reports the lost changes as a gap and switches the
/// images on again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_are_switched_off_are_a_gap_and_come_back() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let mut reached = Position::ZERO;
    write(&db, 0).await;
    receive_until(&mut feed, &mut reached, 0).await;
    let off = doc! {"collMod": "tasks", "changeStreamPreAndPostImages": {"enabled": false}};
    db.client.database(db.config.database.as_deref().expect("named")).run_command(off).await.expect("off");
    write(&db, 1).await;
    expect_gap_then_opened(&mut feed, &mut reached).await;
    write(&db, 2).await;
    write(&db, 3).await;
    assert_eq!(receive_until(&mut feed, &mut reached, 3).await, [2, 3]);
}

fn failpoint_off() -> Document {
    doc! {"configureFailPoint": "failCommand", "mode": "off"}
}

/// With `Require`, taskcast does not switch the images on. The feed ends with an error that tells the operator how to enable them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_may_not_be_switched_on_again_end_the_feed() {
    let mut db = TestDatabase::new().await;
    db.config.images = Images::Require;
    let mut feed = db.open_feed().await;
    let mut reached = Position::ZERO;
    write(&db, 0).await;
    receive_until(&mut feed, &mut reached, 0).await;
    let off = doc! {"collMod": "tasks", "changeStreamPreAndPostImages": {"enabled": false}};
    let name = db.config.database.as_deref().expect("named");
    db.client.database(name).run_command(off).await.expect("off");
    write(&db, 1).await;
    while let Some(item) = feed.items.recv().await {
        assert!(!matches!(item, FeedItem::Change(_)), "{item:?}");
    }
    let ended = feed.task.await.expect("no panic");
    assert!(matches!(&ended, Err(StoreError::Unusable(text)) if text.contains("collMod")), "{ended:?}");
}

/// `open_feed` enables the images after these two writes. When the feed starts, it also reads the changes of the last two minutes. The
/// insert contains the whole task and needs no images. The update needs them, and has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_from_before_the_images_are_a_gap() {
    let db = TestDatabase::new().await;
    write(&db, 0).await;
    write(&db, 1).await;
    let mut feed = db.open_feed().await;
    let mut reached = Position::ZERO;
    assert_eq!(receive_until(&mut feed, &mut reached, 0).await, [0]);
    expect_gap_then_opened(&mut feed, &mut reached).await;
    write(&db, 2).await;
    assert_eq!(receive_until(&mut feed, &mut reached, 2).await, [2]);
}

/// When the feed starts, it also reads the changes of the last two minutes, so that clients can continue after a restart of the node. If
/// the oplog is too short for that, the feed has missed no change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_oplog_is_no_gap_at_the_start() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    db.prepared_store().await;
    let failpoint = doc! {
        "configureFailPoint": "failCommand", "mode": {"times": 1},
        "data": {"failCommands": ["getMore"], "errorCode": 286, "appName": "taskcast"},
    };
    db.client.database("admin").run_command(failpoint).await.expect("set");
    let mut feed = db.open_feed().await;
    write(&db, 1).await;
    assert_eq!(receive_until(&mut feed, &mut { Position::ZERO }, 1).await, [1]);
}

/// The only member steps down and is elected again some seconds later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_continues_after_an_election() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let mut feed = db.open_feed().await;
    let mut reached = Position::ZERO;
    write(&db, 0).await;
    server.command(doc! {"replSetStepDown": 1, "force": true});
    write(&db, 1).await;
    assert_eq!(receive_until(&mut feed, &mut reached, 1).await, [0, 1]);
}

async fn expect_gap_then_opened(feed: &mut TestFeed, reached: &mut Position) {
    loop {
        match feed.next().await {
            FeedItem::Gap(_) => break,
            FeedItem::Idle(position) => assert!(position >= *reached),
            other => panic!("a gap was expected: {other:?}"),
        }
    }
    match feed.next().await {
        FeedItem::Opened(position) => *reached = position,
        other => panic!("{other:?}"),
    }
}
