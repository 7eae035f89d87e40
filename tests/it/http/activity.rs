//! Tests the activity API on the embedded store: reports, pages, types and hooks.

use taskcast::{
    activity::{Registry, UnknownTypes},
    reporting::{Reporting, ReportingSettings},
};

use super::*;

/// An app with activity, in which a user may report this many events per second.
fn app_with_rate(rate_per_second: u32) -> App {
    let folder = tempfile::tempdir().expect("a folder");
    let config = EmbeddedConfig { data_dir: folder.path().to_owned(), default_org: DefaultOrg::default() };
    let store = Arc::new(EmbeddedStore::open(config).expect("opened"));
    let app = App::over(store.clone(), TaskApi::Read, well());
    let hour = Duration::from_secs(3600);
    let settings = ReportingSettings { retention: hour, high_volume_retention: hour, rate_per_second };
    let registry = Arc::new(Registry::built_in(UnknownTypes::Reject).expect("schemas"));
    let reporting = Arc::new(Reporting::new(store, registry, settings, app.state.metrics.clone()));
    let state = HttpState { reporting: Some(reporting), ..app.state };
    App { router: super::app(Routes::Public, state.clone()), state, _folder: Some(folder), ..app }
}

fn app() -> App {
    app_with_rate(1000)
}

fn reporter(user: &str, org: &str) -> String {
    sign(user, org, Some("events:write"), UnixTime::now())
}

fn story(n: u64) -> Value {
    let payload = json!({"story_key": n.to_string(), "old_status": "todo", "new_status": "done"});
    json!({"type": "story:status", "payload": payload})
}

impl App {
    async fn post_lines(&self, token: &str, lines: &str) -> Answer {
        let request = request("POST", "/api/activity", token).header("content-type", "application/x-ndjson");
        self.send(request.body(Body::from(lines.to_owned())).expect("valid")).await
    }

    async fn types_of_page(&self, query: &str, token: &str) -> Vec<String> {
        let page = self.get(&format!("/api/activity{query}"), token).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let events = page.body["events"].as_array().expect("events").iter();
        events.map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    }
}

#[tokio::test]
async fn a_reported_event_is_in_the_page_of_its_organisation() {
    let app = app();
    let event = json!({
        "type": "story:status",
        "payload": {"story_key": "1-2", "old_status": "a", "new_status": "b", "apiKey": "k", "tokens": 5},
        "timestamp": 1, "id": "x", "projectId": "web", "source": "orchestrator",
    });
    let answer = app.post("/api/activity", &reporter("alice", "acme"), event).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    assert_eq!((&answer.body["accepted"], &answer.body["duplicates"]), (&json!(1), &json!(0)));

    let page = app.get("/api/activity", &token("bob", "acme")).await;
    let event = &page.body["events"][0];
    assert_eq!(event["eventId"], answer.body["eventId"]);
    assert!(event["timestamp"].as_i64().expect("a time") > 1_700_000_000_000, "the time of the store");
    let payload = json!({"story_key": "1-2", "old_status": "a", "new_status": "b", "apiKey": "[redacted]", "tokens": 5});
    assert_eq!(event["payload"], payload);
    let keys: Vec<&String> = event.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["type", "payload", "timestamp", "eventId", "projectId", "source"]);
    assert_eq!(page.body["nextCursor"], Value::Null);
    assert_eq!(app.get("/api/activity", &token("bob", "globex")).await.body["events"], json!([]));
}

#[tokio::test]
async fn arrays_and_lines_are_stored_completely_and_in_order() {
    let app = app();
    let alice = reporter("alice", "acme");
    let answer = app.post("/api/activity", &alice, json!([story(0), story(1)])).await;
    assert_eq!(answer.body["accepted"], json!(2), "{}", answer.body);
    let answer = app.post_lines(&alice, &format!("{}\n\n{}\r\n", story(2), story(3))).await;
    assert_eq!(
        (answer.status, &answer.body["accepted"]),
        (StatusCode::ACCEPTED, &json!(2)),
        "{}",
        answer.body
    );
    let (mut query, mut seen) = ("?limit=3".to_owned(), Vec::new());
    loop {
        let page = app.get(&format!("/api/activity{query}"), &alice).await;
        let events = page.body["events"].as_array().expect("events").iter();
        seen.extend(events.map(|event| event["payload"]["story_key"].as_str().expect("a key").to_owned()));
        let Some(next) = page.body["nextCursor"].as_str() else { break };
        query = format!("?limit=3&before={next}");
    }
    assert_eq!(seen, ["3", "2", "1", "0"]);
}

#[tokio::test]
async fn an_invalid_event_is_named_and_nothing_is_stored() {
    let app = app();
    let alice = reporter("alice", "acme");
    let batch =
        json!([story(0), {"type": "story:status", "payload": {"story_key": 7}}, {"type": "no.such"}, 5]);
    let answer = app.post("/api/activity", &alice, batch).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let error = &answer.body["error"];
    assert_eq!(error["code"], "invalid_event");
    let details = error["details"].as_array().expect("details");
    assert!(details.iter().all(|detail| !detail["message"].as_str().expect("a message").is_empty()));
    let places: Vec<_> =
        details.iter().map(|detail| (detail["index"].as_u64(), detail["type"].as_str())).collect();
    assert!(places.contains(&(Some(1), Some("story:status"))), "{places:?}");
    assert!(places.contains(&(Some(2), Some("no.such"))), "{places:?}");
    assert!(places.contains(&(Some(3), None)), "{places:?}");
    assert!(details.iter().any(|detail| detail["path"] == "/payload/story_key"), "{details:?}");

    let answer = app.post_lines(&alice, &format!("{}\n{{\"type\":\n", story(0))).await;
    assert_eq!(answer.body["error"]["details"][0]["index"], json!(1), "{}", answer.body);
    let many = json!(vec![json!({"type": "no.such", "payload": {}}); 100]);
    let answer = app.post("/api/activity", &alice, many).await;
    assert_eq!(answer.body["error"]["details"].as_array().expect("details").len(), 20);
    assert!(app.types_of_page("", &alice).await.is_empty());
}

#[tokio::test]
async fn bad_requests_get_a_clear_error() {
    let app = app();
    let alice = reporter("alice", "acme");
    let post = async |body: Value| app.post("/api/activity", &alice, body).await;
    post(json!([])).await.is_error(400, "invalid_payload", "the body has no event");
    let large = "the body has more than 1000 events: send several requests";
    post(json!(vec![story(0); 1001])).await.is_error(413, "payload_too_large", large);
    let huge = json!({"type": "story:status", "payload": {"story_key": "x".repeat(5 << 20)}});
    post(huge).await.is_error(413, "payload_too_large", "the body is larger than 4194304 bytes");
    let plain = request("POST", "/api/activity", &alice).body(Body::from("x")).expect("valid");
    let message = "the body must be sent as application/json or application/x-ndjson";
    app.send(plain).await.is_error(415, "unsupported_media_type", message);
    let unscoped = app.post("/api/activity", &token("alice", "acme"), story(0)).await;
    unscoped.is_error(403, "forbidden", "the token lacks the scope events:write");
    for (query, message) in [
        ("?since=x", "since must be an eventId, or the nextCursor of the page before"),
        ("?limit=0", "limit must be a whole number from 1 to 500"),
        ("?limit=1&limit=2", "limit must be given once"),
    ] {
        app.get(&format!("/api/activity{query}"), &alice).await.is_error(400, "invalid_payload", message);
    }
    let pattern = app.get("/api/activity?events=story:*,Ba*d", &alice).await;
    assert_eq!(pattern.status, StatusCode::BAD_REQUEST);
    let patterns = vec!["a"; 65].join(",");
    let many = app.get(&format!("/api/activity?events={patterns}"), &alice).await;
    many.is_error(400, "invalid_payload", "events must have at most 64 patterns");
    assert_eq!(app.get("/api/activity", "nonsense").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_id_with_another_content_is_a_conflict() {
    let app = app();
    let alice = reporter("alice", "acme");
    let with_id = |n| {
        let mut event = story(n);
        event["id"] = "x".into();
        event
    };
    app.post("/api/activity", &alice, with_id(1)).await;
    let answer = app.post("/api/activity", &alice, with_id(1)).await;
    assert_eq!((&answer.body["accepted"], &answer.body["duplicates"]), (&json!(0), &json!(1)));
    let answer = app.post("/api/activity", &alice, json!([story(5), with_id(2)])).await;
    assert_eq!((answer.status, &answer.body["error"]["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    assert_eq!(app.types_of_page("", &alice).await.len(), 1);
}

#[tokio::test]
async fn a_user_reports_a_limited_number_of_events() {
    let app = app_with_rate(1);
    let (alice, bob) = (reporter("alice", "acme"), reporter("bob", "acme"));
    let larger = app.post("/api/activity", &alice, json!(vec![story(0); 11])).await;
    assert_eq!(larger.status, StatusCode::BAD_REQUEST, "{}", larger.body);
    // The refused request counts as one event.
    assert_eq!(
        app.post("/api/activity", &alice, json!(vec![story(0); 9])).await.status,
        StatusCode::ACCEPTED
    );
    let limited = app.post("/api/activity", &alice, json!(vec![story(0); 10])).await;
    assert_eq!(
        (limited.status, &limited.body["error"]["code"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limited"))
    );
    assert!(limited.header("retry-after").expect("a time").parse::<u64>().expect("seconds") >= 1);
    assert_eq!(app.post("/api/activity", &bob, story(0)).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_hook_is_stored_without_its_content() {
    let app = app();
    let alice = reporter("alice", "acme");
    for hook in [
        json!({"hook_event_name": "SessionStart", "session_id": "s1", "cwd": "/home/secret", "source": "startup"}),
        json!({"hook_event_name": "PostToolUse", "session_id": "s1", "tool_name": "Bash",
               "tool_input": {"command": "cat secret"}, "transcript_path": "/secret", "prompt": "secret"}),
    ] {
        let answer = app.post("/api/activity/hook", &alice, hook).await;
        assert_eq!((answer.status, answer.body), (StatusCode::ACCEPTED, json!({})));
    }
    let types = app.types_of_page("?events=hook.*,session.*", &alice).await;
    assert_eq!(types, ["hook.post_tool_use", "hook.session_start", "session.started"]);
    let page = app.get("/api/activity?events=hook.*,session.*", &alice).await;
    assert!(!page.body.to_string().contains("secret"), "{}", page.body);
    let not_a_hook = app.post("/api/activity/hook", &alice, json!({"session_id": "s1"})).await;
    assert_eq!(not_a_hook.body["error"]["details"][0]["path"], "/hook_event_name", "{}", not_a_hook.body);
}

#[tokio::test]
async fn the_types_are_listed_with_their_schemas() {
    let app = app();
    let answer = app.get("/api/activity/types", &token("alice", "acme")).await;
    let types = answer.body["types"].as_array().expect("types");
    let log_line = types.iter().find(|known| known["type"] == "log.line").expect("log.line");
    assert_eq!(log_line["highVolume"], true);
    assert_eq!(log_line["schema"]["properties"]["level"]["enum"][0], "trace");
    assert!(types.iter().any(|known| known["family"] == "hook."));
}

#[tokio::test]
async fn without_activity_its_routes_are_switched_off() {
    let app = App::new();
    let alice = reporter("alice", "acme");
    for path in ["/api/activity", "/api/activity/types"] {
        let answer = app.get(path, &alice).await;
        assert_eq!(
            (answer.status, &answer.body["error"]["code"]),
            (StatusCode::FORBIDDEN, &json!("feature_disabled"))
        );
    }
    for path in ["/api/activity", "/api/activity/hook"] {
        assert_eq!(app.post(path, &alice, story(0)).await.body["error"]["code"], "feature_disabled");
    }
}
