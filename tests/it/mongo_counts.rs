//! Checks how much MongoDB reads for dashboards and lists, and that counts kept in memory match their snapshot.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{TryStreamExt, future::join_all};
use mongodb::{
    Collection, Database,
    bson::{Bson, DateTime, Document, Timestamp, doc, oid::ObjectId},
    options::{CollectionOptions, ReadConcern, SessionOptions},
};
use taskcast::{
    store::{BatchedReads, Cursor, DashboardSnapshot, MongoStore, Store, TaskFilter},
    task::{Counts, DefaultOrg, OrgId, UserId, Viewer},
};
use tokio_util::sync::CancellationToken;

use crate::mongod::{DEADLINE, Mongod, TestDatabase, TestFeed};

fn viewer(user: &str, org: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse(org) }
}

/// The work of MongoDB for one request.
struct ProfiledCommand {
    command: Document,
    plan: String,
    examined: i64,
    returned: i64,
    sorted: bool,
}

impl std::fmt::Debug for ProfiledCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, plan, examined, returned, sorted } = self;
        write!(f, "{plan}: {examined} examined, {returned} returned, sorted: {sorted}, {command}")
    }
}

/// MongoDB's profiler, switched on for a test.
struct Profile(Database);

impl Profile {
    async fn of(db: &TestDatabase) -> Self {
        let database = db.client.database(db.config.database.as_deref().expect("named"));
        database.run_command(doc! {"profile": 2}).await.expect("profiling");
        Self(database)
    }

    /// The work of MongoDB since the last call, except for the change stream.
    async fn take_commands(&self) -> Vec<ProfiledCommand> {
        self.0.run_command(doc! {"profile": 0}).await.expect("profiling");
        let filter = doc! {
            "op": {"$in": ["query", "command", "getmore"]}, "ns": {"$regex": r"\.tasks$"},
            "command.explain": {"$exists": false}, "command.findAndModify": {"$exists": false}, "command.pipeline.0.$changeStream": {"$exists": false},
            "originatingCommand.pipeline.0.$changeStream": {"$exists": false},
        };
        let entries: Vec<Document> =
            self.entries().find(filter).await.expect("read").try_collect().await.expect("read");
        self.entries().drop().await.expect("dropped");
        self.0.run_command(doc! {"profile": 2}).await.expect("profiling");
        let number = |entry: &Document, name| entry.get_i32(name).map_or(0, i64::from);
        let profiled_command = |entry: Document| ProfiledCommand {
            plan: entry.get_str("planSummary").unwrap_or_default().to_owned(),
            examined: number(&entry, "docsExamined"),
            returned: number(&entry, "nreturned"),
            sorted: entry.get_bool("hasSortStage").unwrap_or(false),
            command: entry.get_document("command").cloned().unwrap_or_default(),
        };
        entries.into_iter().map(profiled_command).collect()
    }

    fn entries(&self) -> Collection<Document> {
        self.0.collection("system.profile")
    }
}

/// Tasks of seven creators. Every tenth task is private, every third has failed, and some have no organisation or another one.
fn many(number: i64) -> Vec<Document> {
    let task = |n: i64| {
        let mut task = doc! {
            "_id": if n % 2 == 0 { Bson::from(format!("task {n}")) } else { ObjectId::new().into() },
            "createdBy": format!("user-{}", n % 7), "createdAt": DateTime::from_millis(1_700_000_000_000 + n * 1000),
            "status": if n % 3 == 0 { "failed" } else { "coding" }, "isPrivate": n % 10 == 9,
        };
        match n % 4 {
            0 => None,
            3 => task.insert("orgId", "other"),
            _ => task.insert("orgId", "acme"),
        };
        task
    };
    (0..number).map(task).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_page_of_each_list_is_read_in_the_order_of_an_index() {
    let mut db = TestDatabase::new().await;
    db.config.default_org = DefaultOrg(OrgId::parse("acme"));
    let store = db.prepared_store().await;
    let mut tasks = many(4_000);
    // The newest tasks are all hidden from the other users.
    tasks.extend((0..1_000).map(|n| {
        doc! {
            "_id": format!("hidden {n}"), "createdBy": "user-1", "orgId": if n % 2 == 0 { "acme" } else { "other" },
            "isPrivate": n % 2 == 0, "status": "failed", "createdAt": DateTime::from_millis(1_800_000_000_000 + n),
        }
    }));
    db.tasks().insert_many(tasks).await.expect("inserted");
    let profile = Profile::of(&db).await;
    let mut pages = 0;
    for viewer in
        [viewer("user-0", "acme"), viewer("user-1", "acme"), viewer("user-2", "other"), viewer("user-3", "")]
    {
        for status in [None, Some("failed"), Some("none has it")] {
            for creator in
                [None, Some("user-0"), Some("user-1"), Some("user-2"), Some("user-3"), Some("nobody")]
            {
                let filter = TaskFilter {
                    status: status.map(str::to_owned),
                    creator: creator.and_then(UserId::parse),
                };
                let mut cursor: Option<Cursor> = None;
                for limit in [1, 50, 50] {
                    let page = store.list(&viewer, &filter, cursor.as_ref(), limit).await.expect("a page");
                    let commands = profile.take_commands().await;
                    assert!(!commands.is_empty() || page.tasks.is_empty());
                    let bound = 2 * i64::try_from(page.tasks.len()).expect("few") + 100;
                    assert!(
                        commands.iter().map(|command| command.examined).sum::<i64>() <= bound,
                        "{commands:#?}"
                    );
                    for command in commands {
                        assert!(
                            !command.sorted && !command.plan.contains("COLLSCAN"),
                            "{filter:?} {command:#?}"
                        );
                    }
                    pages += 1;
                    cursor = page.next;
                    if cursor.is_none() {
                        break;
                    }
                }
            }
        }
    }
    assert!(pages > 100, "{pages}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_complete_even_if_their_indexes_are_missing() {
    let db = TestDatabase::new().await;
    // A foreign index with the same key contains only some of the documents.
    let key = doc! {"orgId": 1, "isPrivate": 1, "createdAt": -1, "_id": -1};
    let partial = doc! {
        "key": key, "name": "orgId_1_isPrivate_1_createdAt_-1__id_-1", "partialFilterExpression": {"status": "failed"},
    };
    let database = db.client.database(db.config.database.as_deref().expect("named"));
    database.run_command(doc! {"createIndexes": "tasks", "indexes": [partial]}).await.expect("made");
    let store = db.prepared_store().await;
    db.tasks().insert_many(many(200)).await.expect("inserted");
    let viewer = viewer("user-1", "acme");
    let filter = TaskFilter::default();
    let whole = async || {
        let page = store.list(&viewer, &filter, None, 200).await.expect("a page");
        let dashboard = store.dashboard(&viewer, 10).await.expect("read");
        (page.tasks.len(), dashboard.tasks.len(), dashboard.org_counts, dashboard.own_counts)
    };
    let before = whole().await;
    let public = many(200).into_iter().filter(|task| {
        task.get("orgId") == Some(&"acme".into()) && task.get("isPrivate") == Some(&false.into())
    });
    assert_eq!(before.2.active + before.2.failed, u64::try_from(public.count()).expect("few"));
    db.tasks().drop_indexes().await.expect("dropped");
    assert_eq!(whole().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_is_counted_once_and_then_read_by_index() {
    let db = TestDatabase::new().await;
    let store = Arc::new(db.prepared_store().await);
    db.tasks().insert_many(many(2_000)).await.expect("inserted");
    let _following = TestFeed::open(store.clone()).await.discard_items();
    let viewers: Vec<Viewer> = (0..7).map(|n| viewer(&format!("user-{n}"), "acme")).collect();
    let profile = Profile::of(&db).await;
    let reads: BatchedReads = BatchedReads::new(store.clone());
    let ask = async || {
        let read = join_all(viewers.iter().map(|viewer| reads.dashboard(viewer, 20))).await;
        read.into_iter().map(|one| one.map(|one| one.answer)).collect::<Vec<_>>()
    };
    let counts = |one: &DashboardSnapshot| (one.org_counts, one.own_counts);

    let first: Vec<_> = ask().await.into_iter().map(|one| counts(&one.expect("read"))).collect();
    let commands = profile.take_commands().await;
    let counting: Vec<&ProfiledCommand> =
        commands.iter().filter(|profiled| profiled.command.contains_key("aggregate")).collect();
    assert!(!counting.is_empty());
    for command in counting {
        assert_eq!(command.examined, 0, "only keys of an index: {command:#?}");
    }

    // Another process writes a task, and the change updates the counts in memory.
    let coding = doc! {"orgId": "acme", "isPrivate": false, "status": "coding"};
    let task =
        db.tasks().find_one_and_update(coding, doc! {"$set": {"status": "merged"}}).await.expect("written");
    let id = task.expect("there").get("_id").cloned().expect("an id");
    for turn in 0..5 {
        let again: Vec<_> = ask().await.into_iter().map(|one| counts(&one.expect("read"))).collect();
        for ((org, own), (org_then, own_then)) in again.iter().zip(&first) {
            assert_eq!(own, own_then);
            assert_eq!((org.completed, org.active), (1, org_then.active - 1), "{turn}");
        }
    }
    let commands = profile.take_commands().await;
    assert!(!commands.is_empty());
    for command in &commands {
        assert!(!command.command.contains_key("aggregate"), "nothing is counted again: {command:#?}");
        assert!(command.examined <= 2 * command.returned + 100 && !command.sorted, "{command:#?}");
    }
    db.tasks().delete_one(doc! {"_id": id}).await.expect("deleted");
    assert_eq!(store.dashboard(&viewers[0], 20).await.expect("read").org_counts.completed, 0);
}

/// Makes random writes of all kinds that change counts.
struct Writer {
    tasks: Collection<Document>,
    seed: u64,
}

impl Writer {
    fn dice(&mut self, sides: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % sides
    }

    fn id(&mut self) -> Bson {
        match self.dice(12) {
            // No task can have this id.
            0 => "line\nbreak".into(),
            1 => Bson::MaxKey,
            n => format!("task {n}").into(),
        }
    }

    fn pick(&mut self, from: &[&str]) -> Bson {
        let n = self.dice(from.len() as u64);
        from[usize::try_from(n).expect("small")].into()
    }

    fn field(&mut self) -> Document {
        match self.dice(8) {
            0 | 1 => doc! {"isPrivate": self.dice(2) == 0},
            2 => doc! {"createdBy": self.pick(&["alice", "bob"])},
            3 => doc! {"orgId": self.pick(&["acme", "other"])},
            4 => match self.dice(4) {
                0 => doc! {"orgId": ["acme"]},
                1 => doc! {"orgId": 5},
                2 => doc! {"isPrivate": [false]},
                _ => doc! {"isPrivate": Bson::Null},
            },
            _ => doc! {"status": self.pick(&["coding", "merged", "failed"])},
        }
    }

    /// One write, or several in a transaction.
    async fn write(&mut self) {
        let number = if self.dice(5) == 0 { 4 } else { 1 };
        let mut session = self.tasks.client().start_session().await.expect("a session");
        if number > 1 {
            session.start_transaction().await.expect("begun");
        }
        for _ in 0..number {
            let (by_id, field) = (doc! {"_id": self.id()}, self.field());
            let result = if self.dice(6) == 0 {
                self.tasks.delete_one(by_id).session(&mut session).await.map(drop)
            } else {
                self.tasks
                    .update_one(by_id, doc! {"$set": field})
                    .upsert(true)
                    .session(&mut session)
                    .await
                    .map(drop)
            };
            // MongoDB refuses a second indexed array in one document, and one of two transactions that conflict.
            if result.is_err() {
                break;
            }
        }
        if number > 1 && session.commit_transaction().await.is_err() {
            let _ = session.abort_transaction().await;
        }
    }
}

/// Counts all documents at the time of the snapshot by the rules of the domain.
async fn expected_counts(
    db: &TestDatabase,
    viewer: &Viewer,
    snapshot: &DashboardSnapshot,
) -> (Counts, Counts) {
    let mut options = SessionOptions::default();
    options.snapshot = Some(true);
    let time = snapshot.position.time;
    options.snapshot_time = Some(Timestamp { time: (time >> 32) as u32, increment: time as u32 });
    let mut session = db.client.start_session().with_options(options).await.expect("a session");
    let concern = CollectionOptions::builder().read_concern(ReadConcern::snapshot()).build();
    let tasks = db.tasks().client().database(&db.tasks().namespace().db);
    let tasks: Collection<Document> = tasks.collection_with_options("tasks", concern);
    let mut cursor = tasks.find(doc! {}).session(&mut session).await.expect("read");
    let all: Vec<Document> = cursor.stream(&mut session).try_collect().await.expect("read");
    let (mut org_counts, mut own_counts) = (Counts::default(), Counts::default());
    for task in all {
        let is_usable = match task.get("_id") {
            Some(Bson::String(id)) => !id.contains('\n'),
            other => matches!(other, Some(Bson::ObjectId(_))),
        };
        if !is_usable {
            continue;
        }
        let is_public = matches!(task.get("isPrivate"), None | Some(Bson::Null | Bson::Boolean(false)));
        let org = task.get_str("orgId").ok().and_then(OrgId::parse);
        let is_shared = is_public && org.is_some() && org == viewer.org;
        let counts = if is_shared {
            &mut org_counts
        } else if task.get_str("createdBy").ok() == Some(viewer.user.as_str()) {
            &mut own_counts
        } else {
            continue;
        };
        match task.get_str("status") {
            Ok("merged") => counts.completed += 1,
            Ok("failed") => counts.failed += 1,
            _ => counts.active += 1,
        }
    }
    (org_counts, own_counts)
}

async fn assert_dashboards_are_right(db: &TestDatabase, store: &MongoStore, number: usize) {
    let viewers =
        [viewer("alice", "acme"), viewer("bob", "acme"), viewer("alice", "other"), viewer("bob", "")];
    for n in 0..number {
        let viewer = &viewers[n % viewers.len()];
        let snapshot = loop {
            match store.dashboard(viewer, 1).await {
                Ok(snapshot) => break snapshot,
                // The collection is absent for a short time.
                Err(error) => assert!(error.is_temporary(), "{error}"),
            }
        };
        let counts = (snapshot.org_counts, snapshot.own_counts);
        assert_eq!(
            counts,
            expected_counts(db, viewer, &snapshot).await,
            "{viewer:?} at {:?}",
            snapshot.position
        );
    }
}

/// The counts are checked while other processes write, and after the change stream has lost history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_in_memory_match_their_snapshot() {
    let db = TestDatabase::new().await;
    let store = Arc::new(db.prepared_store().await);
    db.tasks().insert_many(many(20)).await.expect("inserted");
    let _following = TestFeed::open(store.clone()).await.discard_items();
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..3)
        .map(|seed| {
            let (mut writer, stop) = (Writer { tasks: db.tasks(), seed }, stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    writer.write().await;
                }
            })
        })
        .collect();
    let profile = Profile::of(&db).await;
    assert_dashboards_are_right(&db, &store, 120).await;
    let counted = profile
        .take_commands()
        .await
        .iter()
        .filter(|profiled| profiled.command.contains_key("aggregate"))
        .count();
    assert!(counted < 60, "most come from memory: {counted} reads of an index for 120 dashboards");

    db.tasks().drop().await.expect("dropped");
    let begun = Instant::now();
    while store.stream().is_none_or(|stream| stream.restarts == 0) {
        assert!(begun.elapsed() < DEADLINE, "the feed does not notice");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_dashboards_are_right(&db, &store, 40).await;
    stop.cancel();
    join_all(writers).await;
    assert_dashboards_are_right(&db, &store, 4).await;
}

/// Another node has begun to build an index, and the build takes long. A query with a hint at the index fails until it is ready.
#[tokio::test]
async fn an_index_that_another_node_is_making_is_waited_for() {
    let server = Mongod::replica_set();
    let db = TestDatabase::on(&server).await;
    drop(db.prepared_store().await);
    db.tasks().insert_many(many(20)).await.expect("inserted");
    let name = "orgId_1_isPrivate_1_createdAt_-1__id_-1".to_owned();
    db.tasks().drop_index(&*name).await.expect("dropped");
    let fail_point = |mode: &str| doc! {"configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode};
    server.command(fail_point("alwaysOn"));
    let prepare = || {
        let store = db.store();
        tokio::spawn(async move { store.prepare().await })
    };
    let admin = db.client.database("admin");
    let waiting_builds = async || {
        // MongoDB's own index build has no connection.
        let by_clients = doc! {"command.createIndexes": "tasks", "connectionId": {"$exists": true}};
        let stages = [doc! {"$currentOp": {}}, doc! {"$match": by_clients}];
        let found = admin.aggregate(stages).await.expect("asked");
        found.try_collect::<Vec<_>>().await.expect("read").len()
    };
    let first = prepare();
    let deadline = Instant::now() + DEADLINE;
    while !db.tasks().list_index_names().await.expect("listed").contains(&name) {
        assert!(Instant::now() < deadline, "nothing is made");
    }
    let second = prepare();
    while waiting_builds().await < 2 {
        assert!(!second.is_finished(), "an unfinished index was used as if it were ready");
        assert!(Instant::now() < deadline, "nobody waits for the index");
    }
    server.command(fail_point("off"));
    for prepared in [first, second] {
        prepared.await.expect("no panic").expect("prepared");
    }
}

/// MongoDB can't index two arrays of one document. The gateway must start nevertheless.
#[tokio::test]
async fn a_document_that_can_not_be_indexed_does_not_stop_the_gateway() {
    let db = TestDatabase::new().await;
    let two_arrays = doc! {"_id": "odd", "createdBy": ["alice"], "orgId": ["acme"]};
    db.tasks().insert_many([two_arrays, doc! {"_id": "t", "createdBy": "alice"}]).await.expect("inserted");
    let store = db.prepared_store().await;
    let dashboard = store.dashboard(&viewer("alice", "acme"), 10).await.expect("read");
    assert_eq!(dashboard.tasks.iter().map(|task| task.id.to_string()).collect::<Vec<_>>(), ["t"]);
    assert_eq!(dashboard.own_counts.total(), 1);
}

#[tokio::test]
async fn a_collection_with_the_maximum_number_of_indexes_does_not_stop_the_gateway() {
    let db = TestDatabase::new().await;
    let full: Vec<Document> =
        (0..63).map(|n| doc! {"key": {format!("field{n}"): 1}, "name": format!("own{n}")}).collect();
    let database = db.client.database(db.config.database.as_deref().expect("named"));
    database.run_command(doc! {"createIndexes": "tasks", "indexes": full}).await.expect("made");
    db.tasks().insert_one(doc! {"_id": "t", "createdBy": "alice"}).await.expect("inserted");
    let store = db.prepared_store().await;
    let page = store.list(&viewer("alice", "acme"), &TaskFilter::default(), None, 10).await.expect("read");
    assert_eq!(page.tasks.len(), 1);
}
