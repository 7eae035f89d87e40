//! Tests GitHub's webhook: which deliveries are accepted, and what they are answered.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use super::*;

const PATH: &str = "/api/webhooks/github";
const LIMIT: usize = 25 << 20;

pub fn opened() -> Vec<u8> {
    let payload = json!({
        "action": "opened",
        "repository": {"full_name": "acme/web"},
        "pull_request": {"number": 7, "title": "t", "body": "Fixes #42", "updated_at": "2026-01-02T03:04:05Z"},
    });
    payload.to_string().into_bytes()
}

fn signature(body: &[u8], secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body);
    let digits = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256={digits}")
}

/// A request with these headers. A header with an empty value is left out.
fn with(headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method("POST").uri(PATH);
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    request.body(body).expect("valid")
}

fn headers<'a>(id: &'a str, event: &'a str, signature: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("content-type", "application/json"),
        ("x-github-delivery", id),
        ("x-github-event", event),
        ("x-hub-signature-256", signature),
    ]
}

/// Sends a signed delivery as GitHub does.
pub async fn deliver(app: &App, id: &str, event: &str, body: &[u8]) -> Answer {
    let signature = signature(body, WEBHOOK_SECRETS[0]);
    app.send(with(&headers(id, event, &signature), Body::from(body.to_vec()))).await
}

async fn task_with_issue(app: &App) -> String {
    let id = app.create(&token("alice", "acme"), json!({"title": "t", "repo": "Acme/Web"})).await;
    let patched =
        app.patch(&format!("/api/tasks/{id}"), &pipeline_token("acme"), json!({"issueNumber": 42})).await;
    assert_eq!(patched.status, StatusCode::OK);
    id
}

async fn events(app: &App, id: &str) -> usize {
    let answer = app.get(&format!("/api/tasks/{id}"), &token("alice", "acme")).await;
    answer.body["events"].as_array().expect("an array").len()
}

#[tokio::test]
async fn a_delivery_is_written_once() {
    let app = App::new();
    let id = task_with_issue(&app).await;
    let answer = deliver(&app, "d1", "pull_request", &opened()).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!({"ok": true})));
    let answer = deliver(&app, "d1", "pull_request", &opened()).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!({"ok": true, "duplicate": true})));
    let task = app.get(&format!("/api/tasks/{id}"), &token("alice", "acme")).await.body;
    assert_eq!((&task["status"], &task["githubPrNumber"]), (&json!("pr_open"), &json!(7)));
    assert_eq!(task["events"].as_array().map(Vec::len), Some(1));
    assert!(!task.to_string().contains("githubPrSeen"));
}

#[tokio::test]
async fn a_delivery_that_concerns_no_task_is_accepted_and_leaves_no_mark() {
    let app = App::new();
    let ping = deliver(&app, "p", "ping", br#"{"zen": "z", "hook_id": 1}"#).await;
    assert_eq!((ping.status, ping.body), (StatusCode::OK, json!({"ok": true})));
    let star = deliver(&app, "s", "star", br#"{"action": "created"}"#).await;
    assert_eq!(
        (star.status, star.body),
        (StatusCode::ACCEPTED, json!({"ignored": "this event is not used"}))
    );
    let early = deliver(&app, "d", "pull_request", &opened()).await;
    assert_eq!((early.status, early.body), (StatusCode::ACCEPTED, json!({"ignored": "no task matches it"})));
    let id = task_with_issue(&app).await;
    assert_eq!(deliver(&app, "d", "pull_request", &opened()).await.body, json!({"ok": true}));
    assert_eq!(events(&app, &id).await, 1);
}

#[tokio::test]
async fn a_signature_with_any_of_the_secrets_is_accepted() {
    let app = App::new();
    let id = task_with_issue(&app).await;
    let body = opened();
    for (n, secret) in WEBHOOK_SECRETS.into_iter().enumerate() {
        let (delivery, signature) = (n.to_string(), signature(&body, secret));
        let answer =
            app.send(with(&headers(&delivery, "pull_request", &signature), Body::from(body.clone()))).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(events(&app, &id).await, 2);
}

#[tokio::test]
async fn without_a_secret_the_webhook_is_unavailable() {
    let message = "this gateway accepts no webhooks: GITHUB_WEBHOOK_SECRET is not set";
    let app = App::without_webhooks();
    deliver(&app, "d", "pull_request", &opened()).await.is_error(503, "unavailable", message);
    app.post(PATH, "", json!({})).await.is_error(503, "unavailable", message);
}

/// The signature is checked first. A wrong content type, a missing event and invalid JSON are not reported before.
#[tokio::test]
async fn an_unsigned_delivery_learns_only_that_the_signature_is_wrong() {
    let app = App::new();
    let id = task_with_issue(&app).await;
    let body = opened();
    let right = signature(&body, WEBHOOK_SECRETS[0]);
    let digits = &right["sha256=".len()..];
    for (sent, message) in [
        ("", "X-Hub-Signature-256 is required: give the webhook the secret that the gateway has"),
        (&right[..70], WRONG),
        (digits, WRONG),
        (&format!("sha1={digits}"), WRONG),
        (&format!("sha256={}", "zz".repeat(32)), WRONG),
        (&signature(&body, "guessed"), WRONG),
        (&signature(b"another body", WEBHOOK_SECRETS[0]), WRONG),
    ] {
        let all = headers("d", "pull_request", sent);
        app.send(with(&all, Body::from(body.clone()))).await.is_error(401, "unauthorized", message);
        let nothing_else = [("x-hub-signature-256", sent), ("content-type", "text/plain")];
        app.send(with(&nothing_else, Body::from(body.clone()))).await.is_error(401, "unauthorized", message);
    }
    let twice = [&headers("d", "pull_request", &right)[..], &[("x-hub-signature-256", &right)]].concat();
    assert_eq!(app.send(with(&twice, Body::from(body.clone()))).await.status, StatusCode::UNAUTHORIZED);
    let sha1 = [
        ("x-hub-signature", "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6"),
        ("content-type", "application/json"),
    ];
    assert_eq!(app.send(with(&sha1, Body::from(body))).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(events(&app, &id).await, 0);
}

const WRONG: &str = "X-Hub-Signature-256 is not right: the webhook has another secret than the gateway";

#[tokio::test]
async fn a_signed_delivery_that_can_not_be_used_is_answered_with_the_reason() {
    let app = App::new();
    let body = opened();
    let right = signature(&body, WEBHOOK_SECRETS[0]);
    for missing in [headers("", "pull_request", &right), headers("d", "", &right)] {
        let message = "X-GitHub-Event and X-GitHub-Delivery are required, one of each";
        app.send(with(&missing, Body::from(body.clone()))).await.is_error(400, "invalid_payload", message);
    }
    let mut form = headers("d", "pull_request", &right);
    form[0].1 = "application/x-www-form-urlencoded";
    let message = "the body must be sent as application/json";
    app.send(with(&form, Body::from(body))).await.is_error(415, "unsupported_media_type", message);
    for (body, message) in [
        (&b"{\"action\":"[..], "the body is not JSON (line 1, column 10)"),
        (b"{\"action\": \"\xff\"}", "the body is not UTF-8"),
        (b"", "the body is not JSON (line 1, column 0)"),
        (b"[]", "the body is not a JSON object"),
        (b"{\"action\": 7}", "the payload does not have the format of this event (line 1, column 12)"),
    ] {
        deliver(&app, "d", "pull_request", body).await.is_error(400, "invalid_payload", message);
    }
}

#[tokio::test]
async fn bodies_are_accepted_up_to_the_size_that_github_sends() {
    let app = App::new();
    let id = task_with_issue(&app).await;
    let body = opened();
    // The padding is in a string, because an unoptimised build reads a string faster than spaces between members.
    let padded = |length: usize| {
        let start = &body[..body.len() - 1];
        let padding = vec![b'x'; length - start.len() - br#","padding":""}"#.len()];
        [start, br#","padding":""#, &padding, br#""}"#].concat()
    };
    assert_eq!(deliver(&app, "just", "pull_request", &padded(LIMIT)).await.status, StatusCode::OK);
    let large = padded(LIMIT + 1);
    let right = signature(&large, WEBHOOK_SECRETS[0]);
    let message = "the body is larger than 26214400 bytes";
    let chunks =
        large.chunks(1 << 20).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    let streamed = Body::from_stream(futures_util::stream::iter(chunks));
    app.send(with(&headers("d", "pull_request", &right), streamed)).await.is_error(
        413,
        "payload_too_large",
        message,
    );
    let length = large.len().to_string();
    let declared = [&headers("d", "pull_request", "")[..], &[("content-length", &length)]].concat();
    app.send(with(&declared, Body::from(large))).await.is_error(413, "payload_too_large", message);
    assert_eq!(events(&app, &id).await, 1);
}

/// The signature covers the bytes as GitHub sent them.
#[tokio::test]
async fn half_of_an_emoji_in_a_delivery_becomes_the_replacement_character() {
    let app = App::new();
    let id = task_with_issue(&app).await;
    let body =
        String::from_utf8(opened()).expect("text").replace(r#""title":"t""#, r#""title":"cut \ud83d""#);
    assert!(body.contains("ud83d"), "{body}");
    let answer = deliver(&app, "d1", "pull_request", body.as_bytes()).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!({"ok": true})));
    let task = app.get(&format!("/api/tasks/{id}"), &token("alice", "acme")).await.body;
    assert_eq!((&task["status"], &task["prTitle"]), (&json!("pr_open"), &json!("cut \u{fffd}")));
    assert_eq!(task["events"][0]["payload"]["prTitle"], "cut \u{fffd}");

    let replaced = body.replace(r"\ud83d", r"\ufffd");
    let signature = signature(body.as_bytes(), WEBHOOK_SECRETS[0]);
    let answer = app.send(with(&headers("d2", "pull_request", &signature), Body::from(replaced))).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

/// A user may type the URL with a slash at its end into GitHub's form.
#[tokio::test]
async fn a_trailing_slash_in_the_webhooks_url_makes_no_difference() {
    let app = App::new();
    let id = task_with_issue(&app).await;
    let at = |path: &str, method: &str, delivery: &str, body: &[u8]| {
        let signature = signature(body, WEBHOOK_SECRETS[0]);
        let mut request = with(&headers(delivery, "pull_request", &signature), Body::from(body.to_vec()));
        *request.uri_mut() = path.parse().expect("a path");
        *request.method_mut() = method.parse().expect("a method");
        app.send(request)
    };
    let answer = at("/api/webhooks/github/", "POST", "d1", &opened()).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!({"ok": true})));
    let answer = at("/api/webhooks/github", "POST", "d1", &opened()).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!({"ok": true, "duplicate": true})));
    assert_eq!(events(&app, &id).await, 1);
    let answer = at("/api/webhooks/github/?source=github", "POST", "d1", &opened()).await;
    assert_eq!(answer.status, StatusCode::OK);
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let (plain, slash) =
            (at(PATH, method, "d", b"").await, at("/api/webhooks/github/", method, "d", b"").await);
        assert_eq!(slash.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!((slash.header("allow"), &slash.body), (plain.header("allow"), &plain.body), "{method}");
    }
    for path in
        ["/api/webhooks/github//", "/api/webhooks/github/x", "/api/webhooks//github", "/api/webhooks/"]
    {
        assert_eq!(at(path, "POST", "d", b"").await.status, StatusCode::NOT_FOUND, "{path}");
    }
}
