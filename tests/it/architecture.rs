//! Checks which modules may use which modules and libraries, as described in docs/architecture.md.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A module and the modules of this crate that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("task", &[]),
    ("position", &[]),
    ("activity", &["position", "task"]),
    ("wire", &["position"]),
    ("auth", &["backoff", "http_client", "json", "metrics", "shrinking_map", "task"]),
    ("feed", &["position", "task", "wire"]),
    ("github", &["json", "task"]),
    (
        "store",
        &["activity", "backoff", "feed", "github", "metrics", "rate_limited_log", "shrinking_map", "task"],
    ),
    ("fanout", &["feed", "metrics", "rate_limited_log", "shrinking_map", "task", "wire"]),
    ("cluster", &["auth", "backoff", "shrinking_map", "task"]),
    ("config", &["activity", "auth", "cluster", "store", "task"]),
    ("address", &["config", "shrinking_map"]),
    (
        "session",
        &[
            "auth",
            "cluster",
            "config",
            "fanout",
            "metrics",
            "rate_limit",
            "rate_limited_log",
            "shrinking_map",
            "store",
            "task",
            "wire",
        ],
    ),
    ("edge", &["address", "config", "metrics", "rate_limit", "rate_limited_log", "shrinking_map"]),
    (
        "transport",
        &[
            "address",
            "auth",
            "backoff",
            "config",
            "edge",
            "fanout",
            "json",
            "metrics",
            "rate_limit",
            "rate_limited_log",
            "session",
            "shrinking_map",
            "wire",
        ],
    ),
    (
        "http",
        &[
            "activity",
            "address",
            "auth",
            "cluster",
            "config",
            "edge",
            "feed",
            "github",
            "json",
            "metrics",
            "rate_limited_log",
            "reporting",
            "store",
            "task",
        ],
    ),
    ("metrics", &["feed", "github", "wire"]),
    ("backoff", &[]),
    ("http_client", &[]),
    ("json", &[]),
    ("rate_limit", &["task"]),
    ("rate_limited_log", &[]),
    ("reporting", &["activity", "metrics", "rate_limit", "rate_limited_log", "store", "task"]),
    ("shrinking_map", &[]),
    ("telemetry", &["config", "metrics"]),
    ("serve", &["address", "config", "edge", "metrics", "rate_limited_log", "transport"]),
    ("lifecycle", &["cluster", "serve", "transport"]),
    (
        "cli",
        &["app", "auth", "backoff", "cluster", "config", "http_client", "json", "store", "task", "telemetry"],
    ),
];

/// These modules put the others together, or are tools for tests. They may use all modules.
const MAY_USE_ALL: [&str; 4] = ["app", "fuzzing", "lib", "main"];

/// A crate, and the only modules that may use it.
const OWNED: [(&str, &[&str]); 15] = [
    ("mongodb", &["store"]),
    ("redb", &["store"]),
    ("fred", &["cluster"]),
    ("jsonwebtoken", &["auth"]),
    ("jsonschema", &["activity"]),
    ("hyper_rustls", &["http_client"]),
    ("rustls", &["http_client"]),
    ("hmac", &["github"]),
    ("sha2", &["github", "store"]),
    ("tokio_tungstenite", &["cli", "transport"]),
    // `app` uses our module of this name.
    ("socketioxide", &["app", "transport"]),
    ("socketioxide_core", &["transport"]),
    ("governor", &["rate_limit"]),
    ("prometheus_client", &["metrics"]),
    ("axum", &["app", "edge", "http", "serve", "transport"]),
];

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&root).expect("below src");
                let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
                let module = first.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).expect("text");
                found.push((module, path, code_of(&text)));
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

/// The code without comments, and without the tests at the end of the file.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules in every `crate::…` path of a source, including groups in braces.
fn used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            modules.insert(word(rest));
            continue;
        };
        let (mut depth, mut at_start) = (0, true);
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if depth == 0 && at_start && c.is_alphabetic() => {
                    modules.insert(word(&group[index..]));
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    modules
}

#[test]
fn each_module_uses_only_what_it_may() {
    let mut wrong = Vec::new();
    for (module, path, code) in sources() {
        if MAY_USE_ALL.contains(&module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: ALLOWED does not list {module}", path.display()));
            continue;
        };
        for used in used(&code) {
            if used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {module} must not use {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_library_is_named_only_where_it_belongs() {
    let mut wrong = Vec::new();
    for (module, path, code) in sources() {
        for (library, owners) in OWNED {
            if code.contains(&format!("{library}::")) && !owners.contains(&module.as_str()) {
                wrong.push(format!("{}: {library} belongs to {owners:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// These modules do no I/O, so that tests and fuzzers can call them without a runtime.
const PURE: [&str; 7] = ["activity", "feed", "github", "json", "position", "task", "wire"];

#[test]
fn modules_without_io_name_no_runtime_and_no_files() {
    let mut wrong = Vec::new();
    for (module, path, code) in sources() {
        for library in ["tokio::", "std::fs", "std::net", "hyper::"] {
            if PURE.contains(&module.as_str()) && code.contains(library) {
                wrong.push(format!("{}: {module} must not use {library}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Folders inside a module that must not name each other.
const APART: [(&str, &str); 3] =
    [("store/mongo", "embedded"), ("store/embedded", "mongo"), ("transport/json", "socketio")];

#[test]
fn folders_that_must_be_apart_do_not_use_each_other() {
    let mut wrong = Vec::new();
    for (_, path, code) in sources() {
        for (folder, other) in APART {
            let inside = path.to_string_lossy().replace('\\', "/").contains(&format!("src/{folder}/"));
            if inside
                && [format!("{other}::"), format!("super::{other}")].iter().any(|name| code.contains(name))
            {
                wrong.push(format!("{} must not use {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What knows no framing: a message gets its framing in a transport.
const WITHOUT_FRAMING: [&str; 4] = ["fanout", "feed", "session", "wire"];

#[test]
fn only_transports_know_packets_and_frames() {
    let mut wrong = Vec::new();
    for (module, path, code) in sources() {
        for word in ["Packet", "Frame", "websocket::", "tungstenite"] {
            if WITHOUT_FRAMING.contains(&module.as_str()) && code.contains(word) {
                wrong.push(format!("{}: {module} must not know {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn groups_and_paths_are_understood() {
    let code = "use crate::{\n    auth::{A, b::C},\n    task::D,\n};\nfn f() { crate::store::g() }";
    assert_eq!(used(code).into_iter().collect::<Vec<_>>(), ["auth", "store", "task"]);
}
