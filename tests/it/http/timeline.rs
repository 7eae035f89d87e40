//! Tests the pages of a timeline.

use super::*;

/// Creates a task with this many entries and returns the path of its timeline.
async fn long(app: &App, entries: usize) -> String {
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    let path = format!("/api/tasks/{}", app.create(&alice, json!({"title": "t"})).await);
    for n in 0..entries {
        let event = json!({"eventType": "step", "payload": {"n": n, "apiKey": "k"}});
        assert_eq!(app.patch(&path, &pipeline, json!({"event": event})).await.status, StatusCode::OK);
    }
    path
}

fn numbers(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().expect("an array").iter();
    events.map(|event| event["payload"]["n"].as_u64().expect("a number")).collect()
}

#[tokio::test]
async fn pages_lead_to_the_beginning() {
    let app = App::new();
    let path = long(&app, 7).await;
    let bob = token("bob", "acme");
    let (mut seen, mut query, mut pages) = (Vec::new(), "?limit=3".to_owned(), 0);
    loop {
        let page = app.get(&format!("{path}/events{query}"), &bob).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert_eq!(page.body["total"], json!(7 + pages));
        seen.splice(0..0, numbers(&page.body));
        // Entries that are appended meanwhile do not move the pages.
        let event = json!({"event": {"eventType": "later", "payload": {"n": 100}}});
        app.patch(&path, &pipeline_token("acme"), event).await;
        pages += 1;
        let Some(next) = page.body["nextBefore"].as_u64() else { break };
        query = format!("?limit=3&before={next}");
    }
    assert_eq!((seen, pages), ((0..7).collect(), 3));
}

#[tokio::test]
async fn a_page_has_the_requested_entries() {
    let app = App::new();
    let path = long(&app, 5).await;
    let alice = token("alice", "acme");
    for (query, expected, next) in [
        ("", &[0, 1, 2, 3, 4][..], json!(null)),
        ("?before=&limit=&other=1&other=2", &[0, 1, 2, 3, 4], json!(null)),
        ("?limit=1000", &[0, 1, 2, 3, 4], json!(null)),
        ("?limit=2", &[3, 4], json!(3)),
        ("?before=3&limit=2", &[1, 2], json!(1)),
        ("?before=1&limit=2", &[0], json!(null)),
        ("?before=0", &[], json!(null)),
        ("?before=18446744073709551615&limit=1", &[4], json!(4)),
    ] {
        let page = app.get(&format!("{path}/events{query}"), &alice).await;
        assert_eq!(page.status, StatusCode::OK, "{query}: {}", page.body);
        assert_eq!((&*numbers(&page.body), &page.body["nextBefore"]), (expected, &next), "{query}");
        assert_eq!(page.body["total"], json!(5));
        assert_eq!(page.body["eventId"].as_str().map(str::len), Some(30), "{}", page.body);
        assert_eq!(page.body.as_object().expect("an object").len(), 4);
    }
    let whole = app.get(&path, &alice).await.body;
    let page = app.get(&format!("{path}/events"), &alice).await.body;
    assert_eq!(page["events"], whole["events"]);
    assert_eq!(page["events"][0]["payload"], json!({"n": 0, "apiKey": "[redacted]"}));
}

#[tokio::test]
async fn a_page_has_two_hundred_entries_unless_more_are_requested() {
    let app = App::new();
    let path = long(&app, 203).await;
    let alice = token("alice", "acme");
    let page = app.get(&format!("{path}/events"), &alice).await.body;
    assert_eq!((numbers(&page), &page["nextBefore"]), ((3..203).collect(), &json!(3)));
    let page = app.get(&format!("{path}/events?limit=1000"), &alice).await.body;
    assert_eq!((numbers(&page), &page["nextBefore"]), ((0..203).collect(), &json!(null)));
    // The answer with the whole task still has all entries.
    let shown = app.get(&path, &alice).await.body;
    assert_eq!(shown["events"].as_array().map(Vec::len), Some(203));
    assert!(shown.get("eventsOmitted").is_none());
}

#[tokio::test]
async fn an_invalid_parameter_is_refused_and_the_error_names_it() {
    let app = App::new();
    let alice = token("alice", "acme");
    let path = format!("{}/events", long(&app, 1).await);
    for bad in ["0", "1001", "-1", "many", "1.5", "99999999999999999999"] {
        let answer = app.get(&format!("{path}?limit={bad}"), &alice).await;
        answer.is_error(400, "invalid_payload", "limit must be a whole number from 1 to 1000");
    }
    for bad in ["-1", "many", "1.5", "99999999999999999999", "%00", "6b0048d100000002-000000-000001"] {
        let answer = app.get(&format!("{path}?before={bad}"), &alice).await;
        answer.is_error(400, "invalid_payload", "before must be a whole number, 0 or more");
    }
    let twice = app.get(&format!("{path}?before=1&before=2"), &alice).await;
    twice.is_error(400, "invalid_payload", "before must be given once");
}

#[tokio::test]
async fn the_timeline_of_a_task_that_the_user_may_not_see_is_not_found() {
    let app = App::new();
    let shared = long(&app, 1).await;
    let private = app.create(&token("alice", "acme"), json!({"title": "t", "isPrivate": true})).await;
    for (path, who) in [
        ("/api/tasks/507f1f77bcf86cd799439011".to_owned(), token("alice", "acme")),
        ("/api/tasks/%FF".to_owned(), token("alice", "acme")),
        (shared.clone(), token("eve", "evil")),
        (shared, token("eve", "")),
        (format!("/api/tasks/{private}"), token("bob", "acme")),
        (format!("/api/tasks/{private}"), pipeline_token("acme")),
    ] {
        let answer = app.get(&format!("{path}/events"), &who).await;
        answer.is_error(404, "not_found", "no such task");
    }
}
