//! Runs the binary as a user does, and checks exit codes, standard output and error, and `.env`.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn taskcast(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskcast"));
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn bad_settings_end_the_process_with_exit_code_2_and_are_all_named_on_stderr() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(taskcast(folder.path()).args(["--port", "hunter2"]).env("SEND_QUEUE", "hunter2"));
    assert_eq!(output.status.code(), Some(2));
    let output_text = text(&output.stderr);
    for name in ["PORT", "SEND_QUEUE", "JWT_SECRET"] {
        assert!(output_text.contains(&format!("  {name}: ")), "{output_text}");
    }
    assert!(!output_text.contains("hunter2") && output.stdout.is_empty(), "{output_text}");
    assert_eq!(run(taskcast(folder.path()).arg("--bogus")).status.code(), Some(2));
}

#[test]
fn token_prints_one_line_that_is_signed_with_the_secret_in_dotenv() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(".env"), format!("JWT_SECRET={SECRET}\n")).expect("written");
    let output = run(taskcast(folder.path()).args(["token", "--sub", "alice", "--org", "acme"]));
    assert!(output.status.success(), "{output:?}");
    let line = text(&output.stdout).strip_suffix('\n').expect("a line");
    assert!(line.split('.').count() == 3 && !line.contains('\n'), "{line}");

    let public = concat!(env!("CARGO_MANIFEST_DIR"), "/src/auth/testdata/p256.pub.pem");
    let mut command = taskcast(folder.path());
    command.args(["token", "--sub", "alice"]).env("JWT_PUBLIC_KEY", format!("@{public}"));
    assert_eq!(run(&mut command).status.code(), Some(2), "two kinds of key");
    std::fs::remove_file(folder.path().join(".env")).expect("removed");
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("public key"), "{output:?}");
}

#[test]
fn check_prints_one_finding_per_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(taskcast(folder.path()).arg("check").env("JWT_SECRET", SECRET));
    assert!(output.status.success(), "{output:?}");
    let warned: Vec<&str> = text(&output.stdout).lines().filter(|line| !line.starts_with("ok: ")).collect();
    assert!(warned.len() == 2 && warned.iter().all(|line| line.starts_with("warn: ")), "{output:?}");
    let good = [("JWT_SECRET", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"), ("HOST", "127.0.0.1")];
    let output = run(taskcast(folder.path()).arg("check").envs(good));
    assert!(text(&output.stdout).lines().all(|line| line.starts_with("ok: ")), "{output:?}");
    let output = run(taskcast(folder.path()).args(["check", "--ping-timeout", "5"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("fail: PING_TIMEOUT: "), "{output:?}");
}

#[test]
fn a_closed_output_pipe_is_not_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = taskcast(folder.path())
        .args(["token", "--sub", "alice"])
        .env("JWT_SECRET", SECRET)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
