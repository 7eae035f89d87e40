//! Tests the headers of writes, `Idempotency-Key` and `If-Match`, and the `eventId` of their answers.

use super::*;

async fn send(
    app: &App,
    (method, path): (&str, &str),
    token: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let mut request = request(method, path, token).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::from(body.to_string())).expect("valid")).await
}

fn key(key: &str) -> [(&str, &str); 1] {
    [("idempotency-key", key)]
}

const CREATE: (&str, &str) = ("POST", "/api/tasks");

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let app = App::new();
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    let first = send(&app, CREATE, &alice, &key("k"), &json!({"title": "t"})).await;
    // The same content, written in another way.
    let second = send(&app, CREATE, &alice, &key("k"), &json!({"isPrivate": false, "title": "t"})).await;
    assert_eq!((first.status, second.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("location"), second.header("location"));
    assert_eq!(app.get("/api/tasks", &alice).await.body["tasks"].as_array().expect("an array").len(), 1);

    let path = first.header("location").expect("a location").to_owned();
    let body = json!({"status": "needs_clarification", "event": {"eventType": "asked"}});
    let patched = send(&app, ("PATCH", &path), &pipeline, &key("k"), &body).await;
    let clarify = format!("{path}/clarify");
    let answers = json!({"answers": ["a"]});
    let clarified = send(&app, ("POST", &clarify), &alice, &key("k"), &answers).await;
    let again = send(&app, ("POST", &clarify), &alice, &key("k"), &answers).await;
    assert_eq!((again.status, &again.body), (StatusCode::ACCEPTED, &clarified.body));

    // The repeated answer shows the task as it is now, with the position of the first write.
    let again = send(&app, ("PATCH", &path), &pipeline, &key("k"), &body).await;
    assert_eq!((again.status, &again.body["status"]), (StatusCode::OK, &json!("analyzing")));
    assert_eq!(again.body["eventId"], patched.body["eventId"]);
    assert!(again.body["eventId"].is_string());
    assert_eq!(again.body["events"].as_array().expect("an array").len(), 2);
}

#[tokio::test]
async fn a_key_for_another_request_is_refused() {
    let app = App::new();
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    let message = "this Idempotency-Key was used for another request: give each request a key of its own";
    let ids =
        [app.create(&alice, json!({"title": "t"})).await, app.create(&alice, json!({"title": "u"})).await];
    let [one, other] = ids.map(|id| format!("/api/tasks/{id}"));
    let body = json!({"title": "v"});
    assert_eq!(send(&app, ("PATCH", &one), &pipeline, &key("k"), &body).await.status, StatusCode::OK);
    for (path, body) in [(&one, json!({"title": "w"})), (&other, body.clone())] {
        let refused = send(&app, ("PATCH", path), &pipeline, &key("k"), &body).await;
        refused.is_error(422, "idempotency_key_reused", message);
    }
    assert_eq!(app.get(&other, &alice).await.body["title"], "u");
    // Another route and another user have keys of their own.
    assert_eq!(send(&app, CREATE, &pipeline, &key("k"), &body).await.status, StatusCode::ACCEPTED);
    assert_eq!(send(&app, CREATE, &alice, &key("k"), &body).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_repeated_request_shows_only_what_its_user_may_see_now() {
    let app = App::new();
    let (alice, bob, pipeline) = (token("alice", "acme"), token("bob", "acme"), pipeline_token("acme"));
    let path = format!("/api/tasks/{}", app.create(&alice, json!({"title": "t"})).await);
    let asked = json!({"status": "needs_clarification"});
    assert_eq!(app.patch(&path, &pipeline, asked).await.status, StatusCode::OK);
    let (clarify, answers) = (format!("{path}/clarify"), json!({"answers": ["a"]}));
    let clarified = send(&app, ("POST", &clarify), &bob, &key("k"), &answers).await;
    assert_eq!(clarified.status, StatusCode::ACCEPTED);
    let private = json!({"isPrivate": true, "title": "hidden from bob"});
    let patched = send(&app, ("PATCH", &path), &pipeline, &key("p"), &private).await;
    assert_eq!(patched.status, StatusCode::OK);
    let again = send(&app, ("POST", &clarify), &bob, &key("k"), &answers).await;
    again.is_error(404, "not_found", "no such task");
    // The pipeline may write the task, although its user does not see it.
    let again = send(&app, ("PATCH", &path), &pipeline, &key("p"), &private).await;
    assert_eq!((again.status, again.body), (StatusCode::OK, patched.body));
}

#[tokio::test]
async fn an_invalid_header_is_refused_and_nothing_is_written() {
    let app = App::new();
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    let too_long = "k".repeat(129);
    for bad in ["", "a b", &too_long] {
        let message = "Idempotency-Key must be given once, and be 1 to 128 visible ASCII characters";
        let refused = send(&app, CREATE, &alice, &key(bad), &json!({"title": "t"})).await;
        refused.is_error(400, "invalid_payload", message);
    }
    assert_eq!(app.get("/api/tasks", &alice).await.body["tasks"], json!([]));
    let path = format!("/api/tasks/{}", app.create(&alice, json!({"title": "t"})).await);
    for bad in ["*", "W/\"x\"", "yesterday"] {
        let message = "If-Match must be given once, and be the eventId of an answer, a state or an event";
        let refused =
            send(&app, ("PATCH", &path), &pipeline, &[("if-match", bad)], &json!({"title": "u"})).await;
        refused.is_error(400, "invalid_payload", message);
    }
    assert_eq!(app.get(&path, &alice).await.body["title"], "t");
}

#[tokio::test]
async fn a_write_with_an_old_position_is_refused() {
    let app = App::new();
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    let path = format!("/api/tasks/{}", app.create(&alice, json!({"title": "t"})).await);
    let event_id = |answer: &Answer| answer.body["eventId"].as_str().expect("an eventId").to_owned();
    let read = event_id(&app.get(&path, &alice).await);
    let condition = [("if-match", &*read)];
    let asked = json!({"status": "needs_clarification"});
    let patched = send(&app, ("PATCH", &path), &pipeline, &condition, &asked).await;
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.body);

    let message =
        "the task has changed after the eventId of If-Match: read it again, and decide again what to write";
    let refused = send(&app, ("PATCH", &path), &pipeline, &condition, &json!({"title": "u"})).await;
    refused.is_error(412, "precondition_failed", message);
    let (clarify, answers) = (format!("{path}/clarify"), json!({"answers": ["a"]}));
    let refused = send(&app, ("POST", &clarify), &alice, &condition, &answers).await;
    refused.is_error(412, "precondition_failed", message);
    let quoted = format!("\"{}\"", event_id(&patched));
    let accepted = send(&app, ("POST", &clarify), &alice, &[("if-match", &quoted)], &answers).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.body);
}

#[tokio::test]
async fn a_change_that_causes_no_event_in_the_room_has_no_position() {
    let app = App::new();
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    let created = app.post("/api/tasks", &alice, json!({"title": "t"})).await;
    assert_eq!(created.body.get("eventId"), Some(&Value::Null));
    let path = created.header("location").expect("a location").to_owned();
    let hidden = app.patch(&path, &pipeline, json!({"description": "no client sees it"})).await;
    assert_eq!(hidden.body.get("eventId"), Some(&Value::Null));
}
