//! Checks the positions of snapshots, of changes and of an idle stream.

use std::{collections::HashMap, sync::Arc, time::Instant};

use futures_util::future::join_all;
use mongodb::bson::{Document, doc, oid::ObjectId};
use taskcast::{
    feed::{FeedItem, Position},
    store::{BatchedReads, Store},
    task::{Field, TaskId, UserId, Viewer, Window},
};

use tokio_util::sync::CancellationToken;

use crate::mongod::{DEADLINE, TestDatabase};

/// A change is in a snapshot exactly when its position is not after the snapshot's position. A fast writer, with and without
/// transactions, races with readers. Afterwards the test compares each snapshot with the changes of the feed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_a_snapshot_exactly_when_it_is_not_later() {
    const WRITES: i32 = 1500;
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let (tasks, client) = (db.tasks(), db.client.clone());
    tasks.insert_one(doc! {"_id": "t", "createdBy": "alice", "prNumber": 0}).await.expect("inserted");

    let writer = tokio::spawn(async move {
        let mut session = client.start_session().await.expect("a session");
        let mut number = 0;
        while number < WRITES {
            if number % 10 == 0 {
                session.start_transaction().await.expect("started");
                for _ in 0..3 {
                    number += 1;
                    let update = doc! {"$set": {"prNumber": number}};
                    tasks.update_one(doc! {"_id": "t"}, update).session(&mut session).await.expect("updated");
                }
                session.commit_transaction().await.expect("committed");
            } else {
                number += 1;
                tasks
                    .update_one(doc! {"_id": "t"}, doc! {"$set": {"prNumber": number}})
                    .await
                    .expect("updated");
            }
        }
    });
    let store = db.store();
    let reader = tokio::spawn(async move {
        let id = TaskId::parse("t").expect("an id");
        let viewer = Viewer { user: UserId::parse("alice").expect("a user"), org: None };
        let mut seen = Vec::new();
        while !writer.is_finished() {
            let one = store.task(&id).await.expect("read");
            seen.push((one.position, one.task.expect("there").task.get(Field::PrNumber).clone()));
            let all = store.dashboard(&viewer, 10).await.expect("read");
            assert_eq!(all.own_counts.active, 1);
            seen.push((all.position, all.tasks[0].get(Field::PrNumber).clone()));
        }
        seen
    });

    let mut told: Vec<(Position, serde_json::Value)> = Vec::new();
    let mut reached = Position::ZERO;
    loop {
        match feed.next().await {
            FeedItem::Change(change) => {
                assert!(change.position > reached, "nothing comes at or before what was said to be reached");
                reached = change.position;
                let number = change.after.expect("there").get(Field::PrNumber).clone();
                let last = number == WRITES;
                told.push((change.position, number));
                if last {
                    break;
                }
            }
            FeedItem::Idle(position) => {
                // The feed repeats the same position while nothing changes.
                assert!(position >= reached);
                reached = position;
            }
            other => panic!("{other:?}"),
        }
    }
    let numbers: Vec<_> = told.iter().map(|(_, number)| number.as_i64().expect("a number")).collect();
    assert_eq!(numbers, (0..=i64::from(WRITES)).collect::<Vec<_>>());
    let seen = reader.await.expect("no panic");
    let mut different = HashMap::new();
    for (position, number) in seen {
        let expected = told.iter().take_while(|(at, _)| *at <= position).last();
        assert_eq!(expected.map(|(_, number)| number), Some(&number), "at {position}");
        different.insert(number, ());
    }
    assert!(different.len() > 10, "the readers did race: {}", different.len());
}

/// Requests that arrive during a read are read together, except those that wait behind a large task.
#[tokio::test]
async fn a_task_is_the_same_whether_it_is_read_alone_or_with_others() {
    let db = TestDatabase::new().await;
    let (store, tasks) = (db.store(), db.tasks());
    let timeline = |entries: usize| -> Vec<Document> {
        (0..entries)
            .map(|n| doc! {"eventType": "note", "payload": {"n": n as i64, "text": "x".repeat(300)}})
            .collect()
    };
    let alike = "65a1b2c3d4e5f60718293a4b";
    let object_id = ObjectId::parse_str(alike).expect("valid");
    tasks
        .insert_many([
            doc! {"_id": "none", "title": "no timeline"},
            doc! {"_id": "small", "title": "some entries", "events": timeline(3)},
            doc! {"_id": "large", "title": "many entries", "events": timeline(300)},
            doc! {"_id": "long", "title": "one large field", "errorMessage": "x".repeat(2_000_000)},
            doc! {"_id": "bare"},
            doc! {"_id": object_id, "title": "by ObjectId"},
            doc! {"_id": alike, "title": "by text"},
        ])
        .await
        .expect("inserted");
    let ids = ["none", "small", "large", "long", "bare", alike, "absent"]
        .map(|id| TaskId::parse(id).expect("an id"));
    let mut alone = Vec::new();
    for id in &ids {
        alone.push(store.task(id).await.expect("read").task);
    }
    let sizes = alone.iter().flatten().map(|full| full.timeline.len()).collect::<Vec<_>>();
    assert_eq!((sizes, alone.last()), (vec![0, 3, 300, 0, 0, 0], Some(&None)));
    assert_eq!(alone[5].as_ref().expect("there").task.get(Field::Title), "by text");
    let read = store.task_parts(&ids, Window::ALL).await.expect("read");
    assert!((1..ids.len()).contains(&read.len()), "the read ended after the large task: {}", read.len());
    let reads: BatchedReads = BatchedReads::new(Arc::new(store));
    let together = join_all(ids.iter().map(|id| reads.task_part(id, Window::ALL))).await;
    let together: Vec<_> = together.into_iter().map(|read| read.expect("read").answer.task.clone()).collect();
    assert_eq!(together, alone);
}

#[tokio::test]
async fn an_idle_stream_reaches_what_a_snapshot_has_seen() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let elsewhere = db.client.database(db.config.database.as_deref().expect("named"));
    elsewhere.collection("other").insert_one(doc! {"a": 1}).await.expect("inserted");
    let store = db.store();
    let snapshot = store.task(&TaskId::parse("none").expect("an id")).await.expect("read");
    assert_eq!(snapshot.task, None);
    loop {
        match feed.next().await {
            FeedItem::Idle(position) if position >= snapshot.position => break,
            FeedItem::Idle(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The position of an idle item is correct although the oplog is busy with other collections, and with transactions that
/// sometimes write to this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_comes_at_or_before_a_position_that_was_reported_as_reached() {
    let db = TestDatabase::new().await;
    let mut feed = db.open_feed().await;
    let (tasks, client, stop) = (db.tasks(), db.client.clone(), CancellationToken::new());
    let other = client.database(db.config.database.as_deref().expect("named")).collection("other");
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        let mut session = client.start_session().await.expect("a session");
        let mut n = 0;
        while !stopped.is_cancelled() {
            n += 1;
            other.insert_one(doc! {"n": n}).await.expect("inserted");
            // The pauses are long enough for the stream to become idle in between.
            if n % 300 == 0 {
                session.start_transaction().await.expect("started");
                for k in 0..6 {
                    other.insert_one(doc! {"n": n}).session(&mut session).await.expect("inserted");
                    tasks
                        .insert_one(doc! {"_id": format!("{n}-{k}")})
                        .session(&mut session)
                        .await
                        .expect("inserted");
                }
                session.commit_transaction().await.expect("committed");
            }
        }
    });
    let (mut reached, mut idle, mut changes) = (Position::ZERO, 0, 0);
    let deadline = Instant::now() + DEADLINE;
    while idle < 10 || changes < 30 {
        assert!(Instant::now() < deadline, "{idle} times idle, {changes} changes");
        reached = match feed.next().await {
            FeedItem::Change(change) => {
                changes += 1;
                assert!(change.position > reached, "{:?} after {reached:?}", change.position);
                change.position
            }
            FeedItem::Idle(position) => {
                idle += 1;
                // The feed repeats the same position when the writer has to wait on a busy machine.
                assert!(position >= reached, "{position:?} after {reached:?}");
                position
            }
            other => panic!("{other:?}"),
        };
    }
    stop.cancel();
    writer.await.expect("no panic");
}

/// Another node, or this node after a restart, gives the same change the same position.
#[tokio::test]
async fn positions_are_the_same_for_every_follower() {
    let db = TestDatabase::new().await;
    let mut first = db.open_feed().await;
    let mut session = db.client.start_session().await.expect("a session");
    for round in 0..5 {
        session.start_transaction().await.expect("started");
        for n in 0..4 {
            let task = doc! {"_id": format!("{round}-{n}")};
            db.tasks().insert_one(task).session(&mut session).await.expect("inserted");
        }
        session.commit_transaction().await.expect("committed");
    }
    let mut second = db.open_feed().await;
    for _ in 0..20 {
        let mut pair = Vec::new();
        for feed in [&mut first, &mut second] {
            pair.push(loop {
                match feed.next().await {
                    FeedItem::Change(change) => break change,
                    FeedItem::Idle(_) => {}
                    other => panic!("{other:?}"),
                }
            });
        }
        assert_eq!(pair[0], pair[1]);
    }
}
