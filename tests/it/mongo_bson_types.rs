//! Documents with unusual types in every field that decides who sees them. Every answer of the store must agree with the domain.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{
    Binary, Bson, DateTime, Document, RawArrayBuf, RawDocumentBuf, Timestamp as ClusterTime, Uuid, cstr, doc,
    oid::ObjectId, spec::BinarySubtype,
};
use serde_json::json;
use taskcast::{
    feed::FeedItem,
    store::{Cursor, MongoStore, Store, TaskFilter, WriteError},
    task::{
        Answers, Counts, DefaultOrg, Field, OrgId, Status, Task, TaskId, TaskPatch, Timestamp, UserId, Viewer,
    },
};

use crate::mongod::{TestDatabase, TestFeed};

const HEX: &str = "65a1b2c3d4e5f60718293a4b";

fn viewer(user: &str, org: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse(org) }
}

fn hex() -> Bson {
    ObjectId::parse_str(HEX).expect("valid").into()
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().expect("a decimal"))
}

fn binary(subtype: BinarySubtype, bytes: usize) -> Bson {
    Bson::Binary(Binary { subtype, bytes: (0..bytes).map(|n| n as u8).collect() })
}

/// A separate database. With `collated`, its collection has a collation that treats ACME and acme as equal.
async fn test_database(has_collation: bool) -> TestDatabase {
    let mut db = TestDatabase::new().await;
    db.config.default_org = DefaultOrg(OrgId::parse("default"));
    if has_collation {
        let name = db.config.database.as_deref().expect("named");
        let command = doc! {"create": "tasks", "collation": {"locale": "en", "strength": 2}};
        db.client.database(name).run_command(command).await.expect("created");
    }
    db
}

/// The document with invalid UTF-8: each `\u{fffd}` is replaced by bytes that can't be in a text.
fn broken(document: &Document) -> RawDocumentBuf {
    let mut bytes = RawDocumentBuf::try_from(document).expect("encodes").into_bytes();
    while let Some(index) = bytes.windows(3).position(|window| window == "\u{fffd}".as_bytes()) {
        bytes[index..index + 3].copy_from_slice(&[0xff, b'a', b'b']);
    }
    RawDocumentBuf::from_bytes(bytes).expect("a document")
}

/// Pseudo-random numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from[usize::try_from(self.0 >> 33).expect("small") % from.len()].clone()
    }
}

fn array(items: &[&str]) -> Bson {
    Bson::Array(items.iter().map(|item| Bson::from(*item)).collect())
}

/// `None` means that the field is absent.
fn names() -> Vec<Option<Bson>> {
    let mut unusual: Vec<Option<Bson>> =
        vec![None, Some(Bson::Null), Some("".into()), Some(hex()), Some(HEX.into())];
    for text in ["acme", "ACME", "Acme", "default", "DEFAULT", "5", "\u{fffd}"] {
        unusual.push(Some(text.into()));
    }
    unusual.extend([
        Some(array(&["acme", "other"])),
        Some(array(&[])),
        Some(Bson::Array(vec![Bson::Null])),
        Some(Bson::Array(vec![array(&["acme"])])),
        Some(5.into()),
        Some(decimal("5")),
        Some(Bson::Symbol("acme".into())),
        Some(Bson::JavaScriptCode("acme".into())),
        Some(Bson::Undefined),
        Some(doc! {"acme": 1}.into()),
        Some(binary(BinarySubtype::Generic, 3)),
        Some(false.into()),
        Some(Bson::MinKey),
    ]);
    unusual
}

fn privates() -> Vec<Option<Bson>> {
    let mut unusual =
        vec![None, None, Some(Bson::Null), Some(false.into()), Some(false.into()), Some(true.into())];
    unusual.extend([
        Some(0.into()),
        Some("".into()),
        Some("false".into()),
        Some(Bson::Array(vec![false.into()])),
        Some(Bson::Array(vec![Bson::Null])),
        Some(Bson::Array(vec![])),
        Some(Bson::Undefined),
        Some(decimal("0")),
    ]);
    unusual
}

fn statuses() -> Vec<Option<Bson>> {
    let mut unusual: Vec<Option<Bson>> = vec![None, Some(Bson::Null), Some(7.into()), Some("".into())];
    for text in ["merged", "MERGED", "failed", "Failed", "coding", "needs_clarification", "\u{fffd}"] {
        unusual.push(Some(text.into()));
    }
    unusual.extend([
        Some(array(&["merged"])),
        Some(Bson::Symbol("merged".into())),
        Some(Bson::JavaScriptCode("failed".into())),
        Some(hex()),
        Some(Bson::Undefined),
    ]);
    unusual
}

fn times() -> Vec<Option<Bson>> {
    let at = 1_767_221_517_000_i64;
    let mut unusual = vec![None, Some(Bson::Null)];
    for n in 0..4 {
        unusual.push(Some(Bson::DateTime(DateTime::from_millis(at + n * 1000))));
    }
    for number in [at, at + 2000, at / 1000, at / 1000 + 1, 0, -1, -at, 99_999_999_999, 100_000_000_000] {
        unusual.push(Some(Bson::Int64(number)));
    }
    unusual.extend(
        [1_767_221_518.5, f64::NAN, f64::INFINITY, 1e18, -1e18, 1.5e12].map(|n| Some(Bson::Double(n))),
    );
    for text in [
        "2025-12-31T22:51:57.000Z",
        "2025-12-31T22:51:58Z",
        "2025-12-31 22:51:59",
        "2025-12-31T23:51:57+01:00",
        "2025-12-31",
        "2025-02-31T00:00:00Z",
        "9999-12-31T23:59:59-05:00",
        "2025-13-31",
        "yesterday",
        "",
        "0",
        "\u{fffd}",
    ] {
        unusual.push(Some(text.into()));
    }
    unusual.extend([
        Some(decimal("1767221517.25")),
        Some(decimal("NaN")),
        Some(Bson::Timestamp(ClusterTime { time: 1_767_221_518, increment: 3 })),
        Some(Bson::DateTime(DateTime::MAX)),
        Some(Bson::DateTime(DateTime::MIN)),
        Some(Bson::Array(vec![DateTime::from_millis(at).into(), "x".into()])),
        Some(Bson::Array(vec![])),
        Some(true.into()),
        Some(Bson::MaxKey),
        Some(Bson::Undefined),
        Some(Bson::Symbol("2025-12-31".into())),
        Some(doc! {"$date": 0}.into()),
    ]);
    unusual
}

/// Ids that a task may have, all with different texts, and ids that a task can't have.
fn ids(has_collation: bool) -> (Vec<Bson>, Vec<Bson>) {
    let usable_ids = vec![
        "t".into(),
        "a/b ?#%".into(),
        "x".repeat(256).into(),
        "\u{e9}".repeat(128).into(),
        "🦀".into(),
        "=65a1b2c3d4e5f60718293a4c".into(),
        hex(),
        7.into(),
        Bson::Int64(5_000_000_000),
        Bson::Double(0.5),
        Bson::Double(-8.0),
        Bson::Double(1e300),
        Bson::Double(f64::NAN),
        decimal("1.10"),
        decimal("12.00"),
        decimal("-Infinity"),
        binary(BinarySubtype::Uuid, 16),
        Bson::Binary(Uuid::from_bytes([9; 16]).into()),
        binary(BinarySubtype::Generic, 16),
        binary(BinarySubtype::Generic, 0),
        binary(BinarySubtype::Md5, 180),
        Bson::DateTime(DateTime::from_millis(1_767_221_517_699)),
        Bson::DateTime(DateTime::MAX),
        true.into(),
        false.into(),
        Bson::Timestamp(ClusterTime { time: 7, increment: 9 }),
    ];
    let mut unusual: Vec<Bson> = vec![
        "".into(),
        "line\nbreak".into(),
        "nul\0".into(),
        "\u{85}".into(),
        "y".repeat(257).into(),
        "\u{e9}".repeat(129).into(),
        "\u{fffd}".into(),
        Bson::Null,
        doc! {"a": 1}.into(),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::JavaScriptCode("f()".into()),
        binary(BinarySubtype::Generic, 181),
    ];
    if !has_collation {
        // In another collation the index of `_id` can't hold this value.
        unusual.push(Bson::Symbol("s".into()));
    }
    (usable_ids, unusual)
}

/// One document for each id, and many with ObjectIds and texts as ids. The other fields are random.
fn documents(seed: u64, has_collation: bool) -> Vec<RawDocumentBuf> {
    let mut dice = Dice(seed);
    let (usable_ids, unusual) = ids(has_collation);
    let more = (0..300).map(|n| if n % 2 == 0 { ObjectId::new().into() } else { format!("task-{n}").into() });
    let all = usable_ids.into_iter().chain(unusual).chain(more).map(|id: Bson| {
        let mut document = doc! {"_id": id, "title": "t"};
        let fields = [
            ("createdBy", dice.pick(&names())),
            ("orgId", dice.pick(&names())),
            ("isPrivate", dice.pick(&privates())),
            ("status", dice.pick(&statuses())),
            ("createdAt", dice.pick(&times())),
        ];
        for (name, value) in fields.clone() {
            document.extend(value.map(|value| (name.to_owned(), value)));
        }
        // MongoDB can't index two arrays of one document, so only one random array stays.
        let is_array = |name: &&str| document.get_array(name).is_ok();
        let mut arrays: Vec<&str> = fields.iter().map(|(name, _)| *name).filter(is_array).collect();
        if !arrays.is_empty() {
            let stays = dice.pick(&arrays);
            arrays.retain(|name| *name != stays);
        }
        for name in arrays {
            document.remove(name);
        }
        broken(&document)
    });
    all.collect()
}

fn viewers() -> Vec<Viewer> {
    let users = ["acme", "ACME", HEX, "5", "nobody"];
    let orgs = ["acme", "ACME", "default", HEX, "5", ""];
    users.iter().flat_map(|user| orgs.iter().map(|org| viewer(user, org))).collect()
}

/// The tasks as the feed delivers them. They are the domain's view of the documents.
async fn read_tasks(feed: &mut TestFeed, wanted: usize) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    while tasks.len() < wanted {
        match feed.next().await {
            FeedItem::Change(change) => tasks.extend(change.after),
            FeedItem::Idle(_) => {}
            other => panic!("{other:?}"),
        }
    }
    tasks
}

fn id_set<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> BTreeSet<String> {
    tasks.into_iter().map(|task| task.id.to_string()).collect()
}

fn millis(task: &Task) -> Option<i64> {
    let text = task.get(Field::CreatedAt).as_str()?;
    Some(Timestamp::parse(text).expect("views have RFC 3339").millis())
}

fn counts<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> Counts {
    let mut counts = Counts::default();
    for task in tasks {
        counts.add(task.status().class(), 1);
    }
    counts
}

async fn all_pages(store: &MongoStore, viewer: &Viewer, filter: &TaskFilter, limit: usize) -> Vec<Task> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.list(viewer, filter, cursor.as_ref(), limit).await.expect("a page");
        assert!(page.next.is_none() || page.tasks.len() == limit, "only the last page may be short");
        all.extend(page.tasks);
        let Some(next) = page.next else { return all };
        cursor = Some(Cursor::decode(&next.encode()).expect("round trip"));
        assert!(all.len() < 1000, "the pages don't end");
    }
}

async fn insert_all(db: &TestDatabase, documents: &[RawDocumentBuf]) {
    // The driver's own insert refuses invalid UTF-8.
    let database = db.client.database(db.config.database.as_deref().expect("named"));
    for some in documents.chunks(100) {
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("insert"), "tasks");
        let mut all = RawArrayBuf::new();
        some.iter().for_each(|document| all.push(&**document));
        command.append(cstr!("documents"), all);
        let reply = database.run_raw_command(command).await.expect("inserted");
        assert!(!reply.contains_key("writeErrors"), "{reply}");
    }
}

async fn assert_every_answer_agrees(has_collation: bool, seed: u64) {
    let db = test_database(has_collation).await;
    let store = db.prepared_store().await;
    let mut feed = db.open_feed().await;
    let documents = documents(seed, has_collation);
    insert_all(&db, &documents).await;
    let usable = documents.len() - ids(has_collation).1.len();
    let all = read_tasks(&mut feed, usable).await;
    assert_eq!(id_set(&all).len(), usable, "each has a text of its own");

    for task in &all {
        let read = store.task(&task.id).await.expect("read").task;
        assert_eq!(read.as_ref().map(|full| &full.task), Some(task));
        let access = store.access(&task.id).await.expect("read").access;
        assert_eq!(access.as_ref(), Some(&task.access), "{}", task.id);
    }
    for viewer in viewers() {
        let visible: Vec<&Task> = all.iter().filter(|task| task.access.allows(&viewer)).collect();
        let is_shared =
            |task: &&&Task| viewer.org.is_some() && task.access.public_org() == viewer.org.as_ref();
        let shared = counts(visible.iter().filter(is_shared).copied());
        let own = counts(visible.iter().filter(|task| !is_shared(task)).copied());
        let whole = all_pages(&store, &viewer, &TaskFilter::default(), 500).await;
        assert_eq!(id_set(&whole), id_set(visible.iter().copied()), "{viewer:?}");
        assert_eq!(whole.len(), visible.len());
        for limit in [1, 2, 7, 500] {
            let dashboard = store.dashboard(&viewer, limit).await.expect("read");
            assert_eq!((dashboard.org_counts, dashboard.own_counts), (shared, own), "{viewer:?}");
            assert_eq!(dashboard.tasks.len(), limit.min(visible.len()), "{viewer:?} {limit}");
            assert!(dashboard.tasks.iter().all(|task| task.access.allows(&viewer)));
        }
        for limit in [1, 3] {
            let paged = all_pages(&store, &viewer, &TaskFilter::default(), limit).await;
            assert_eq!(paged.len(), whole.len(), "{viewer:?}");
            assert_eq!(id_set(&paged), id_set(&whole), "{viewer:?}");
        }
        for status in ["merged", "Merged", "coding", HEX, "\u{fffd}ab"] {
            let filter = TaskFilter { status: Some(status.to_owned()), creator: None };
            let expected = visible.iter().filter(|task| task.status() == Status::of(status)).copied();
            let found = all_pages(&store, &viewer, &filter, 5).await;
            assert_eq!(id_set(&found), id_set(expected), "{viewer:?} {status}");
        }
        for creator in ["acme", "ACME", HEX, "5"] {
            let filter = TaskFilter { status: None, creator: UserId::parse(creator) };
            let expected = visible.iter().filter(|task| task.access.creator == filter.creator).copied();
            let found = all_pages(&store, &viewer, &filter, 5).await;
            assert_eq!(id_set(&found), id_set(expected), "{viewer:?} {creator}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_agrees_with_the_domain() {
    for seed in [1] {
        assert_every_answer_agrees(false, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_agrees_with_the_domain_in_another_collation() {
    for seed in [3] {
        assert_every_answer_agrees(true, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_permitted_writes_succeed_and_they_change_the_right_document() {
    for has_collation in [false, true] {
        let db = test_database(has_collation).await;
        let store = db.prepared_store().await;
        let mut feed = db.open_feed().await;
        // The driver can't read an answer with invalid UTF-8.
        let is_whole = |document: &RawDocumentBuf| Document::try_from(document.clone()).is_ok();
        let documents: Vec<_> = documents(11, has_collation).into_iter().filter(is_whole).collect();
        insert_all(&db, &documents).await;
        let unusual = ids(has_collation).1.iter().filter(|id| id.as_str() != Some("\u{fffd}")).count();
        let all = read_tasks(&mut feed, documents.len() - unusual).await;
        let writer = viewer("acme", "acme");
        for task in all {
            let answers = Answers::parse(json!({"answers": ["a"]})).expect("answers");
            let clarified = store.clarify(&task.id, &writer, answers).await;
            let may = task.access.allows(&writer);
            let waits = task.status() == Status::NeedsClarification;
            match &clarified {
                Ok(full) => assert!(may && waits && full.task.id.is_same_document(&task.id), "{task:?}"),
                Err(WriteError::Conflict(_)) => assert!(may && !waits, "{task:?}"),
                Err(WriteError::NotFound) => assert!(!may, "{task:?}"),
                Err(error) => panic!("{error}"),
            }
            let body = json!({"event": {"eventType": "noted"}});
            let patched = store.patch(&task.id, &writer, TaskPatch::parse(body).expect("a patch")).await;
            match patched {
                Ok(full) => {
                    assert!(task.access.writable_by(&writer) && full.task.access == task.access);
                    assert_eq!(full.timeline.len(), 1 + usize::from(clarified.is_ok()));
                }
                Err(WriteError::NotFound) => assert!(!task.access.writable_by(&writer), "{task:?}"),
                Err(error) => panic!("{error}: {task:?}"),
            }
        }
    }
}

/// With the collation, MongoDB finds the tasks of ACME when taskcast asks for acme.
#[tokio::test]
async fn a_list_does_not_show_tasks_that_only_the_collation_treats_as_equal() {
    let db = test_database(true).await;
    let store = db.prepared_store().await;
    let tasks = ["a", "b"].map(|id| doc! {"_id": id, "orgId": "ACME", "createdAt": DateTime::now()});
    db.tasks().insert_many(tasks).await.expect("inserted");
    let unusual = doc! {"_id": "c", "orgId": ["acme", "other"], "createdAt": DateTime::now()};
    db.tasks().insert_one(unusual).await.expect("inserted");
    let bob = viewer("bob", "acme");
    let page = store.list(&bob, &TaskFilter::default(), None, 1).await.expect("a page");
    assert_eq!((page.tasks, page.next), (Vec::new(), None));
    let dashboard = store.dashboard(&bob, 10).await.expect("read");
    assert_eq!((dashboard.tasks.len(), dashboard.org_counts), (0, Counts::default()));
}

/// MongoDB returns no document that the check after the read would drop. Hidden documents therefore cost no time and no
/// place in a page.
#[tokio::test]
async fn mongodb_returns_only_documents_that_the_user_may_see() {
    let in_org = |org: Bson| doc! {"createdBy": "bob", "orgId": org};
    let private = |value: Bson| doc! {"createdBy": "bob", "orgId": "acme", "isPrivate": value};
    let by = |user: Bson| doc! {"createdBy": user, "orgId": "other"};
    let symbol = |text: &str| Bson::Symbol(text.into());
    let hidden = [
        in_org("ACME".into()),
        in_org(array(&["acme", "other"])),
        in_org(symbol("acme")),
        private(Bson::Array(vec![false.into()])),
        private(Bson::Array(vec![Bson::Null])),
        private(Bson::Undefined),
        private(0.into()),
        by("ALICE".into()),
        by(array(&["alice"])),
        by(symbol("alice")),
        doc! {"createdBy": "alice", "orgId": "other", "status": "MERGED"},
        doc! {"createdBy": "alice", "orgId": "acme", "status": ["merged"]},
        doc! {"createdBy": "alice", "orgId": "acme", "status": symbol("merged")},
    ];
    let alice = viewer("alice", "acme");
    let merged = TaskFilter { status: Some("merged".to_owned()), creator: None };
    let mut given = Vec::new();
    for has_collation in [false, true] {
        let db = test_database(has_collation).await;
        let store = db.prepared_store().await;
        for document in &hidden {
            db.tasks().insert_one(document.clone()).await.expect("inserted");
            let is_own = document.contains_key("status");
            let profile_entries = db.profile(async {
                let filter = if is_own { &merged } else { &TaskFilter::default() };
                let page = store.list(&alice, filter, None, 10).await.expect("a page");
                assert_eq!((page.tasks, page.next), (Vec::new(), None), "{document}");
                if !is_own {
                    let dashboard = store.dashboard(&alice, 10).await.expect("read");
                    assert_eq!(dashboard.tasks, [], "{document}");
                }
            });
            // Only the queries for tasks have several conditions.
            let of_lists = profile_entries.await.into_iter().filter(|profile_entry| {
                let filter =
                    profile_entry.get_document("command").and_then(|command| command.get_document("filter"));
                filter.is_ok_and(|filter| filter.contains_key("$and"))
            });
            let returned: Vec<i32> =
                of_lists.map(|profile_entry| profile_entry.get_i32("nreturned").expect("a number")).collect();
            assert!(returned.len() > 2, "{returned:?}");
            if returned.iter().any(|number| *number > 0) {
                given.push(format!("{document}, collation: {has_collation}"));
            }
            db.tasks().delete_many(doc! {}).await.expect("deleted");
        }
    }
    assert!(given.is_empty(), "{given:#?}");
}

#[tokio::test]
async fn documents_that_can_not_be_tasks_take_no_place_in_a_dashboard() {
    let db = test_database(false).await;
    let store = db.prepared_store().await;
    let newest = DateTime::from_millis(1_800_000_000_000);
    let unusual =
        ids(false).1.into_iter().map(|id| broken(&doc! {"_id": id, "orgId": "acme", "createdAt": newest}));
    insert_all(&db, &unusual.collect::<Vec<_>>()).await;
    let tasks = (0..5).map(|n| {
        doc! {"_id": format!("t{n}"), "orgId": "acme", "createdBy": format!("u{n}"),
        "createdAt": DateTime::from_millis(n)}
    });
    db.tasks().insert_many(tasks).await.expect("inserted");
    for user in ["u0", "u1", "nobody"] {
        let dashboard = store.dashboard(&viewer(user, "acme"), 2).await.expect("read");
        let shown: Vec<&str> = dashboard.tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(shown, ["t4", "t3"]);
        assert_eq!(
            dashboard.org_counts.plus(dashboard.own_counts),
            Counts { active: 5, ..Counts::default() }
        );
    }
}

#[tokio::test]
async fn the_newest_are_the_newest_whatever_type_their_time_has() {
    let db = test_database(false).await;
    let store = db.prepared_store().await;
    let at = |n: i64| 1_767_221_500_000 + n * 1000;
    let time = |n: i64| match n % 7 {
        0 => Bson::DateTime(DateTime::from_millis(at(n))),
        1 => Bson::Int64(at(n)),
        2 => Bson::Int32(i32::try_from(at(n) / 1000).expect("small")),
        3 => Bson::Double(at(n) as f64 / 1000.0),
        4 => Timestamp::from_millis(at(n)).expect("a time").to_string().into(),
        // No double is equal to this number.
        5 => decimal(&format!("{}.1", at(n) / 1000)),
        _ => Bson::Timestamp(ClusterTime { time: u32::try_from(at(n) / 1000).expect("small"), increment: 1 }),
    };
    let mut tasks: Vec<Document> = (0..60)
        .map(|n| {
            doc! {"_id": ObjectId::new(), "orgId": "acme", "title": n.to_string(), "createdAt": time(n),
            "createdBy": if n % 2 == 0 { "alice" } else { "bob" }, "isPrivate": n % 5 == 0}
        })
        .collect();
    tasks.push(doc! {"_id": "none", "orgId": "acme", "title": "none"});
    tasks.push(doc! {"_id": "odd", "orgId": "acme", "title": "odd", "createdAt": "soon"});
    db.tasks().insert_many(&tasks).await.expect("inserted");
    for user in ["alice", "bob", "carol"] {
        let viewer = viewer(user, "acme");
        let sees = |n: i64| n % 5 != 0 || user == if n % 2 == 0 { "alice" } else { "bob" };
        let mut expected: Vec<String> = (0..60).rev().filter(|n| sees(*n)).map(|n| n.to_string()).collect();
        expected.extend(["none".to_owned(), "odd".to_owned()]);
        let title = |task: &Task| task.get(Field::Title).as_str().expect("a title").to_owned();
        for limit in [1, 7, 500] {
            let paged = all_pages(&store, &viewer, &TaskFilter::default(), limit).await;
            assert_eq!(paged.iter().map(title).collect::<Vec<_>>(), expected, "{user} {limit}");
            assert!(paged[..50.min(paged.len() - 2)].iter().map(millis).is_sorted_by(|a, b| a >= b));
            let dashboard = store.dashboard(&viewer, limit).await.expect("read").tasks.clone();
            let shown: Vec<String> = dashboard.iter().map(title).collect();
            assert_eq!(shown, expected[..limit.min(expected.len())], "{user} {limit}");
        }
    }
}

/// When two ids have the same text, a number is chosen before a text, and a text before an ObjectId.
#[tokio::test]
async fn one_document_is_chosen_when_two_ids_have_the_same_text() {
    let db = test_database(false).await;
    let store = db.prepared_store().await;
    let mut feed = db.open_feed().await;
    let pairs: [(Bson, Bson, &str); 3] = [
        (42.into(), "42".into(), "42"),
        (HEX.into(), hex(), HEX),
        (
            binary(BinarySubtype::UuidOld, 16),
            binary(BinarySubtype::Uuid, 16),
            "00010203-0405-0607-0809-0a0b0c0d0e0f",
        ),
    ];
    for (first, second, text) in &pairs {
        let id = TaskId::parse(text).expect("an id");
        let task = |id: &Bson, user: &str| doc! {"_id": id.clone(), "createdBy": user, "title": user};
        db.tasks().insert_many([task(second, "bob"), task(first, "alice")]).await.expect("inserted");
        let changes = read_tasks(&mut feed, 2).await;
        assert!(!changes[0].id.is_same_document(&changes[1].id) && changes[0].id == changes[1].id);
        let before = store.ambiguous_ids();
        let access = store.access(&id).await.expect("read");
        assert!(access.access.is_some_and(|access| access.allows(&viewer("alice", ""))));
        assert!(access.id.is_same_document(&changes[1].id) && !access.id.is_same_document(&changes[0].id));
        assert!(store.ambiguous_ids() > before, "it is counted");
        let full = store.task(&id).await.expect("read").task.expect("there");
        assert_eq!(full.task.get(Field::Title), "alice");
        let patch = || TaskPatch::parse(json!({"title": "changed"})).expect("a patch");
        let before = store.ambiguous_ids();
        let patched = store.patch(&id, &viewer("alice", "x"), patch()).await.expect("patched");
        assert!(patched.task.id.is_same_document(&access.id));
        assert!(store.ambiguous_ids() > before, "a write is counted, too");
        let refused = store.patch(&id, &viewer("bob", "x"), patch()).await;
        assert!(matches!(refused, Err(WriteError::NotFound)));
        let other = db.tasks().find_one(doc! {"_id": second.clone()}).await.expect("read").expect("there");
        assert_eq!(other.get_str("title").ok(), Some("bob"));
        let _ = read_tasks(&mut feed, 1).await;
    }
}

/// Filters and readers of the document must agree on a field name that the document contains twice.
#[tokio::test]
async fn the_first_of_two_fields_with_the_same_name_counts() {
    let db = test_database(false).await;
    let store = db.prepared_store().await;
    let mut feed = db.open_feed().await;
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), "t");
    document.append(cstr!("orgId"), "acme");
    document.append(cstr!("orgId"), "globex");
    document.append(cstr!("title"), "t");
    insert_all(&db, &[document]).await;
    let told = read_tasks(&mut feed, 1).await;
    for org in ["acme", "globex"] {
        let viewer = viewer("bob", org);
        let visible = store.dashboard(&viewer, 10).await.expect("read");
        let access = store.access(&told[0].id).await.expect("read").access.expect("there");
        assert_eq!(
            (visible.tasks.len(), visible.org_counts.active),
            if org == "acme" { (1, 1) } else { (0, 0) }
        );
        assert_eq!(access.allows(&viewer), org == "acme");
        assert_eq!(told[0].access, access);
    }
}

/// The users are in one organisation and request their dashboards at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_with_many_tasks_of_their_own_are_read_at_once() {
    let db = test_database(false).await;
    let store = db.prepared_store().await;
    let mut tasks = Vec::new();
    for user in 0..4 {
        tasks.extend((0..400_i64).map(|n| {
            doc! {"_id": format!("{user}-{n}"), "createdBy": format!("u{user}"), "orgId": "acme",
            "isPrivate": true, "status": if n % 2 == 0 { "merged" } else { "coding" }, "createdAt": DateTime::from_millis(n)}
        }));
    }
    db.tasks().insert_many(tasks).await.expect("inserted");
    let users: Vec<UserId> = (0..5).map(|n| viewer(&format!("u{n}"), "acme").user).collect();
    let read = store.dashboards(viewer("u0", "acme").org.as_ref(), &users, 3).await.expect("read");
    for (n, user) in users.iter().enumerate() {
        let dashboard = &read[user];
        let half = if n < 4 { 200 } else { 0 };
        assert_eq!(dashboard.own_counts, Counts { active: half, completed: half, failed: 0 });
        let shown: Vec<&str> = dashboard.tasks.iter().map(|task| task.id.as_str()).collect();
        let expected: BTreeMap<usize, Vec<String>> =
            (0..4).map(|n| (n, (397..400).rev().map(|k| format!("{n}-{k}")).collect())).collect();
        assert_eq!(shown, expected.get(&n).cloned().unwrap_or_default());
    }
}
