//! Tests a damaged file and a full disk.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

#[test]
fn a_damaged_file_is_refused_with_advice() {
    for damage in [&b""[..], b"not a store", &[0; 4096], &[0xff; 100_000]] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("tasks.redb"), damage).expect("written");
        let refusal = unusable(open(folder.path()));
        assert!(refusal.contains("tasks.redb") && refusal.contains("backup"), "{refusal}");
        assert_eq!(std::fs::read(folder.path().join("tasks.redb")).expect("read"), damage, "left as it was");
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()).expect("opened"));
    let file =
        std::fs::OpenOptions::new().write(true).open(folder.path().join("tasks.redb")).expect("a file");
    file.set_len(file.metadata().expect("metadata").len() / 3).expect("cut");
    let refusal = unusable(open(folder.path()));
    assert!(refusal.contains("backup"), "{refusal}");
}

/// redb detects some damage by a failing assertion. A caller that reads or writes must nevertheless get an error.
#[tokio::test]
async fn damage_anywhere_is_an_error_and_not_a_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let alice = viewer("alice", "acme");
    let store = open_shared(folder.path());
    for n in 0..60 {
        create(&*store, &alice, &n.to_string()).await;
    }
    drop(store);
    let intact = std::fs::read(folder.path().join("tasks.redb")).expect("read");
    let mut refused = 0;
    for round in 0..80 {
        let damaged_folder = tempfile::tempdir().expect("a folder");
        std::fs::write(damaged_folder.path().join("tasks.redb"), damaged(&intact, round)).expect("written");
        match open(damaged_folder.path()) {
            Err(error) => {
                assert!(!error.is_temporary(), "{error}");
                refused += 1;
            }
            Ok(store) => {
                let read = store.dashboard(&alice, 100).await.map(drop);
                let written = store.create(parsed(json!({"title": "t"})), &alice, None).await.map(drop);
                for error in [read, written].into_iter().filter_map(Result::err) {
                    assert!(!error.is_temporary(), "{error}");
                }
            }
        }
    }
    assert!(refused > 10, "the damage was not even noticed");
}

/// Changes some bytes, in the header or anywhere in the file. The same bytes change in every run.
fn damaged(intact: &[u8], round: u64) -> Vec<u8> {
    let mut bytes = intact.to_vec();
    let span = if round.is_multiple_of(2) { 4096 } else { bytes.len() };
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..=round {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[state as usize % span] ^= (state >> 40) as u8 | 1;
    }
    bytes
}

const FOLDER: &str = "TASKCAST_TEST_FULL_FOLDER";

#[test]
#[ignore = "the process whose disk is full in the test below"]
fn writer_on_a_full_disk() {
    let folder = std::env::var(FOLDER).expect("started by the test below");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    runtime.block_on(async {
        let store = open_shared(Path::new(&folder));
        let alice = viewer("alice", "acme");
        let mut kept = Vec::new();
        let large = "x".repeat(20_000);
        let error = loop {
            let task = parsed(json!({"title": "t", "description": large}));
            match store.create(task, &alice, None).await {
                Ok(task) => kept.push(task),
                Err(error) => break error,
            }
        };
        assert!(error.is_temporary() && !kept.is_empty(), "{} kept, {error}", kept.len());
        let pid = std::process::id().to_string();
        let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &pid]).status();
        assert!(raised.expect("prlimit runs").success());

        kept.push(create(&*store, &alice, "there is room again").await);
        for task in kept {
            assert_eq!(store.task(&task.task.id).await.expect("read").task, Some(task));
        }
        println!("mended");
    });
}

/// A limit on the size of the file simulates a full disk.
#[test]
fn a_full_disk_is_a_temporary_error_and_writes_succeed_later_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = r#"trap "" XFSZ; ulimit -S -f 4096; exec "$@""#;
    let mut child = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "store::embedded::damage::writer_on_a_full_disk", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mended = output.lines().any(|line| line.expect("text").contains("mended"));
    child.kill().expect("ended");
    child.wait().expect("reaped");
    assert!(mended);
}

#[test]
fn a_file_that_may_not_be_opened_is_not_called_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("tasks.redb")).expect("a folder in its place");
    let refusal = unusable(open(folder.path()));
    assert!(refusal.contains("read and write") && !refusal.contains("backup"), "{refusal}");
}
