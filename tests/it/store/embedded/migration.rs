//! Tests that a file of an earlier release can be used, and that a file of a later release is refused.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle};
use taskcast::{
    store::{Delivered, TaskFilter},
    task::Counts,
};

use super::{super::deliveries, *};

const TASKS: TableDefinition<&str, &[u8]> = TableDefinition::new("tasks");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// A file of the last release that had no index. It has 60 tasks of three organisations with several statuses, and three
/// documents that were written by hand. `by-hand` has no date and an unknown status; `unreadable-id` and `not-json` are not tasks.
fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/store/embedded/fixtures/without-index.redb")
}

fn folder_with_fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(fixture(), folder.path().join("tasks.redb")).expect("copied");
    folder
}

fn open_with(folder: &Path, default_org: &str) -> Arc<dyn Store> {
    let default_org = DefaultOrg(OrgId::parse(default_org));
    let config = EmbeddedConfig { data_dir: folder.to_owned(), default_org };
    Arc::new(EmbeddedStore::open(config).expect("opened"))
}

/// All tasks of a list, read page by page.
async fn all(store: &dyn Store, viewer: &Viewer, filter: &TaskFilter) -> Vec<Task> {
    let (mut tasks, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.list(viewer, filter, cursor.as_ref(), 7).await.expect("read");
        tasks.extend(page.tasks);
        cursor = page.next;
        if cursor.is_none() {
            return tasks;
        }
    }
}

/// The documents of a file that are tasks.
fn stored(folder: &Path, default_org: &str) -> Vec<Task> {
    let default_org = DefaultOrg(OrgId::parse(default_org));
    let file = redb::Database::open(folder.join("tasks.redb")).expect("opened");
    let table = file.begin_read().expect("begun").open_table(TASKS).expect("there");
    let documents = table.range::<&str>(..).expect("read").filter_map(|item| {
        let (_, document) = item.expect("read");
        serde_json::from_slice::<serde_json::Map<String, Value>>(document.value()).ok()
    });
    documents.filter_map(|document| Task::from_document(document, &default_org).ok()).collect()
}

fn counts(tasks: &[Task], viewer: &Viewer) -> (Counts, Counts) {
    let (mut org, mut own) = (Counts::default(), Counts::default());
    for task in tasks.iter().filter(|task| task.access.allows(viewer)) {
        let is_of_org = viewer.org.is_some() && task.access.public_org() == viewer.org.as_ref();
        if is_of_org { &mut org } else { &mut own }.add(task.status().class(), 1);
    }
    (org, own)
}

#[tokio::test]
async fn a_file_without_an_index_shows_the_same_tasks() {
    // A setting decides which organisation owns the tasks without one. It may change with each start.
    let folder = folder_with_fixture();
    for default_org in ["", "acme", "globex", ""] {
        let expected = stored(folder.path(), default_org);
        assert_eq!(expected.len(), 61);
        let store = open_with(folder.path(), default_org);
        for viewer in
            [viewer("alice", "acme"), viewer("bob", "globex"), viewer("alice", ""), viewer("x", "acme")]
        {
            let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id.clone()).collect::<BTreeSet<_>>();
            let seen: Vec<_> = expected.iter().filter(|task| task.access.allows(&viewer)).cloned().collect();
            let dashboard = store.dashboard(&viewer, 1000).await.expect("read");
            assert_eq!(ids(&dashboard.tasks), ids(&seen), "{viewer:?} {default_org}");
            assert_eq!(
                (dashboard.org_counts, dashboard.own_counts),
                counts(&expected, &viewer),
                "{viewer:?} {default_org}"
            );
            for status in ["received", "merged", "paused", "analyzing"] {
                let filter = TaskFilter { status: Some(status.to_owned()), creator: UserId::parse("alice") };
                let wanted: Vec<_> = seen.iter().filter(|task| filter.matches(task)).cloned().collect();
                let listed = all(&*store, &viewer, &filter).await;
                assert_eq!((ids(&listed), listed.len()), (ids(&wanted), wanted.len()), "{viewer:?} {status}");
            }
        }
        drop(store);
        drop(reopened(folder.path()).await);
    }
}

#[tokio::test]
async fn a_file_without_an_index_keeps_its_log_and_accepts_writes() {
    let folder = folder_with_fixture();
    let alice = viewer("alice", "acme");
    let store = open_shared(folder.path());
    let mut feed = Following::start(&store).await;
    let told = feed.changes(126).await;
    let position = store.dashboard(&alice, 1).await.expect("read").position;
    assert_eq!(told.last().map(|change| change.position.time), Some(position.time));
    let paused = TaskFilter { status: Some("paused".to_owned()), creator: None };
    assert_eq!(titles(&all(&*store, &alice, &paused).await), ["Without a date"]);
    let patched = store.patch(&task_id("by-hand"), &alice, patch(json!({"status": "failed"}))).await;
    patched.expect("patched");
    assert!(all(&*store, &alice, &paused).await.is_empty());
    let opened = deliveries::delivery(
        "d",
        "issues",
        &json!({
            "action": "opened", "repository": {"full_name": "acme/web.site"}, "issue": {"number": 15},
        }),
    );
    assert!(matches!(store.deliver(opened).await, Ok(Delivered::Written(_))));
    for id in ["not-json", "unreadable-id"] {
        assert!(store.task(&task_id(id)).await.is_err(), "{id} is kept");
    }
}

/// The fixture has no facts from GitHub's deliveries, but other files without an index can have them.
#[tokio::test]
async fn facts_from_deliveries_are_kept_when_the_file_is_indexed() {
    let folder = folder_with_fixture();
    let is_fact = |name: &String| name.starts_with("githubFact");
    assert_eq!(tables(folder.path()).iter().filter(|name| is_fact(name)).count(), 0);
    let renamed = json!({
        "action": "renamed", "repository": {"id": 1, "full_name": "acme/page"},
        "changes": {"repository": {"name": {"from": "web.site"}}},
    });
    let issue = json!({
        "action": "edited", "repository": {"id": 1, "full_name": "acme/page"}, "issue": {"number": 15},
    });
    let store = open_shared(folder.path());
    let learnt = store.deliver(deliveries::delivery("a", "repository", &renamed)).await;
    assert_eq!(learnt.expect("delivered"), Delivered::NoTask);
    let written = store.deliver(deliveries::delivery("b", "issues", &issue)).await.expect("delivered");
    assert!(matches!(written, Delivered::Written(_)), "{written:?}");
    drop(store);
    forget_index(folder.path());
    assert_eq!(tables(folder.path()).iter().filter(|name| is_fact(name)).count(), 2);
    let store = open_shared(folder.path());
    let again = store.deliver(deliveries::delivery("c", "issues", &issue)).await;
    assert_eq!(again.expect("delivered"), written);
}

fn tables(folder: &Path) -> Vec<String> {
    let file = redb::Database::open(folder.join("tasks.redb")).expect("opened");
    let txn = file.begin_read().expect("begun");
    txn.list_tables().expect("read").map(|table| table.name().to_owned()).collect()
}

/// Turns the file into a file of a release that has no index.
fn forget_index(folder: &Path) {
    let file = redb::Database::open(folder.join("tasks.redb")).expect("opened");
    let txn = file.begin_write().expect("begun");
    let tables: Vec<_> = txn.list_tables().expect("read").collect();
    for table in tables.into_iter().filter(|table| ["lists", "counts", "finds"].contains(&table.name())) {
        assert!(txn.delete_table(table).expect("deleted"));
    }
    {
        let mut meta = txn.open_table(META).expect("there");
        meta.remove("format").expect("removed");
        meta.remove("indexedSequence").expect("removed");
    }
    txn.commit().expect("committed");
}

/// An earlier release does not know the index and does not update it.
#[tokio::test]
async fn tasks_that_an_earlier_release_writes_after_a_downgrade_are_listed() {
    let folder = folder_with_fixture();
    let alice = viewer("alice", "acme");
    drop(open(folder.path()).expect("opened"));
    {
        let file = redb::Database::open(folder.path().join("tasks.redb")).expect("opened");
        let txn = file.begin_write().expect("begun");
        {
            let document = json!({"_id": "later", "title": "later", "status": "waiting", "createdBy": "alice", "orgId": "acme"});
            let mut tasks = txn.open_table(TASKS).expect("there");
            tasks.insert("later", document.to_string().as_bytes()).expect("written");
            let changed =
                json!({"_id": "by-hand", "title": "changed", "status": "waiting", "createdBy": "alice"});
            tasks.insert("by-hand", changed.to_string().as_bytes()).expect("written");
            let mut meta = txn.open_table(META).expect("there");
            let last = meta.get("lastSequence").expect("read").expect("there").value();
            meta.insert("lastSequence", last + 2).expect("written");
        }
        txn.commit().expect("committed");
    }
    let store = open_shared(folder.path());
    let waiting = TaskFilter { status: Some("waiting".to_owned()), creator: None };
    assert_eq!(titles(&all(&*store, &alice, &waiting).await), ["later", "changed"]);
    let paused = TaskFilter { status: Some("paused".to_owned()), creator: None };
    assert!(all(&*store, &alice, &paused).await.is_empty());
}

#[test]
fn a_file_of_a_later_release_is_refused_with_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()).expect("opened"));
    {
        let file = redb::Database::open(folder.path().join("tasks.redb")).expect("opened");
        let txn = file.begin_write().expect("begun");
        txn.open_table(META).expect("there").insert("format", 1000).expect("written");
        txn.commit().expect("committed");
    }
    let refusal = unusable(open(folder.path()));
    assert!(
        refusal.contains("a newer taskcast") && refusal.contains("Start that release again"),
        "{refusal}"
    );
}

const FOLDER: &str = "TASKCAST_TEST_INDEXING_FOLDER";
/// The migration needs several transactions for this number of tasks.
const MANY: usize = 12_000;

#[test]
#[ignore = "the process that the test below kills"]
fn indexing_process() {
    let folder = std::env::var(FOLDER).expect("started by the test below");
    println!("indexing");
    open(Path::new(&folder)).expect("opened");
    println!("indexed");
}

#[tokio::test]
async fn a_file_is_indexed_completely_however_often_the_indexing_is_interrupted() {
    let folder = folder_with_fixture();
    let file = folder.path().join("tasks.redb");
    add_many(&file);
    let mut interruptions = 0;
    // The n-th process is killed after its n-th write to the file, until a process finishes.
    for round in 1.. {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::embedded::migration::indexing_process", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let (mut seen, mut writes) = (state(&file), 0);
        while child.try_wait().expect("asked").is_none() && writes < round {
            let now = state(&file);
            writes += u32::from(now != seen);
            seen = now;
            std::thread::yield_now();
        }
        child.kill().expect("killed, or ended already");
        child.wait().expect("reaped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        if output.lines().any(|line| line.expect("text").ends_with("indexed")) {
            break;
        }
        interruptions += 1;
    }
    assert!(interruptions >= 2, "the file was indexed before two processes were killed");
    let store = open_shared(folder.path());
    let dashboard = store.dashboard(&viewer("x", "many"), 10).await.expect("read");
    assert_eq!(dashboard.org_counts, Counts { active: MANY as u64, ..Counts::default() });
    let mut seen = BTreeSet::new();
    let mut cursor = None;
    loop {
        let page = store.list(&viewer("x", "many"), &TaskFilter::default(), cursor.as_ref(), 1000).await;
        let page = page.expect("read");
        seen.extend(page.tasks.into_iter().map(|task| task.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), MANY);
}

/// The size and the modification time of the file. A write to the file changes them.
fn state(file: &Path) -> (u64, std::time::SystemTime) {
    let metadata = fs::metadata(file).expect("metadata");
    (metadata.len(), metadata.modified().expect("a time"))
}

fn add_many(file: &Path) {
    let file = redb::Database::open(file).expect("opened");
    let txn = file.begin_write().expect("begun");
    {
        let mut tasks = txn.open_table(TASKS).expect("there");
        for n in 0..MANY {
            let id = format!("{n:024x}");
            let document = json!({"_id": id, "title": "t", "status": "coding", "createdBy": "m", "orgId": "many", "createdAt": n});
            tasks.insert(&*id, document.to_string().as_bytes()).expect("written");
        }
        assert_eq!(tasks.len().expect("read"), MANY as u64 + 63);
    }
    txn.commit().expect("committed");
}

/// Which changes happened before the first start of this release, or while an earlier release wrote the file, is not known.
#[tokio::test]
async fn a_condition_from_before_the_upgrade_is_not_fulfilled() {
    use taskcast::store::{WriteError, WriteRequest};

    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = viewer("pipeline", "");
    let store = open_shared(folder.path());
    let ids = [create(&*store, &pipeline, "t").await.task.id, create(&*store, &pipeline, "u").await.task.id];
    let old = store.task(&ids[0]).await.expect("read").position;
    let write = |store: Arc<dyn Store>, id: &TaskId, title: &str, since: Position| {
        let request = super::super::keys::patching(&pipeline, id, json!({"title": title}));
        let request = WriteRequest { unchanged_since: Some(since), ..request };
        async move { store.write(request).await }
    };
    write(store.clone(), &ids[0], "v", old).await.expect("written");
    let newer = store.task(&ids[0]).await.expect("read").position;
    drop(store);

    let store = super::reopened(folder.path()).await;
    let refused = write(store.clone(), &ids[0], "w", old).await;
    assert!(matches!(refused, Err(WriteError::Changed)), "{refused:?}");
    write(store.clone(), &ids[1], "w", old).await.expect("it is remembered after a restart");
    write(store.clone(), &ids[0], "w", newer).await.expect("it is remembered after a restart");
    let position = store.task(&ids[0]).await.expect("read").position;
    drop(store);

    // An earlier release raises this number.
    let file = loop {
        match redb::Database::open(folder.path().join("tasks.redb")) {
            Ok(file) => break file,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let txn = file.begin_write().expect("begun");
    {
        let mut meta = txn.open_table(META).expect("there");
        meta.insert("lastSequence", position.time + 1).expect("written");
    }
    txn.commit().expect("committed");
    drop(file);
    let store = super::reopened(folder.path()).await;
    for id in &ids {
        let refused = write(store.clone(), id, "x", position).await;
        assert!(matches!(refused, Err(WriteError::Changed)), "{refused:?}");
    }
    let position = store.task(&ids[0]).await.expect("read").position;
    write(store, &ids[0], "x", position).await.expect("written");
}
