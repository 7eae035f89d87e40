//! Checks what may differ between versions of MongoDB, with every server that is there for tests.

use mongodb::bson::{Document, Timestamp, doc};
use taskcast::feed::{FeedItem, Position};

use crate::mongod::{Mongod, TestDatabase, TestFeed, binaries};

/// The cluster time of the server when it answered the command.
fn cluster_time(answer: &Document) -> u64 {
    let Timestamp { time, increment } = answer.get_timestamp("operationTime").expect("a replica set");
    u64::from(time) << 32 | u64::from(increment)
}

async fn answer(db: &TestDatabase, command: Document) -> Document {
    let database = db.config.database.as_deref().expect("named");
    db.client.database(database).run_command(command).await.expect("an answer")
}

/// Reads the feed until everything up to this cluster time has been read.
async fn read_up_to(feed: &mut TestFeed, time: u64) -> Position {
    loop {
        match feed.next().await {
            FeedItem::Idle(position) if position.time >= time => return position,
            FeedItem::Idle(_) | FeedItem::Change(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The position of an idle feed is read from the resume token. It is the cluster time that the server has reached, whether
/// the token is that of a change or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_token_contains_the_cluster_time() {
    for binary in binaries() {
        let server = Mongod::replica_set_of(&binary);
        let version = server.command(doc! {"buildInfo": 1});
        let version = version.get_str("version").expect("a version");
        let db = TestDatabase::on(&server).await;
        let mut feed = db.open_feed().await;
        for n in 0..4 {
            for collection in ["tasks", "other"] {
                let insert = doc! {"insert": collection, "documents": [{"_id": format!("{n}")}]};
                let written = cluster_time(&answer(&db, insert).await);
                let read = read_up_to(&mut feed, written).await;
                let now = cluster_time(&answer(&db, doc! {"ping": 1}).await);
                assert!(read.time <= now, "{version}: {read:?} after {now}");
            }
        }
        println!("MongoDB {version}: the token of a change and the token of no change have been read");
    }
}
