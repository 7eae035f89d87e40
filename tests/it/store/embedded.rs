//! Runs the conformance tests against the embedded store, and tests what can happen only to its file.

mod crash;
mod damage;
mod migration;

use std::path::Path;

use serde_json::json;
use taskcast::{
    store::{Delivered, EmbeddedConfig, EmbeddedStore, Store, StoreError, WriteError},
    task::Window,
};

use super::*;

struct Embedded;

impl Backend for Embedded {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    async fn fresh(&self, default_org: DefaultOrg) -> Prepared {
        let folder = tempfile::tempdir().expect("a folder");
        let config = EmbeddedConfig { data_dir: folder.path().to_owned(), default_org };
        let store = EmbeddedStore::open(config).expect("opened");
        store.prepare().await.expect("prepared");
        Prepared { store: Arc::new(store), keep: Box::new(folder) }
    }
}

super::conformance!(Embedded);

fn open(folder: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(EmbeddedConfig { data_dir: folder.to_owned(), default_org: no_org() })
}

fn open_shared(folder: &Path) -> Arc<dyn Store> {
    Arc::new(open(folder).expect("opened"))
}

/// The text of an error that a person must act upon.
fn unusable(result: Result<EmbeddedStore, StoreError>) -> String {
    match result {
        Err(StoreError::Unusable(text)) => text,
        other => panic!("unusable was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn tasks_log_and_positions_survive_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let alice = viewer("alice", "acme");
    let store = open_shared(folder.path());
    let id = create(&*store, &alice, "t").await.task.id;
    let event = json!({"title": "u", "event": {"eventType": "x"}});
    let patched = store.patch(&id, &alice, patch(event)).await.expect("patched");
    let position = store.task(&id).await.expect("read").position;
    let told = Following::start(&store).await.changes(2).await;
    drop(store);

    let store = reopened(folder.path()).await;
    let snapshot = store.task(&id).await.expect("read");
    assert_eq!((snapshot.task, snapshot.position), (Some(patched), position));
    let mut feed = Following::start(&store).await;
    assert_eq!(feed.changes(2).await, told);
    create(&*store, &alice, "after").await;
    assert!(feed.changes(1).await[0].position > position);
}

/// Opens the store again. A follower that was just dropped may hold the store until its read ends.
async fn reopened(folder: &Path) -> Arc<dyn Store> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match open(folder) {
            Ok(store) => return Arc::new(store),
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_positions_of_a_new_store_are_later_than_those_of_a_lost_one() {
    let lost = tempfile::tempdir().expect("a folder");
    let store = open_shared(lost.path());
    let alice = viewer("alice", "acme");
    let id = create(&*store, &alice, "t").await.task.id;
    let old = store.task(&id).await.expect("read").position;
    let second = (old.time >> 32) + 1;
    // A store's first position contains the second of its creation, so the test waits for the next second.
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() < second {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let anew = tempfile::tempdir().expect("a folder");
    let new = open_shared(anew.path()).task(&id).await.expect("read").position;
    assert!(new > old, "{new:?} > {old:?}");
}

#[tokio::test]
async fn the_feed_of_an_empty_log_begins_at_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_shared(folder.path());
    let feed = Following::start(&store).await;
    assert_eq!(feed.opened, store.task(&task_id("x")).await.expect("read").position);
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = open(folder.path()).expect("opened");
    let refusal = unusable(open(folder.path()));
    assert!(refusal.contains("in use by another process"), "{refusal}");
    drop(first);
    open(folder.path()).expect("free again");
}

#[test]
fn an_unfinished_new_file_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("tasks.new"), b"half").expect("written");
    open(folder.path()).expect("opened");
    assert!(!folder.path().join("tasks.new").exists());
}

#[cfg(unix)]
#[test]
fn a_new_folder_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("deep/data");
    open(&folder).expect("opened");
    let mode = std::fs::metadata(&folder).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_folder_that_can_not_be_created_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let refusal = unusable(open(&file.path().join("data")));
    assert!(refusal.contains("DATA_DIR"), "{refusal}");
}

/// A write that its caller drops is either not made or made as a whole.
#[tokio::test]
async fn a_write_that_its_caller_drops_does_not_affect_other_writes() {
    use futures_util::FutureExt;
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_shared(folder.path());
    let alice = viewer("alice", "acme");
    for n in 0..20 {
        let abandoned = format!("abandoned {n}");
        let _ = create(&*store, &alice, &abandoned).now_or_never();
        let kept = create(&*store, &alice, "kept").await;
        assert!(store.task(&kept.task.id).await.expect("read").task.is_some());
    }
    let mut feed = Following::start(&store).await;
    let logged = feed.changes(20).await.len();
    let dashboard = store.dashboard(&alice, 100).await.expect("read");
    assert_eq!(titles(&dashboard.tasks).iter().filter(|title| *title == "kept").count(), 20);
    assert!(logged <= dashboard.tasks.len());
}

/// The log keeps its newest 10,000 changes. A follower that is further behind receives a gap.
#[tokio::test]
async fn the_log_is_bounded_and_a_slow_follower_receives_a_gap() {
    const WRITES: usize = 10_600;
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_shared(folder.path());
    let mut behind = Following::start(&store).await;
    let first = behind.opened;
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..WRITES {
        let store = store.clone();
        writes.spawn(async move { create(&*store, &viewer("alice", "acme"), &n.to_string()).await });
    }
    writes.join_all().await;

    let end = first.time + WRITES as u64;
    let mut anew = Following::start(&store).await;
    assert_eq!(anew.opened, Position::end_of(end - 10_000));
    let held = anew.changes(10_000).await;
    assert_eq!(held.last().map(|change| change.position.time), Some(end));

    let mut last = first.time;
    let mut gaps = 0;
    while last < end {
        match next(&mut behind.items).await {
            FeedItem::Change(change) => {
                assert_eq!(change.position.time, last + 1);
                last += 1;
            }
            FeedItem::Gap(_) => {
                gaps += 1;
                let FeedItem::Opened(opened) = next(&mut behind.items).await else { panic!("not opened") };
                assert!(opened.time > last, "nothing was cut, yet there is a gap");
                last = opened.time;
            }
            FeedItem::Idle(seen) => {
                assert_eq!(seen, Position::end_of(last), "idle before everything was told")
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(gaps, 1);
}

/// The timeline and a field of this task are damaged, so that reading them fails. A user who may not see the task gets
/// `NotFound`, not a read error.
#[tokio::test]
async fn only_the_access_of_a_forbidden_task_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (alice, bob) = (viewer("alice", "acme"), viewer("bob", "globex"));
    let store = open_shared(folder.path());
    let id = create_private(&*store, &alice, "t").await.task.id;
    drop(store);
    {
        let file = redb::Database::open(folder.path().join("tasks.redb")).expect("opened");
        let txn = file.begin_write().expect("begun");
        {
            let tasks = redb::TableDefinition::<&str, &[u8]>::new("tasks");
            let timeline = redb::TableDefinition::<(&str, u64), &[u8]>::new("timeline");
            // The fields that decide access are valid, but no task can have this `_id`.
            let document = json!({"_id": 7, "createdBy": "alice", "orgId": "acme", "isPrivate": true});
            let bytes = document.to_string().into_bytes();
            txn.open_table(tasks).expect("there").insert(id.as_str(), &*bytes).expect("written");
            let mut entries = txn.open_table(timeline).expect("there");
            entries.insert((id.as_str(), 0), &b"not JSON"[..]).expect("written");
        }
        txn.commit().expect("committed");
    }
    let store = open_shared(folder.path());
    let seen = store.access(&id).await.expect("read").access.expect("there");
    assert!(seen.allows(&alice) && !seen.allows(&bob));
    let answers = || taskcast::task::Answers::parse(json!({"answers": ["a"]})).expect("answers");
    assert!(matches!(store.clarify(&id, &bob, answers()).await, Err(WriteError::NotFound)));
    let refused = store.patch(&id, &bob, patch(json!({"title": "u"}))).await;
    assert!(matches!(refused, Err(WriteError::NotFound)), "{refused:?}");
    // A user who may see the task gets the read error.
    assert!(store.task(&id).await.is_err());
    assert!(matches!(store.clarify(&id, &alice, answers()).await, Err(WriteError::Store(_))));
}

/// The first entry is damaged, so that reading it fails. The store must not read it unless it is requested.
#[tokio::test]
async fn only_the_requested_entries_of_a_long_timeline_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let alice = viewer("alice", "acme");
    let store = open_shared(folder.path());
    let whole = super::timelines::long(&*store, &alice).await;
    let id = whole.task.id;
    let fields = json!({"repo": "Acme/web.site", "issueNumber": 42, "status": "coding"});
    store.patch(&id, &alice, patch(fields)).await.expect("patched");
    drop(store);
    {
        let file = redb::Database::open(folder.path().join("tasks.redb")).expect("opened");
        let txn = file.begin_write().expect("begun");
        {
            let timeline = redb::TableDefinition::<(&str, u64), &[u8]>::new("timeline");
            let mut entries = txn.open_table(timeline).expect("there");
            entries.insert((id.as_str(), 0), &b"not JSON"[..]).expect("written");
        }
        txn.commit().expect("committed");
    }
    let store = open_shared(folder.path());
    let length = whole.timeline.len();
    for (window, range) in [(Window::newest(length - 1), 1..length), (Window { before: 4, limit: 3 }, 1..4)] {
        let part = store.task_part(&id, window).await.expect("read").task.expect("there");
        assert_eq!(part.timeline, whole.timeline[range]);
    }
    assert!(store.task(&id).await.is_err(), "all entries were requested");
    // A delivery changes the task without reading its earlier entries.
    let opened = deliveries::delivery("d", "pull_request", &deliveries::pr("opened", 1, "open"));
    assert_eq!(store.deliver(opened).await.expect("delivered"), Delivered::Written(id.clone()));
    let part = store.task_part(&id, Window::newest(1)).await.expect("read").task.expect("there");
    assert_eq!((part.older, part.timeline.len()), (length, 1));
}
