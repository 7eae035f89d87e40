//! Checks that the operations page, the alerts and the dashboard name existing metrics, and that the page names all.

use std::{collections::BTreeSet, fs, path::Path};

use taskcast::metrics::Metrics;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The metric families that a gateway exports from its start.
fn families() -> BTreeSet<String> {
    let page = Metrics::default().render();
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The names of metrics in a text. The parts of a histogram count as the histogram.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("taskcast_") || word.starts_with("process_"))
        .map(|word| {
            let family = ["_bucket", "_sum", "_count"]
                .into_iter()
                .find_map(|part| word.strip_suffix(part))
                .unwrap_or(word);
            family.to_owned()
        })
        .collect()
}

fn after<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim().strip_prefix(prefix)).collect()
}

/// Every `expr` and `definition` of a dashboard.
fn queries(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            let texts = ["expr", "definition"].into_iter().filter_map(|key| map.get(key)?.as_str());
            found.extend(texts.map(str::to_owned));
            map.values().for_each(|value| queries(value, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn the_table_of_metrics_has_every_metric_and_no_other() {
    let page = file("docs/operations.md");
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let documented: BTreeSet<String> = cells.flat_map(named).collect();
    assert_eq!(documented, families());
    assert!(named(&page).is_subset(&families()), "in a text: {:?}", named(&page).difference(&families()));
}

#[test]
fn alerts_use_existing_metrics_and_have_their_sections() {
    let alerts = file("deploy/prometheus/alerts.yaml");
    assert!(named(&alerts).is_subset(&families()), "{:?}", named(&alerts).difference(&families()));
    let names: Vec<&str> = after(&alerts, "- alert: ");
    assert!(names.len() > 10);
    let page = file("docs/operations.md");
    let sections: Vec<&str> =
        after(&page, "### ").into_iter().filter(|title| title.starts_with("Taskcast")).collect();
    assert_eq!(sections, names, "in the same order");
}

/// With a typing error in the value of a label, an alert would never fire.
#[test]
fn alerts_use_existing_label_values() {
    let page = Metrics::default().render();
    let mut asked = 0;
    for line in file("deploy/prometheus/alerts.yaml").lines().filter(|line| !line.contains("annotations")) {
        for (before, value) in
            line.split('"').collect::<Vec<_>>().chunks_exact(2).map(|pair| (pair[0], pair[1]))
        {
            let label = before.trim_end_matches(['=', '~', '!']).rsplit(['{', ',']).next().expect("a label");
            if ["reason", "outcome", "cause"].contains(&label)
                || (label == "status" && before.contains("taskcast_status"))
            {
                for word in value.split('|') {
                    assert!(page.contains(&format!("{label}=\"{word}\"")), "{label}={word} in {line}");
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 8);
}

#[test]
fn the_dashboard_shows_existing_metrics() {
    let dashboard = serde_json::from_str(&file("deploy/grafana/taskcast.json")).expect("JSON");
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    assert!(found.len() > 30);
    let shown: BTreeSet<String> = found.iter().flat_map(|query| named(query)).collect();
    assert!(shown.is_subset(&families()), "{:?}", shown.difference(&families()));
    assert!(found.iter().all(|query| !named(query).is_empty()), "{found:?}");
    let ids: Vec<i64> = dashboard["panels"]
        .as_array()
        .expect("panels")
        .iter()
        .filter_map(|panel| panel["id"].as_i64())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "ids of their own");
}
