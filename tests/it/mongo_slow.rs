//! A slow server is not a dead server: checks the feed with a backlog, and the feed and dashboards with slow answers of MongoDB.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt;
use mongodb::bson::{DateTime, Document, RawDocumentBuf, doc};
use taskcast::{
    feed::FeedItem,
    store::{ChangeStreamStatus, MongoStore, Store},
    task::{Field, OrgId, UserId},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mongod::{DEADLINE, Mongod, TestDatabase};

/// The proxy's treatment of MongoDB's answers. Answers to `hello` always pass, except with `AllLost`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answers {
    Pass,
    HeldBack(Duration),
    /// The proxy drops the answers to `getMore`, like a firewall that has forgotten the connections.
    CursorsLost,
    /// The proxy drops all answers, including those to `hello`, as if the server or the network were down.
    AllLost,
}

/// Forwards MongoDB's messages, and remembers the last command of each connection.
struct Proxy {
    port: u16,
    answers: watch::Sender<Answers>,
    finds: Arc<PendingFinds>,
}

/// The number of `find` commands that have not been answered.
#[derive(Default)]
struct PendingFinds {
    current: AtomicUsize,
    /// The largest number at one time.
    max: AtomicUsize,
}

impl PendingFinds {
    fn began(&self) {
        let now = self.current.fetch_add(1, Ordering::SeqCst) + 1;
        self.max.fetch_max(now, Ordering::SeqCst);
    }

    fn answered(&self) {
        self.current.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Proxy {
    async fn to(server: &Mongod) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (answers, answer_mode) = watch::channel(Answers::Pass);
        let finds = Arc::new(PendingFinds::default());
        let (target, counted) = (server.port(), finds.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", target)).await.expect("a server");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let (last_command, last_command_rx) = watch::channel(String::new());
                tokio::spawn(forward_commands(from_client, to_server, last_command, counted.clone()));
                tokio::spawn(forward_answers(
                    from_server,
                    to_client,
                    last_command_rx,
                    answer_mode.clone(),
                    counted.clone(),
                ));
            }
        });
        Self { port, answers, finds }
    }

    fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }
}

/// One whole message, with its header.
async fn message(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.ok()?;
    let mut message = length.to_vec();
    message.resize(u32::from_le_bytes(length) as usize, 0);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

/// The name of the command in an OP_MSG. It follows the header, the flags, a kind, a length and a type. The driver uses the
/// older OP_QUERY only to begin a connection.
fn command(message: &[u8]) -> String {
    const OP_QUERY: [u8; 4] = 2004_u32.to_le_bytes();
    if message[12..16] == OP_QUERY {
        return "hello".to_owned();
    }
    message[26..].iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

async fn forward_commands(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    last_command: watch::Sender<String>,
    finds: Arc<PendingFinds>,
) {
    while let Some(message) = message(&mut from).await {
        let command = command(&message);
        if command == "find" {
            finds.began();
        }
        last_command.send_replace(command);
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn forward_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    last_command: watch::Receiver<String>,
    mut answers: watch::Receiver<Answers>,
    finds: Arc<PendingFinds>,
) {
    while let Some(message) = message(&mut from).await {
        let last_command = last_command.borrow().clone();
        let is_heartbeat = matches!(last_command.as_str(), "hello" | "ismaster" | "isMaster");
        let now = *answers.borrow();
        match now {
            Answers::HeldBack(time) if !is_heartbeat => {
                // The proxy waits for this time, or until the test changes `answers`.
                let _ = tokio::time::timeout(time, answers.wait_for(|answers| *answers != now)).await;
            }
            Answers::CursorsLost if last_command == "getMore" => continue,
            Answers::AllLost => continue,
            _ => {}
        }
        if last_command == "find" {
            finds.answered();
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// A store behind a proxy, and the feed that follows the store.
struct ProxiedStore {
    store: Arc<dyn Store>,
    items: mpsc::Receiver<FeedItem>,
    _stop: DropGuard,
}

impl ProxiedStore {
    async fn open(db: &TestDatabase, proxy: &Proxy) -> Self {
        let mut config = db.config.clone();
        config.uri = proxy.uri();
        let store = Arc::new(MongoStore::new(config).expect("a store"));
        store.prepare().await.expect("prepared");
        let (sender, items) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        let (follower, token) = (store.clone(), stop.clone());
        tokio::spawn(async move { follower.follow(sender, token).await });
        let mut proxied = Self { store, items, _stop: stop.drop_guard() };
        assert!(matches!(proxied.next().await, FeedItem::Opened(_)));
        proxied
    }

    async fn next(&mut self) -> FeedItem {
        tokio::time::timeout(DEADLINE, self.items.recv()).await.expect("in time").expect("it goes on")
    }

    async fn numbers(&mut self, count: usize) -> Vec<i64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            match self.next().await {
                FeedItem::Change(change) => {
                    let after = change.after.expect("there");
                    numbers.push(after.get(Field::PrNumber).as_i64().expect("a number"));
                }
                FeedItem::Idle(_) => {}
                other => panic!("{other:?}"),
            }
        }
        numbers
    }

    fn stream(&self) -> ChangeStreamStatus {
        self.store.stream().expect("MongoDB has one")
    }

    async fn until(&self, reached: impl Fn(ChangeStreamStatus) -> bool) {
        let wait = async {
            while !reached(self.stream()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("in time");
    }
}

async fn write(db: &TestDatabase, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let update = doc! {"$set": {"prNumber": number}, "$push": {"events": {"eventType": "step", "payload": {"n": number}}}};
        db.tasks().update_one(doc! {"_id": "t"}, update).upsert(true).await.expect("written");
    }
}

/// The delay of six seconds is longer than the feed waits before it asks MongoDB what became of its request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_waits_for_a_late_answer_and_reports_the_lag() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let proxy = Proxy::to(&server).await;
    let mut feed = ProxiedStore::open(&db, &proxy).await;
    write(&db, 0..10).await;
    assert_eq!(feed.numbers(10).await, (0..10).collect::<Vec<_>>());
    feed.until(|stream| stream.lag == Duration::ZERO).await;

    proxy.answers.send_replace(Answers::HeldBack(Duration::from_secs(6)));
    write(&db, 10..60).await;
    feed.until(|stream| stream.lag > Duration::from_secs(6)).await;
    assert_eq!(feed.numbers(50).await, (10..60).collect::<Vec<_>>());
    proxy.answers.send_replace(Answers::Pass);
    write(&db, 60..70).await;
    assert_eq!(feed.numbers(10).await, (60..70).collect::<Vec<_>>());
    feed.until(|stream| stream.lag == Duration::ZERO).await;
    assert_eq!(feed.stream().restarts, 0);
}

/// MongoDB answers heartbeats and runs no operation for the feed. The answer is therefore lost, and the feed reopens the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_does_not_wait_for_a_lost_answer() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let proxy = Proxy::to(&server).await;
    let mut feed = ProxiedStore::open(&db, &proxy).await;
    write(&db, 0..5).await;
    assert_eq!(feed.numbers(5).await, (0..5).collect::<Vec<_>>());
    proxy.answers.send_replace(Answers::CursorsLost);
    write(&db, 5..10).await;
    feed.until(|stream| stream.restarts > 0).await;
    proxy.answers.send_replace(Answers::Pass);
    assert_eq!(feed.numbers(5).await, (5..10).collect::<Vec<_>>());
}

/// No side learns that the connections are dead. The feed must nevertheless wait less than for a server that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_notices_that_the_server_is_unreachable() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let proxy = Proxy::to(&server).await;
    let mut feed = ProxiedStore::open(&db, &proxy).await;
    write(&db, 0..5).await;
    assert_eq!(feed.numbers(5).await, (0..5).collect::<Vec<_>>());
    proxy.answers.send_replace(Answers::AllLost);
    write(&db, 5..10).await;
    feed.until(|stream| stream.restarts > 0).await;
    feed.until(|stream| stream.lag > Duration::from_secs(1)).await;
    proxy.answers.send_replace(Answers::Pass);
    assert_eq!(feed.numbers(5).await, (5..10).collect::<Vec<_>>());
}

/// The batch size of each of the feed's requests, from MongoDB's profiler.
async fn limits(db: &TestDatabase) -> Vec<i64> {
    let database = db.client.database(db.config.database.as_deref().expect("named"));
    let profile = database.collection::<Document>("system.profile");
    let filter = doc! {"command.getMore": {"$exists": true}, "command.collection": "tasks"};
    let found: Vec<Document> =
        profile.find(filter).sort(doc! {"ts": 1}).await.expect("found").try_collect().await.expect("read");
    let limit = |entry: &Document| {
        let command = entry.get_document("command").expect("a command");
        command
            .get_i64("batchSize")
            .or_else(|_| command.get_i32("batchSize").map(i64::from))
            .expect("a limit")
    };
    found.iter().map(limit).collect()
}

/// The backlog has changes to a task with a long timeline, as after a restart. One stream reads it, and each request has a limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_large_documents_is_read_without_opening_the_stream_again() {
    const BACKLOG: i64 = 100;
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    db.prepared_store().await;
    let entry = |n: i64| doc! {"eventType": "earlier", "payload": {"n": n, "text": "x".repeat(60)}};
    let timeline: Vec<Document> = (0..3000).map(entry).collect();
    db.tasks().insert_one(doc! {"_id": "t", "prNumber": -1, "events": timeline}).await.expect("inserted");
    write(&db, 0..BACKLOG).await;
    let database = db.client.database(db.config.database.as_deref().expect("named"));
    database.run_command(doc! {"profile": 2}).await.expect("profiled");

    let proxy = Proxy::to(&server).await;
    let mut feed = ProxiedStore::open(&db, &proxy).await;
    let count = usize::try_from(BACKLOG + 1).expect("small");
    assert_eq!(feed.numbers(count).await, (-1..BACKLOG).collect::<Vec<_>>());
    assert_eq!(feed.stream().restarts, 0);
    let limits = limits(&db).await;
    assert_eq!(limits.first(), Some(&4), "the first request asks for little: {limits:?}");
    assert!(limits.iter().all(|limit| *limit > 0), "no request asks for everything: {limits:?}");
}

/// The driver can't decode a document with invalid UTF-8, so taskcast's own requests can't read it. The driver's cursor can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_not_utf8_does_not_stop_the_feed() {
    let db = TestDatabase::new().await;
    db.prepared_store().await;
    let not_utf8 = doc! {"_id": "odd", "prNumber": 1, "title": "zzzz"};
    let mut bytes = mongodb::bson::serialize_to_vec(&not_utf8).expect("bytes");
    let at = bytes.windows(4).position(|four| four == b"zzzz").expect("there");
    bytes[at] = 0xff;
    let not_utf8 = RawDocumentBuf::from_bytes(bytes).expect("a document");
    write(&db, 0..1).await;
    db.tasks().clone_with_type::<RawDocumentBuf>().insert_one(not_utf8).await.expect("inserted");
    write(&db, 1..2).await;
    let mut feed = db.open_feed().await;
    let mut task_ids = Vec::new();
    while task_ids.len() < 3 {
        match feed.next().await {
            FeedItem::Change(change) => task_ids.push(change.task.as_str().to_owned()),
            FeedItem::Idle(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(task_ids, ["t", "odd", "t"]);
}

/// When more than a thousand tasks are visible to single users only, each user's tasks are read separately. All of these reads
/// run at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_with_many_tasks_of_their_own_do_not_wait_for_each_other() {
    const USERS: usize = 8;
    const TASKS: usize = 200;
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    let proxy = Proxy::to(&server).await;
    let mut config = db.config.clone();
    config.uri = proxy.uri();
    let store = MongoStore::new(config).expect("a store");
    store.prepare().await.expect("prepared");
    let tasks = (0..USERS * TASKS).map(|n| {
        doc! {"_id": format!("{n}"), "createdBy": format!("u{}", n % USERS), "orgId": "acme", "isPrivate": true,
        "status": "coding", "createdAt": DateTime::now()}
    });
    db.tasks().insert_many(tasks).await.expect("inserted");
    let users: Vec<UserId> = (0..USERS).map(|n| UserId::parse(&format!("u{n}")).expect("a user")).collect();

    proxy.answers.send_replace(Answers::HeldBack(Duration::from_millis(200)));
    let read = store.dashboards(OrgId::parse("acme").as_ref(), &users, 3).await.expect("read");
    assert_eq!(read.len(), USERS);
    for dashboard in read.values() {
        assert_eq!((dashboard.tasks.len(), dashboard.own_counts.active), (3, TASKS as u64));
    }
    // If these reads ran one after the other, only one would wait.
    let max = proxy.finds.max.load(Ordering::SeqCst);
    assert!(max > 2, "{max} at once");
}
