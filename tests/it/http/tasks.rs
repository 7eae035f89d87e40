//! Tests the task API.

use super::*;

const ABSENT: &str = "/api/tasks/507f1f77bcf86cd799439011";

/// The `eventId` of an answer, and the rest.
fn split(mut body: Value) -> (Value, Value) {
    let event_id = body.as_object_mut().expect("an object").shift_remove("eventId").expect("an eventId");
    (event_id, body)
}

#[tokio::test]
async fn a_task_is_created_and_shown() {
    let app = App::new();
    let alice = token("alice", "acme");
    let body = json!({"title": "Fix it", "description": "hidden", "repo": "acme/app", "isPrivate": false});
    let created = app.post("/api/tasks", &alice, body).await;
    assert_eq!(created.status, StatusCode::ACCEPTED);
    let id = created.body["_id"].as_str().expect("an id");
    let now = &created.body["createdAt"];
    let expected = json!({
        "_id": id, "taskId": id, "title": "Fix it", "status": "received", "creator": "alice's name",
        "createdBy": "alice", "orgId": "acme", "isPrivate": false, "createdAt": now, "updatedAt": now,
        "repo": "acme/app", "issueNumber": null, "githubIssueNumber": null, "issueUrl": null,
        "githubIssueUrl": null, "githubBranch": null, "prNumber": null, "githubPrNumber": null,
        "prUrl": null, "githubPrUrl": null, "prTitle": null, "prState": null, "mergeCommitSha": null,
        "mergedAt": null, "errorMessage": null, "questions": null, "clarificationAnswers": null,
        "events": [],
    });
    let (created_at, view) = split(created.body.clone());
    assert_eq!((created_at, view), (json!(null), expected.clone()));
    let path = format!("/api/tasks/{id}");
    assert_eq!(created.header("location"), Some(&*path));
    for reader in [alice, token("bob", "acme")] {
        let shown = app.get(&path, &reader).await;
        let (read_at, view) = split(shown.body);
        assert_eq!((shown.status, view), (StatusCode::OK, expected.clone()));
        assert!(read_at.as_str().expect("a position").ends_with("-ffffff-ffffff"), "{read_at}");
    }
}

#[tokio::test]
async fn an_invalid_task_is_refused_and_the_error_names_the_field() {
    let app = App::new();
    let alice = token("alice", "acme");
    let cases = [
        (json!({}), "title must be a non-empty string"),
        (json!({"title": " "}), "title must be a non-empty string of at most 500 characters"),
        (json!({"title": "t", "isPrivate": "yes"}), "isPrivate must be true or false"),
        (json!({"title": "t", "repo": "app"}), "repo must be \"owner/name\""),
        (
            json!({"title": "t", "orgId": "evil"}),
            "orgId can't be written; see docs/http.md for the fields that can",
        ),
    ];
    for (body, message) in cases {
        app.post("/api/tasks", &alice, body).await.is_error(400, "invalid_payload", message);
    }
    assert_eq!(app.get("/api/tasks", &alice).await.body["tasks"], json!([]));
}

#[tokio::test]
async fn absent_and_forbidden_tasks_get_the_same_answer() {
    let app = App::new();
    let alice = token("alice", "acme");
    let private = app.create(&alice, json!({"title": "t", "isPrivate": true})).await;
    let shared = app.create(&alice, json!({"title": "t"})).await;
    for (path, who) in [
        (ABSENT.to_owned(), token("alice", "acme")),
        ("/api/tasks/not-an-id".to_owned(), token("alice", "acme")),
        ("/api/tasks/%FF".to_owned(), token("alice", "acme")),
        (format!("/api/tasks/{shared}"), token("eve", "evil")),
        (format!("/api/tasks/{private}"), token("bob", "acme")),
        (format!("/api/tasks/{shared}"), token("eve", "")),
    ] {
        app.get(&path, &who).await.is_error(404, "not_found", "no such task");
        let answered = app.post(&format!("{path}/clarify"), &who, json!({"answers": ["a"]})).await;
        answered.is_error(404, "not_found", "no such task");
    }
    for path in [ABSENT.to_owned(), format!("/api/tasks/{shared}"), format!("/api/tasks/{private}")] {
        let patched = app.patch(&path, &pipeline_token("evil"), json!({"status": "coding"})).await;
        patched.is_error(404, "not_found", "no such task");
    }
    assert_eq!(app.get(&format!("/api/tasks/{private}"), &alice).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_list_has_the_tasks_that_the_user_may_see_page_by_page() {
    let app = App::new();
    let (alice, bob) = (token("alice", "acme"), token("bob", "acme"));
    let mut expected = Vec::new();
    for n in 0..5 {
        expected.insert(0, app.create(&alice, json!({"title": n.to_string()})).await);
        app.create(&bob, json!({"title": "his own", "isPrivate": true})).await;
        app.create(&token("eve", "evil"), json!({"title": "elsewhere"})).await;
    }
    let whole = app.get("/api/tasks", &alice).await;
    assert_eq!(whole.status, StatusCode::OK);
    let ids = |body: &Value| -> Vec<String> {
        let tasks = body["tasks"].as_array().expect("an array");
        tasks.iter().map(|task| task["_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&whole.body), expected);
    assert_eq!(whole.body["nextCursor"], json!(null));
    let summary = whole.body["tasks"][0].as_object().expect("an object");
    assert_eq!(summary["title"], "4");
    for absent in ["events", "questions", "clarificationAnswers"] {
        assert!(!summary.contains_key(absent));
    }

    let (mut seen, mut path) = (Vec::new(), "/api/tasks?limit=2".to_owned());
    loop {
        let page = app.get(&path, &alice).await;
        seen.extend(ids(&page.body));
        let Some(cursor) = page.body["nextCursor"].as_str() else { break };
        path = format!("/api/tasks?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, expected);
    let all = app.get("/api/tasks?status=&creator=&limit=&cursor=&other=1", &bob).await;
    assert_eq!(all.body["tasks"].as_array().expect("an array").len(), 10);
    let his = app.get("/api/tasks?creator=bob&status=received&limit=200", &bob).await;
    assert_eq!(his.body["tasks"].as_array().expect("an array").len(), 5);
    let (read_at, none) = split(app.get("/api/tasks?status=merged", &bob).await.body);
    assert_eq!(none, json!({"tasks": [], "nextCursor": null}));
    assert!(read_at.as_str() >= whole.body["eventId"].as_str() && read_at.is_string());
}

#[tokio::test]
async fn an_invalid_parameter_is_refused_and_the_error_names_it() {
    let app = App::new();
    let alice = token("alice", "acme");
    for bad in ["0", "201", "-1", "many", "1.5", "99999999999999999999"] {
        let answer = app.get(&format!("/api/tasks?limit={bad}"), &alice).await;
        answer.is_error(400, "invalid_payload", "limit must be a whole number from 1 to 200");
    }
    for bad in ["x", "%00", "Og", "YWJjOmRlZg"] {
        let answer = app.get(&format!("/api/tasks?cursor={bad}"), &alice).await;
        answer.is_error(400, "invalid_payload", "cursor must be a nextCursor of an earlier answer");
    }
    let twice = app.get("/api/tasks?status=coding&status=failed", &alice).await;
    twice.is_error(400, "invalid_payload", "status must be given once");
}

#[tokio::test]
async fn answers_are_accepted_only_while_the_task_needs_clarification() {
    let app = App::new();
    let (alice, bob, pipeline) = (token("alice", "acme"), token("bob", "acme"), pipeline_token("acme"));
    let path = format!("/api/tasks/{}", app.create(&alice, json!({"title": "t"})).await);
    let clarify = format!("{path}/clarify");
    let answers = json!({"answers": ["blue"]});
    app.post(&clarify, &bob, answers.clone()).await.is_error(
        409,
        "conflict",
        "answers can be given only while the status is needs_clarification; it is received",
    );
    let asked = json!({"status": "needs_clarification", "questions": ["Which colour?"]});
    assert_eq!(app.patch(&path, &pipeline, asked).await.status, StatusCode::OK);
    for bad in [json!({}), json!({"answers": []}), json!({"answers": "blue"}), json!({"answers": [1]})] {
        let message = "answers must be a non-empty array of at most 100 strings of at most 20000 characters";
        app.post(&clarify, &bob, bad).await.is_error(400, "invalid_payload", message);
    }
    let answered = app.post(&clarify, &bob, answers).await;
    assert_eq!(answered.status, StatusCode::ACCEPTED);
    assert_eq!(answered.body["status"], "analyzing");
    assert_eq!(answered.body["clarificationAnswers"], json!(["blue"]));
    assert_eq!(answered.body["events"][0]["eventType"], "clarified");
    let ((read_at, read), (written_at, written)) =
        (split(app.get(&path, &alice).await.body), split(answered.body));
    assert_eq!(read, written);
    assert!(read_at.as_str() > written_at.as_str() && written_at.is_string(), "{read_at} {written_at}");
}

#[tokio::test]
async fn only_the_pipeline_changes_the_status_of_tasks() {
    let app = App::new();
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    let path = format!("/api/tasks/{}", app.create(&alice, json!({"title": "t"})).await);
    let refused = app.patch(&path, &alice, json!({"status": "merged"})).await;
    refused.is_error(403, "forbidden", "the token lacks the scope tasks:write");
    let challenge = r#"Bearer realm="taskcast", error="insufficient_scope""#;
    assert_eq!(refused.header("www-authenticate"), Some(challenge));
    // The scope is checked before the answer reveals anything about the task.
    app.patch(ABSENT, &alice, json!("not even an object")).await.is_error(
        403,
        "forbidden",
        "the token lacks the scope tasks:write",
    );

    let body = json!({
        "status": "pr_open", "prNumber": 7, "prUrl": "https://github.test/7", "prState": "open",
        "event": {"eventType": "pr_opened", "payload": {"token": "t"}},
    });
    let patched = app.patch(&path, &pipeline, body).await;
    assert_eq!(patched.status, StatusCode::OK);
    assert_eq!((&patched.body["prNumber"], &patched.body["githubPrNumber"]), (&json!(7), &json!(7)));
    assert_eq!(patched.body["events"][0]["payload"], json!({"token": "[redacted]"}));
    app.patch(&path, &pipeline, json!({"status": "received"})).await.is_error(
        409,
        "conflict",
        "a task that is pr_open can't be moved to received",
    );
    assert_eq!(app.patch(&path, &pipeline, json!({"status": "merged"})).await.status, StatusCode::OK);
    app.patch(&path, &pipeline, json!({"status": "coding"})).await.is_error(
        409,
        "conflict",
        "a task that is merged can't be moved to coding",
    );
    for (body, message) in [
        (json!({}), "the body changes nothing: give a status, a field or an event"),
        (json!({"status": "done"}), "status must be one of the statuses in docs/http.md"),
        (json!({"_id": "x"}), "_id can't be written; see docs/http.md for the fields that can"),
    ] {
        app.patch(&path, &pipeline, body).await.is_error(400, "invalid_payload", message);
    }
}

#[tokio::test]
async fn the_task_api_offers_only_what_is_configured() {
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    for (api, reads) in [(TaskApi::Off, false), (TaskApi::Read, true)] {
        let app = App::with(api);
        let writes = [
            app.post("/api/tasks", &alice, json!({"title": "t"})).await,
            app.post(&format!("{ABSENT}/clarify"), &alice, json!({"answers": ["a"]})).await,
            app.patch(ABSENT, &pipeline, json!({"title": "t"})).await,
        ];
        for refused in writes {
            assert_eq!(refused.status, StatusCode::FORBIDDEN);
            assert_eq!(refused.body["error"]["code"], "feature_disabled");
        }
        let (list, show) = (app.get("/api/tasks", &alice).await, app.get(ABSENT, &alice).await);
        let page = app.get(&format!("{ABSENT}/events"), &alice).await;
        if reads {
            assert_eq!(split(list.body).1, json!({"tasks": [], "nextCursor": null}));
            show.is_error(404, "not_found", "no such task");
            page.is_error(404, "not_found", "no such task");
        } else {
            for refused in [list, show, page] {
                refused.is_error(403, "feature_disabled", "the task API is switched off");
            }
        }
    }
}

/// Sends this text as the body. The JSON libraries of Rust would not write such a text.
async fn send_text(app: &App, method: &str, path: &str, token: &str, text: impl Into<Body>) -> Answer {
    let request = request(method, path, token).header("content-type", "application/json");
    app.send(request.body(text.into()).expect("valid")).await
}

/// JavaScript writes a string that was cut inside an emoji as `"\ud83d"`.
#[tokio::test]
async fn half_of_an_emoji_becomes_the_replacement_character_in_every_body() {
    let app = App::new();
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    let text = r#"{"title":"cut \ud83d \uDC00\ud83d, whole \ud83d\uDE00, told \\ud83d"}"#;
    let created = send_text(&app, "POST", "/api/tasks", &alice, text).await;
    assert_eq!(created.status, StatusCode::ACCEPTED, "{}", created.body);
    assert_eq!(created.body["title"], "cut \u{fffd} \u{fffd}\u{fffd}, whole 😀, told \\ud83d");
    let path = format!("/api/tasks/{}", created.body["_id"].as_str().expect("an id"));

    let text =
        r#"{"status":"needs_clarification","event":{"eventType":"asked","payload":{"k\udfff":["\ud800"]}}}"#;
    let patched = send_text(&app, "PATCH", &path, &pipeline, text).await;
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.body);
    assert_eq!(patched.body["events"][0]["payload"], json!({"k\u{fffd}": ["\u{fffd}"]}));

    let text = r#"{"answers":["\ud83d"]}"#;
    let clarified = send_text(&app, "POST", &format!("{path}/clarify"), &alice, text).await;
    assert_eq!(clarified.status, StatusCode::ACCEPTED, "{}", clarified.body);
    assert_eq!(clarified.body["clarificationAnswers"], json!(["\u{fffd}"]));
    let shown = app.get(&path, &alice).await;
    assert_eq!(split(shown.body).1, split(clarified.body).1, "what is stored is what was answered");
}

#[tokio::test]
async fn half_of_an_emoji_is_one_character_of_a_length() {
    let app = App::new();
    let alice = token("alice", "acme");
    let title = |halves: usize| format!(r#"{{"title":"{}"}}"#, r"\ud83d".repeat(halves));
    let answer = send_text(&app, "POST", "/api/tasks", &alice, title(500)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    let message = "title must be a non-empty string of at most 500 characters";
    send_text(&app, "POST", "/api/tasks", &alice, title(501)).await.is_error(400, "invalid_payload", message);
}

/// Neither CESU-8, in which other programs write halves of surrogate pairs, nor another encoding is valid UTF-8.
#[tokio::test]
async fn a_body_or_a_path_that_is_not_utf_8_is_refused_by_name() {
    let app = App::new();
    let alice = token("alice", "acme");
    for title in [&b"\xed\xa0\xbd"[..], b"\xed\xa0\xbd\xed\xb8\x80", b"caf\xe9"] {
        let text = [&b"{\"title\":\""[..], title, b"\"}"].concat();
        let answer = send_text(&app, "POST", "/api/tasks", &alice, text).await;
        answer.is_error(400, "invalid_payload", "the body is not UTF-8: send JSON in UTF-8");
    }
    app.get("/api/tasks/%ED%A0%BD", &alice).await.is_error(404, "not_found", "no such task");
    let listed = app.get("/api/tasks?status=%ED%A0%BD", &alice).await;
    assert_eq!((listed.status, &listed.body["tasks"]), (StatusCode::OK, &json!([])));
}
