use serde_json::json;

use super::*;

fn parse(value: Value) -> Report {
    Report::parse(value).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The paths of the problems.
fn paths(value: Value) -> Vec<String> {
    let problems = Report::parse(value).expect_err("problems");
    problems.into_iter().map(|problem| problem.path).collect()
}

#[test]
fn a_report_has_a_type_a_payload_and_labels() {
    let report = parse(json!({
        "type": "batch:start", "payload": {"batch_id": 1}, "id": "k", "projectId": "web", "source": "orchestrator",
        "to": "u", "timestamp": "ignored", "eventId": 7, "reportedBy": "ignored",
    }));
    assert_eq!(report.event_type.as_str(), "batch:start");
    assert_eq!(Value::from(report.payload), json!({"batch_id": 1}));
    assert_eq!(
        [report.id, report.project, report.source]
            .map(Option::unwrap_or_default)
            .each_ref()
            .map(|text| &**text),
        ["k", "web", "orchestrator"]
    );
    assert_eq!(report.to, UserId::parse("u"));

    let bare =
        parse(json!({"type": "a", "payload": {}, "id": null, "projectId": null, "source": null, "to": null}));
    assert!(bare.id.is_none() && bare.project.is_none() && bare.source.is_none() && bare.to.is_none());
}

#[test]
fn each_problem_names_its_place() {
    assert_eq!(paths(json!([])), [""]);
    assert_eq!(paths(json!({})), ["/type", "/payload"]);
    let wrong = json!({"type": "A", "payload": [], "id": "", "projectId": 1, "source": {}, "to": ""});
    assert_eq!(paths(wrong), ["/type", "/payload", "/id", "/projectId", "/source", "/to"]);
    for type_ in [json!(7), json!("task:created"), json!("a".repeat(65))] {
        assert_eq!(paths(json!({"type": type_, "payload": {}})), ["/type"]);
    }
    for id in [json!("a\nb"), json!("\u{7f}"), json!("x".repeat(129)), json!(5)] {
        assert_eq!(paths(json!({"type": "a", "payload": {}, "id": id})), ["/id"]);
    }
    for name in ["id", "projectId", "source"] {
        parse(json!({"type": "a", "payload": {}, name: "x".repeat(128)}));
        assert_eq!(paths(json!({"type": "a", "payload": {}, name: "x".repeat(129)})), [format!("/{name}")]);
    }
}

#[test]
fn problems_do_not_repeat_values() {
    let canary = "canary-7f3a";
    let wrong = json!({"type": format!("A{canary}"), "payload": canary, "id": format!("{canary}\n"),
        "projectId": canary.repeat(20), "source": [canary], "to": {canary: 1}});
    let problems = Report::parse(wrong.clone()).expect_err("problems");
    assert_eq!(problems.len(), 6);
    assert!(!format!("{problems:?}").contains(canary));
    assert_eq!(Report::named_type(&wrong), None);
    assert_eq!(Report::named_type(&json!({"type": "task:x"})), Some("task:x"));
    assert_eq!(Report::named_type(&json!(["type"])), None);
}

#[test]
fn a_payload_is_at_most_32_kib_of_json() {
    let of_size =
        |bytes: usize| json!({"type": "a", "payload": {"k": "x".repeat(bytes - r#"{"k":""}"#.len())}});
    assert_eq!(compact_bytes(&parse(of_size(32 * 1024)).payload), 32 * 1024);
    assert_eq!(paths(of_size(32 * 1024 + 1)), ["/payload"]);
    // A control character has six bytes in JSON.
    assert_eq!(paths(json!({"type": "a", "payload": {"k": "\u{1}".repeat(6_000)}})), ["/payload"]);
}

#[test]
fn a_payload_whose_redacted_form_is_too_large_is_refused() {
    let secrets: Map<String, Value> = (0..1_800).map(|n| (format!("token{n:04}"), json!("a"))).collect();
    assert!(compact_bytes(&secrets) < Report::MAX_PAYLOAD_BYTES);
    assert_eq!(paths(json!({"type": "a", "payload": secrets})), ["/payload"]);
}

#[test]
fn a_payload_has_at_most_32_levels() {
    let nested = |levels: usize, array: bool| {
        let wrap = |inner, _| if array { json!([inner]) } else { json!({"a": inner}) };
        let value = (0..levels - 1).fold(json!(1), wrap);
        json!({"type": "a", "payload": {"a": value}})
    };
    for array in [false, true] {
        parse(nested(32, array));
        assert_eq!(paths(nested(33, array)), ["/payload"]);
    }
}

#[test]
fn secrets_are_redacted_but_numbers_are_kept() {
    let payload = json!({"metrics": {"tokens": 120, "apiToken": "t"}, "a": [{"password": ["p"], "cookie": {"c": 1}}],
        "secret": true, "credential": null, "note": "token"});
    let expected = json!({"metrics": {"tokens": 120, "apiToken": "[redacted]"},
        "a": [{"password": "[redacted]", "cookie": "[redacted]"}], "secret": true, "credential": null, "note": "token"});
    let report = parse(json!({"type": "a", "payload": payload}));
    assert_eq!(Value::from(report.payload.clone()), expected);
    let again = parse(json!({"type": "a", "payload": report.payload.clone()}));
    assert_eq!(again, report);
}

#[test]
fn the_project_of_the_payload_counts_if_the_report_names_none() {
    let project = |value: Value| parse(value).project.as_deref().map(str::to_owned);
    let of = |top: Value, inner: Value| {
        project(json!({"type": "a", "payload": {"project_id": inner}, "projectId": top}))
    };
    assert_eq!(of(json!(null), json!("web")).as_deref(), Some("web"));
    assert_eq!(of(json!("top"), json!("web")).as_deref(), Some("top"));
    for unusable in [json!(""), json!(7), json!("x".repeat(129)), json!(null)] {
        assert_eq!(of(json!(null), unusable), None);
    }
}
