//! Tests the rules for every route: tokens, bodies, ids, origins, and errors that reveal no internal details.

use std::{collections::HashMap, convert::Infallible};

use async_trait::async_trait;
use futures_util::FutureExt;
use taskcast::{
    feed::FeedItem,
    github::Delivery,
    store::{
        AccessSnapshot, Cursor, DashboardSnapshot, Delivered, Page, StoreError, TaskFilter, TaskSnapshot,
        WriteError, WriteOutcome, WriteRequest,
    },
    task::{OrgId, TaskId, UserId, Viewer, Window},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;

const NO_TOKEN: &str = "a bearer token is required";

#[tokio::test]
async fn unknown_routes_and_methods_are_json() {
    let app = App::new();
    for path in ["/", "/api", "/api/task", "/api/tasks/", "/api/tasks/a/b", "/metrics", "/socket.io/"] {
        app.get(path, "").await.is_error(404, "not_found", "no such route");
    }
    let methods = [
        ("DELETE", "/api/tasks", "GET,HEAD,POST"),
        ("PUT", "/api/tasks/x", "GET,HEAD,PATCH"),
        ("GET", "/api/tasks/x/clarify", "POST"),
        ("POST", "/api/tasks/x/events", "GET,HEAD"),
        ("POST", "/api/health", "GET,HEAD"),
        ("GET", "/api/webhooks/github", "POST"),
    ];
    for (method, path, allow) in methods {
        let answer = app.send_json(method, path, "", json!({})).await;
        answer.is_error(405, "method_not_allowed", "this route does not have that method");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn every_task_route_needs_a_token() {
    let app = App::new();
    let routes = [
        ("GET", "/api/tasks"),
        ("POST", "/api/tasks"),
        ("GET", "/api/tasks/507f1f77bcf86cd799439011"),
        ("PATCH", "/api/tasks/507f1f77bcf86cd799439011"),
        ("POST", "/api/tasks/507f1f77bcf86cd799439011/clarify"),
        ("GET", "/api/tasks/507f1f77bcf86cd799439011/events"),
    ];
    for (method, path) in routes {
        let bare = Request::builder().method(method).uri(path).body(Body::empty()).expect("valid");
        let answer = app.send(bare).await;
        answer.is_error(401, "unauthorized", NO_TOKEN);
        assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="taskcast""#));

        let answer = app.send_json(method, path, "no.good.token", json!({})).await;
        answer.is_error(401, "unauthorized", "the token is not valid");
        let challenge = r#"Bearer realm="taskcast", error="invalid_token""#;
        assert_eq!(answer.header("www-authenticate"), Some(challenge));

        let expired = sign("alice", "acme", Some("tasks:write"), UnixTime::from_secs(1_000_000));
        let answer = app.send_json(method, path, &expired, json!({})).await;
        answer.is_error(401, "token_expired", "the token has expired");
        assert_eq!(answer.header("www-authenticate"), Some(challenge));
    }
}

#[tokio::test]
async fn only_one_bearer_header_counts() {
    let app = App::new();
    let good = token("alice", "acme");
    let with = |values: Vec<String>| {
        let mut request = Request::builder().uri("/api/tasks");
        for value in values {
            request = request.header("authorization", value);
        }
        request.body(Body::empty()).expect("valid")
    };
    assert_eq!(app.send(with(vec![format!("bearer  {good}")])).await.status, StatusCode::OK);
    for values in [
        vec![format!("Bearer {good}"), format!("Bearer {good}")],
        vec![format!("Basic {good}")],
        vec![good.clone()],
        vec!["Bearer ".to_owned()],
    ] {
        app.send(with(values)).await.is_error(401, "unauthorized", NO_TOKEN);
    }
    let query =
        Request::builder().uri(format!("/api/tasks?token={good}")).body(Body::empty()).expect("valid");
    app.send(query).await.is_error(401, "unauthorized", NO_TOKEN);
}

#[tokio::test]
async fn bodies_are_json_of_limited_size() {
    let app = App::new();
    let alice = token("alice", "acme");
    let send = |content_type: Option<&'static str>, body: Vec<u8>| {
        let mut request = request("POST", "/api/tasks", &alice);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        app.send(request.body(Body::from(body)).expect("valid"))
    };
    let fine = br#"{"title": "t"}"#;
    for good in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
        assert_eq!(send(Some(good), fine.to_vec()).await.status, StatusCode::ACCEPTED);
    }
    for bad in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json")] {
        let message = "the body must be sent as application/json";
        send(bad, fine.to_vec()).await.is_error(415, "unsupported_media_type", message);
    }
    let json_type = Some("application/json");
    send(json_type, b"{\"title\":".to_vec()).await.is_error(
        400,
        "invalid_payload",
        "the body is not JSON (line 1, column 9)",
    );
    for not_json in [&b""[..], b"{} {}", b"\xff", &b"[".repeat(100_000)] {
        let answer = send(json_type, not_json.to_vec()).await;
        assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"]), (400, &json!("invalid_payload")));
    }
    send(json_type, b"[]".to_vec()).await.is_error(400, "invalid_payload", "the body must be a JSON object");
    let large = vec![b' '; (1 << 20) + 1];
    let message = "the body is larger than 1048576 bytes";
    send(json_type, large).await.is_error(413, "payload_too_large", message);
    let just = [&vec![b' '; (1 << 20) - fine.len()][..], fine].concat();
    assert_eq!(send(json_type, just).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_valid_request_id_is_echoed_and_any_other_is_replaced() {
    let app = App::new();
    let answered = async |id: Option<&[u8]>| {
        let mut request = Request::builder().uri("/no/such");
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let answer = app.send(request.body(Body::empty()).expect("valid")).await;
        answer.header("x-request-id").expect("an id").to_owned()
    };
    let longest = "x".repeat(128);
    for sane in ["abc-123", "{\"~!", &longest] {
        assert_eq!(answered(Some(sane.as_bytes())).await, sane);
    }
    let made = answered(None).await;
    assert_eq!(made.len(), 36);
    assert_ne!(answered(None).await, made);
    for odd in [&b""[..], b"with space", b"tab\tbed", b"\xc3\xa4", "x".repeat(129).as_bytes()] {
        assert_eq!(answered(Some(odd)).await.len(), 36, "{odd:?}");
    }
}

#[tokio::test]
async fn only_configured_origins_may_read_answers() {
    let app = App::new();
    let from = |method: &str, origin: &str| {
        Request::builder()
            .method(method)
            .uri("/api/tasks")
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization,content-type,x-request-id")
            .body(Body::empty())
            .expect("valid")
    };
    let preflight = app.send(from("OPTIONS", ORIGIN)).await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET,POST,PATCH"));
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        Some("authorization,content-type,x-request-id")
    );
    assert_eq!(preflight.header("access-control-allow-credentials"), None);
    let refused = app.send(from("GET", ORIGIN)).await;
    refused.is_error(401, "unauthorized", NO_TOKEN);
    assert_eq!(refused.header("access-control-allow-origin"), Some(ORIGIN), "so that a page can read why");

    let lookalikes =
        ["http://localhost:51730", "https://localhost:5173", "http://localhost:5173.evil.test", "null", "*"];
    for other in lookalikes {
        for method in ["OPTIONS", "GET"] {
            assert_eq!(app.send(from(method, other)).await.header("access-control-allow-origin"), None);
        }
    }
}

/// Pages with Sentry, OpenTelemetry or their own headers ask for headers that taskcast does not know.
#[tokio::test]
async fn a_preflight_allows_every_header_to_an_allowed_origin_and_none_to_others() {
    let app = App::new();
    let ask = |origin: &str, path: &str, more: &[(&str, &str)]| {
        let request = Request::builder().method("OPTIONS").uri(path).header("origin", origin);
        let request = more
            .iter()
            .fold(request.header("access-control-request-method", "PATCH"), |request, (name, value)| {
                request.header(*name, *value)
            });
        app.send(request.body(Body::empty()).expect("valid"))
    };
    let asked = [
        ("access-control-request-headers", "authorization,baggage,sentry-trace,traceparent,x-tenant"),
        ("access-control-request-private-network", "true"),
    ];
    for path in ["/api/tasks", "/api/tasks/x", "/api/health", "/no/such"] {
        let answer = ask(ORIGIN, path, &asked).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        for (name, value) in [
            ("access-control-allow-origin", ORIGIN),
            ("access-control-allow-headers", asked[0].1),
            ("access-control-allow-methods", "GET,POST,PATCH"),
            ("access-control-allow-private-network", "true"),
            ("access-control-max-age", "3600"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
    let bare = ask(ORIGIN, "/api/tasks", &[]).await;
    assert_eq!(bare.header("access-control-allow-headers"), None, "nothing was asked for");
    assert_eq!(bare.header("access-control-allow-private-network"), None);

    for other in ["https://evil.test", "null", "file://", "https://localhost:5173", "http://localhost:5173/"]
    {
        let answer = ask(other, "/api/tasks", &asked).await;
        let told = answer.headers.keys().filter(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(told.collect::<Vec<_>>(), Vec::<&http::HeaderName>::new(), "{other}");
        assert_eq!(answer.header("vary"), Some("Origin"), "{other}");
    }
    let read = app
        .send(
            Request::builder()
                .uri("/api/health")
                .header("origin", ORIGIN)
                .body(Body::empty())
                .expect("valid"),
        )
        .await;
    assert_eq!(read.header("access-control-expose-headers"), Some("x-request-id,retry-after,location"));
    assert_eq!(read.header("vary"), Some("Origin"));
}

#[tokio::test]
async fn answers_are_not_cached_and_their_type_is_not_guessed() {
    let app = App::new();
    for path in ["/api/health", "/api/tasks", "/no/such"] {
        let answer = app.get(path, &token("alice", "acme")).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test]
async fn an_unreachable_store_is_reported_as_a_temporary_error() {
    let app = App::over(Arc::new(Broken { passing: true }), TaskApi::Full, well());
    for answer in ask_everything(&app).await {
        answer.is_error(503, "unavailable", "the store can't be reached at the moment");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
}

#[tokio::test]
async fn internal_errors_do_not_reveal_their_reason() {
    let app = App::over(Arc::new(Broken { passing: false }), TaskApi::Full, well());
    for answer in ask_everything(&app).await {
        let message = "something went wrong; see the log entry with this response's x-request-id";
        answer.is_error(500, "internal", message);
        assert_eq!(answer.header("retry-after"), None);
    }
}

/// The maximum number of concurrent requests wait for their bodies. Health requests are answered nevertheless.
#[tokio::test]
async fn requests_above_the_limit_are_refused_at_once() {
    let app = App::new();
    let alice = token("alice", "acme");
    let slow = |user: &str| {
        let body = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, Infallible>>());
        let request = request("POST", "/api/tasks", &token(user, "acme"));
        let request = request.header("content-type", "application/json").body(body).expect("valid");
        Box::pin(app.send(request))
    };
    // One user can have only a part of the concurrent requests.
    let mut held: Vec<_> = (0..64).map(|_| slow("0")).collect();
    assert!(held.iter_mut().all(|answer| answer.as_mut().now_or_never().is_none()));
    slow("0").await.is_error(503, "overloaded", "the server is handling too many requests");
    assert_eq!(app.get("/api/tasks", &alice).await.status, StatusCode::OK);
    for n in 64..512 {
        let mut answer = slow(&(n / 64).to_string());
        assert!(answer.as_mut().now_or_never().is_none(), "{n}");
        held.push(answer);
    }
    let answer = app.get("/api/tasks", &alice).await;
    answer.is_error(503, "overloaded", "the server is handling too many requests");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(app.get("/api/health", "").await.status, StatusCode::OK);
    assert_eq!(
        webhooks::deliver(&app, "d", "ping", br#"{"zen": "z", "hook_id": 1}"#).await.status,
        StatusCode::OK
    );
    drop(held);
    assert_eq!(app.get("/api/tasks", &alice).await.status, StatusCode::OK);
}

async fn ask_everything(app: &App) -> [Answer; 7] {
    let (alice, pipeline) = (token("alice", "acme"), pipeline_token("acme"));
    [
        app.get("/api/tasks", &alice).await,
        app.get("/api/tasks/x", &alice).await,
        app.get("/api/tasks/x/events", &alice).await,
        app.post("/api/tasks", &alice, json!({"title": "t"})).await,
        app.post("/api/tasks/x/clarify", &alice, json!({"answers": ["a"]})).await,
        app.patch("/api/tasks/x", &pipeline, json!({"title": "t"})).await,
        webhooks::deliver(app, "d", "pull_request", &webhooks::opened()).await,
    ]
}

/// A store that fails every request, with a reason that clients must not see.
#[derive(Debug)]
struct Broken {
    passing: bool,
}

impl Broken {
    fn error(&self) -> StoreError {
        let reason = "mongodb://user:password@internal.host".to_owned();
        if self.passing { StoreError::Unavailable(reason) } else { StoreError::Unusable(reason) }
    }
}

#[async_trait]
impl Store for Broken {
    async fn close(&self) {}

    fn kind(&self) -> &'static str {
        "broken"
    }
    async fn prepare(&self) -> Result<(), StoreError> {
        Err(self.error())
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Err(self.error())
    }
    async fn follow(&self, _: mpsc::Sender<FeedItem>, _: CancellationToken) -> Result<(), StoreError> {
        Err(self.error())
    }
    async fn accesses(&self, _: &[TaskId]) -> Result<HashMap<TaskId, AccessSnapshot>, StoreError> {
        Err(self.error())
    }
    async fn task_parts(&self, _: &[TaskId], _: Window) -> Result<HashMap<TaskId, TaskSnapshot>, StoreError> {
        Err(self.error())
    }
    async fn dashboards(
        &self,
        _: Option<&OrgId>,
        _: &[UserId],
        _: usize,
    ) -> Result<HashMap<UserId, Arc<DashboardSnapshot>>, StoreError> {
        Err(self.error())
    }
    async fn list(
        &self,
        _: &Viewer,
        _: &TaskFilter,
        _: Option<&Cursor>,
        _: usize,
    ) -> Result<Page, StoreError> {
        Err(self.error())
    }
    async fn write(&self, _: WriteRequest) -> Result<WriteOutcome, WriteError> {
        Err(self.error().into())
    }
    async fn deliver(&self, _: Delivery) -> Result<Delivered, WriteError> {
        Err(self.error().into())
    }
}
