//! Sets `TASKCAST_VERSION` to the version, followed by the commit if it is known (`0.1.0+0123456789ab`).
//!
//! The commit comes from `TASKCAST_COMMIT` where there is no git, as in a container build. A packaged crate has the commit in a
//! file. A debug build never asks git, because it would be compiled again after each commit.

use std::{env, fs, path::Path, process::Command};

const DIGITS: usize = 12;
/// `cargo package` writes this file.
const PACKAGED: &str = ".cargo_vcs_info.json";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TASKCAST_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    match given().or_else(packaged).or_else(checked_out) {
        Some(commit) => println!("cargo::rustc-env=TASKCAST_VERSION={version}+{commit}"),
        None => println!("cargo::rustc-env=TASKCAST_VERSION={version}"),
    }
}

fn given() -> Option<String> {
    short(&env::var("TASKCAST_COMMIT").ok()?)
}

fn packaged() -> Option<String> {
    let text = fs::read_to_string(PACKAGED).ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    short(rest.split('"').nth(1)?)
}

fn checked_out() -> Option<String> {
    // An unpacked crate may be in the checkout of another project, so the crate's own `.git` is required.
    if env::var("PROFILE").ok()? != "release" || !Path::new(".git").exists() {
        return None;
    }
    // Git appends to this log at each commit and checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists());
    println!("cargo::rerun-if-changed={}", log.as_deref().unwrap_or("build.rs"));
    short(&git(&["rev-parse", "HEAD"])?)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `None` means that the text is not a commit.
fn short(commit: &str) -> Option<String> {
    let commit = commit.trim();
    let is_commit = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit.chars().take(DIGITS).collect())
}
