//! Tests that `kill -9` at any time loses no acknowledged write and leaves no partial write.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use taskcast::task::Field;

use super::*;

const FOLDER: &str = "TASKCAST_TEST_CRASH_FOLDER";
const ROUNDS: u64 = 6;

#[test]
#[ignore = "the process that the test below kills"]
fn writer_process() {
    let folder = std::env::var(FOLDER).expect("started by the test below");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let store = open_shared(Path::new(&folder));
    runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            writers.spawn(write_for_ever(store.clone()));
        }
        writers.join_next().await;
    });
}

/// Prints each write after its acknowledgement, one whole line at a time.
async fn write_for_ever(store: Arc<dyn Store>) {
    let alice = viewer("alice", "acme");
    loop {
        let id = create(&*store, &alice, "0").await.task.id;
        acknowledge(&id, 0);
        for n in 1..5 {
            let body = json!({"title": n.to_string(), "event": {"eventType": "n"}});
            store.patch(&id, &alice, patch(body)).await.expect("patched");
            acknowledge(&id, n);
        }
    }
}

fn acknowledge(id: &TaskId, n: u64) {
    let line = format!("acknowledged {id} {n}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).expect("the test reads");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = start(folder.path());
        let output = BufReader::new(child.stdout.take().expect("piped"));
        // Each round kills the process after a different number of writes, while the next writes are in progress.
        let enough = 7 + round * 31;
        let mut lines = 0;
        for line in output.lines() {
            let line = line.expect("text");
            if let Some((id, n)) = acknowledgement(&line) {
                acknowledged.insert(id, n);
                lines += 1;
                if lines == enough {
                    child.kill().expect("killed");
                }
            }
        }
        assert!(lines >= enough, "the writer ended by itself after {lines}");
        child.wait().expect("reaped");
        check(folder.path(), &acknowledged).await;
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "store::embedded::crash::writer_process", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("started")
}

/// The test harness may print text before the first acknowledgement on the same line. The last line may be incomplete.
fn acknowledgement(line: &str) -> Option<(TaskId, u64)> {
    let (_, rest) = line.split_once("acknowledged ")?;
    let (id, n) = rest.split_once(' ')?;
    Some((task_id(id), n.parse().ok()?))
}

async fn check(folder: &Path, acknowledged: &BTreeMap<TaskId, u64>) {
    let store = reopened(folder).await;
    for (id, n) in acknowledged {
        let task = store.task(id).await.expect("read").task.unwrap_or_else(|| panic!("{id} is lost"));
        let kept: u64 = task.task.get(Field::Title).as_str().and_then(|n| n.parse().ok()).expect("a number");
        assert!(kept >= *n, "{id} is at {kept}, {n} was acknowledged");
        assert_eq!(task.timeline.len() as u64, kept, "{id}: the entries are those of the same writes");
    }
    let dashboard = store.dashboard(&viewer("alice", "acme"), 100_000).await.expect("read");
    let logged: usize = dashboard.tasks.iter().map(writes_of).sum();
    let mut feed = Following::start(&store).await;
    let mut last = BTreeMap::new();
    let changes = feed.changes(logged).await;
    for change in &changes {
        let known = last.insert(change.task.clone(), change.after.clone());
        assert_eq!(known.flatten(), change.before, "a change begins where the one before it ended");
    }
    assert_eq!(changes.last().map(|change| change.position.time), Some(dashboard.position.time));
    for task in &dashboard.tasks {
        assert_eq!(last.remove(&task.id), Some(Some(task.clone())), "log and tasks disagree");
    }
    assert!(last.is_empty(), "the log knows tasks that are not there: {last:?}");
    drop((feed, store));
    // The folder must be free before the next process opens it.
    drop(reopened(folder).await);
}

/// The number of writes to the task: one that created the task, and one for each later title.
fn writes_of(task: &Task) -> usize {
    1 + task.get(Field::Title).as_str().and_then(|n| n.parse::<usize>().ok()).expect("a number")
}
