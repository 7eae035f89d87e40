//! Checks SECURITY.md: the tests that it names exist, and each threat names at least one test.

use std::{fs, path::Path};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `file: title` of every test that the line names.
fn named(line: &str) -> Vec<(&str, &str)> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|text| text.split_once(": "))
        .filter(|(file, _)| file.ends_with(".js") || file.ends_with(".rs"))
        .collect()
}

fn exists(file: &str, title: &str) -> bool {
    let text = if file.starts_with("src/") { read(file) } else { read(&format!("tests/{file}")) };
    if file.ends_with(".rs") {
        text.contains(&format!("fn {title}("))
    } else {
        ["'", "`"].iter().any(|quote| text.contains(&format!("({quote}{title}")))
            || text.contains(&format!("name: '{title}'"))
    }
}

#[test]
fn every_threat_names_tests_that_exist() {
    let page = read("SECURITY.md");
    let threats = page.split("## Threats").nth(1).and_then(|rest| rest.split("## What remains").next());
    let rows = threats.expect("the section").lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| threat |") && !line.starts_with("|---")
    });
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows {
        let tests = named(row);
        if tests.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        count += tests.len();
        let missing = tests.iter().filter(|(file, title)| !exists(file, title));
        wrong.extend(missing.map(|(file, title)| format!("{file} has no {title}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 30, "only {count} were found");
}

/// The project has no on-call team. SECURITY.md promises no date to a reporter, and says what to do without an answer.
#[test]
fn no_response_time_is_promised() {
    let page = read("SECURITY.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let report = page.split("## What is worth protecting").next().expect("the section");
    assert!(report.contains("no time to an answer is promised"));
    for promise in ["working day", "within ", "business day", " hours"] {
        assert!(!report.contains(promise), "{promise}");
    }
}

/// A source file can't revoke `forbid`, and the manifest covers all targets.
#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let manifest = read("Cargo.toml");
    let lints = manifest.split("[lints.rust]").nth(1).and_then(|rest| rest.split("\n[").next());
    assert!(lints.is_some_and(|lints| lints.contains("unsafe_code = \"forbid\"")));
}
