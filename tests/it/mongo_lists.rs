//! Lists and dashboards over documents that a backend may have written.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{TryStreamExt, future::join_all};
use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use taskcast::{
    store::{BatchedReads, Cursor, MongoStore, Store, TaskFilter},
    task::{Counts, DefaultOrg, OrgId, Task, UserId, Viewer},
};

use crate::mongod::{TestDatabase, TestFeed};

fn viewer(user: &str, org: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse(org) }
}

fn ids(tasks: &[Task]) -> Vec<String> {
    tasks.iter().map(|task| task.id.to_string()).collect()
}

async fn pages(store: &MongoStore, viewer: &Viewer, limit: usize) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let filter = TaskFilter::default();
        let page = store.list(viewer, &filter, cursor.as_ref(), limit).await.expect("a page");
        assert!(page.tasks.len() <= limit);
        all.extend(ids(&page.tasks));
        let Some(next) = page.next else { return all };
        cursor = Some(Cursor::decode(&next.encode()).expect("round trip"));
        assert!(all.len() < 1000, "the pages don't end");
    }
}

/// Documents with all kinds of times, many ids of both types, and values that Mongoose never writes.
fn mixed() -> Vec<Document> {
    let times = [
        Bson::DateTime(DateTime::from_millis(2_000)),
        Bson::DateTime(DateTime::from_millis(1_000)),
        Bson::DateTime(DateTime::from_millis(-1_000)),
        "2026-01-01T00:00:00Z".into(),
        Bson::Int64(1_500),
        Bson::Null,
        Bson::Array(vec![Bson::DateTime(DateTime::from_millis(1_500)), "x".into()]),
    ];
    let mut tasks = Vec::new();
    for (n, time) in times.into_iter().enumerate() {
        for k in 0..3 {
            let hex = ObjectId::new().to_hex();
            let task_ids: [Bson; 4] = [
                ObjectId::new().into(),
                format!("{n}-{k}").into(),
                hex.clone().into(),
                format!("={hex}").into(),
            ];
            tasks
                .extend(task_ids.map(|id| doc! {"_id": id, "createdBy": "alice", "createdAt": time.clone()}));
        }
    }
    tasks.push(doc! {"_id": "no time", "createdBy": "alice"});
    tasks
}

#[tokio::test]
async fn pages_of_mixed_types_neither_skip_nor_repeat() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let tasks = mixed();
    let expected: BTreeSet<String> = tasks
        .iter()
        .map(|task| match task.get("_id") {
            Some(Bson::ObjectId(id)) => id.to_hex(),
            id => id.and_then(Bson::as_str).expect("text").to_owned(),
        })
        .collect();
    db.tasks().insert_many(&tasks).await.expect("inserted");
    let alice = viewer("alice", "");
    let whole = pages(&store, &alice, 500).await;
    assert_eq!((whole.len(), whole.iter().cloned().collect::<BTreeSet<_>>()), (tasks.len(), expected));
    for limit in [1, 2, 3, 7, tasks.len() - 1, tasks.len()] {
        assert_eq!(pages(&store, &alice, limit).await, whole, "limit {limit}");
    }
}

#[tokio::test]
async fn documents_that_can_not_be_tasks_are_left_out() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let invalid_ids: [Bson; 4] = [Bson::MinKey, Bson::Null, doc! {"a": 1}.into(), "".into()];
    let tasks = invalid_ids.map(|id| doc! {"_id": id, "createdBy": "alice", "createdAt": DateTime::now()});
    db.tasks().insert_many(tasks).await.expect("inserted");
    db.tasks().insert_one(doc! {"_id": "t", "createdBy": "alice"}).await.expect("inserted");
    let alice = viewer("alice", "acme");
    for limit in [1, 2, 10] {
        assert_eq!(pages(&store, &alice, limit).await, ["t"]);
    }
    let dashboard = store.dashboard(&alice, 10).await.expect("read");
    assert_eq!(ids(&dashboard.tasks), ["t"]);
}

/// The database filters must agree with `Access::allows` for all types of values.
#[tokio::test]
async fn the_database_and_the_domain_agree_on_who_sees_what() {
    let mut db = TestDatabase::new().await;
    db.config.default_org = DefaultOrg(OrgId::parse("acme"));
    let store = db.prepared_store().await;
    let (user, org) = (ObjectId::new(), ObjectId::new());
    let mut tasks = Vec::new();
    for creator in [Some(Bson::from(user)), Some(user.to_hex().into()), Some("bob".into()), None] {
        for named in
            [None, Some(Bson::Null), Some("".into()), Some("acme".into()), Some(org.into()), Some("x".into())]
        {
            for private in [None, Some(Bson::Null), Some(false.into()), Some(true.into()), Some(0.into())] {
                let mut task =
                    doc! {"_id": ObjectId::new(), "status": "coding", "createdAt": DateTime::now()};
                let fields = [("createdBy", &creator), ("orgId", &named), ("isPrivate", &private)];
                for (name, value) in fields {
                    task.extend(value.iter().map(|value| (name.to_owned(), value.clone())));
                }
                tasks.push(task);
            }
        }
    }
    db.tasks().insert_many(&tasks).await.expect("inserted");
    let mut all = Vec::new();
    for task in &tasks {
        let id = task.get_object_id("_id").expect("an id").to_hex();
        let id = taskcast::task::TaskId::parse(&id).expect("an id");
        all.push(store.task(&id).await.expect("read").task.expect("there").task);
    }
    let (user, org) = (user.to_hex(), org.to_hex());
    for viewer in [
        viewer(&user, "acme"),
        viewer(&user, &org),
        viewer(&user, ""),
        viewer("bob", "x"),
        viewer("carol", "acme"),
        viewer("carol", &org),
        viewer("carol", ""),
    ] {
        let visible: BTreeSet<String> =
            all.iter().filter(|task| task.access.allows(&viewer)).map(|task| task.id.to_string()).collect();
        let shared = all.iter().filter(|task| {
            let org = task.access.public_org();
            org.is_some() && org == viewer.org.as_ref()
        });
        let shared = shared.count() as u64;
        let dashboard = store.dashboard(&viewer, 1000).await.expect("read");
        assert_eq!(ids(&dashboard.tasks).into_iter().collect::<BTreeSet<_>>(), visible, "{viewer:?}");
        assert_eq!(dashboard.org_counts, Counts { active: shared, ..Counts::default() }, "{viewer:?}");
        let own = visible.len() as u64 - shared;
        assert_eq!(dashboard.own_counts, Counts { active: own, ..Counts::default() }, "{viewer:?}");
        assert_eq!(pages(&store, &viewer, 1000).await.into_iter().collect::<BTreeSet<_>>(), visible);
    }
}

/// The dashboard does not fit into one batch of MongoDB.
#[tokio::test]
async fn a_long_dashboard_is_complete() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    let description = "x".repeat(60_000);
    let tasks = (0..400).map(|n| {
        doc! {"_id": format!("{n:03}"), "createdBy": "alice", "createdAt": DateTime::now(),
        "title": &description, "events": [{"payload": &description}]}
    });
    db.tasks().insert_many(tasks).await.expect("inserted");
    let dashboard = store.dashboard(&viewer("alice", ""), 399).await.expect("read");
    assert_eq!(dashboard.tasks.len(), 399);
    assert_eq!(dashboard.own_counts.active, 400);
}

/// The store reads the tasks of the organisation and the user's own tasks separately. The merged list has MongoDB's order.
#[tokio::test]
async fn a_dashboard_that_is_merged_from_two_reads_has_the_order_of_one_read() {
    for is_mixed in [false, true] {
        let db = TestDatabase::new().await;
        let store = db.prepared_store().await;
        let mut tasks = mixed();
        // An array has one index entry for each of its items, so it has several positions.
        tasks.retain(|task| {
            if is_mixed {
                task.get_array("createdAt").is_err()
            } else {
                task.get_datetime("createdAt").is_ok()
            }
        });
        for (n, task) in tasks.iter_mut().enumerate() {
            task.insert("orgId", "acme");
            task.insert("isPrivate", n % 3 == 0);
            task.insert("createdBy", if n % 2 == 0 { "alice" } else { "bob" });
        }
        db.tasks().insert_many(&tasks).await.expect("inserted");
        for (user, limit) in [("alice", 1), ("alice", 7), ("alice", 1000), ("bob", 20), ("carol", 20)] {
            let visible = doc! {"$or": [{"isPrivate": false}, {"createdBy": user}]};
            let newest = doc! {"createdAt": -1, "_id": -1};
            let found = db.tasks().find(visible).sort(newest).limit(limit).await.expect("found");
            let expected: Vec<Document> = found.try_collect().await.expect("read");
            let mut expected: Vec<String> = expected.iter().map(|task| shown(&task["_id"])).collect();
            if is_mixed {
                // MongoDB sorts by type first, so the pages give the expected order here.
                expected = pages(&store, &viewer(user, "acme"), 500).await;
                expected.truncate(limit as usize);
            }
            let dashboard = store.dashboard(&viewer(user, "acme"), limit as usize).await.expect("read");
            assert_eq!(ids(&dashboard.tasks), expected, "{user}, {limit}, mixed: {is_mixed}");
        }
    }
}

fn shown(id: &Bson) -> String {
    match id {
        Bson::ObjectId(id) => id.to_hex(),
        id => id.as_str().expect("a text").to_owned(),
    }
}

/// After a restart, all clients reconnect at the same time.
#[tokio::test]
async fn dashboards_that_many_users_request_at_once_are_read_together() {
    let db = TestDatabase::new().await;
    let store = Arc::new(db.prepared_store().await);
    let _following = TestFeed::open(store.clone()).await.discard_items();
    let tasks = (0..50).map(|n| {
        doc! {"_id": format!("{n:02}"), "createdBy": "boss", "orgId": "acme", "createdAt": DateTime::from_millis(n), "status": "coding"}
    });
    db.tasks().insert_many(tasks).await.expect("inserted");
    let database = db.client.database(&db.tasks().namespace().db);
    database.run_command(doc! {"profile": 2}).await.expect("profiling");
    let viewers: Vec<Viewer> = (0..40).map(|n| viewer(&format!("user-{n}"), "acme")).collect();
    let reads: BatchedReads = BatchedReads::new(store);
    let read = join_all(viewers.iter().map(|viewer| reads.dashboard(viewer, 20))).await;
    let dashboards: Vec<_> = read.into_iter().map(|read| read.map(|read| read.answer)).collect();
    database.run_command(doc! {"profile": 0}).await.expect("profiling");
    let first = dashboards[0].as_ref().expect("read");
    assert_eq!((first.tasks.len(), first.org_counts.active), (20, 50));
    assert!(
        dashboards.iter().all(|one| one.as_ref().is_ok_and(|one| one.tasks == first.tasks)),
        "all see the same"
    );
    let filter = doc! {"ns": db.tasks().namespace().to_string(), "op": {"$in": ["query", "command"]}};
    let reads =
        database.collection::<Document>("system.profile").count_documents(filter).await.expect("counted");
    assert!((3..=18).contains(&reads), "{reads} reads for {} viewers", viewers.len());
}

/// As doubles, all these numbers are equal. The user sees each task as creator and as a member of the organisation.
#[tokio::test]
async fn pages_with_long_numbers_as_ids_neither_skip_nor_repeat_tasks() {
    let db = TestDatabase::new().await;
    let store = db.prepared_store().await;
    const FIRST: i64 = 1_234_567_890_123_456_800;
    let long = (0..9).map(|n| {
        let id = match n % 3 {
            0 => Bson::Decimal128((FIRST + n).to_string().parse().expect("a decimal")),
            _ => Bson::Int64(FIRST + n),
        };
        doc! {"_id": id, "createdBy": "alice", "orgId": "acme"}
    });
    db.tasks().insert_many(long).await.expect("inserted");
    let alice = viewer("alice", "acme");
    let expected: Vec<String> = (0..9).rev().map(|n| (FIRST + n).to_string()).collect();
    for limit in [1, 2, 4, 10] {
        assert_eq!(pages(&store, &alice, limit).await, expected, "limit {limit}");
    }
}
