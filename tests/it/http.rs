//! Tests the HTTP routes over the embedded store, without a socket.

mod activity;
mod admin;
mod edge;
mod health;
mod metrics;
mod tasks;
mod timeline;
mod webhooks;
mod writes;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use taskcast::{
    auth::{
        ClaimNames, DEFAULT_MAX_TOKEN_BYTES, Grant, Key, Revocations, TokenSigner, TokenVerifier, UnixTime,
    },
    cluster::{Cluster, NodeCommand},
    config::{Origins, Secret, TaskApi, WebhookConfig},
    http::{
        ClusterHealth, GatewayStatus, HealthReport, HttpState, RelayHealth, Routes, StoreHealth, Webhook,
        WebsocketHealth, router,
    },
    metrics::Phase,
    store::{BatchedReads, EmbeddedConfig, EmbeddedStore, Store},
    task::DefaultOrg,
};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

const SECRET: &[u8] = b"a secret that is only ever used by these tests";
const WEBHOOK_SECRETS: [&str; 2] = ["the newer webhook secret", "the older webhook secret"];
const ORIGIN: &str = "http://localhost:5173";

/// A router with its store.
struct App {
    router: Router,
    state: HttpState,
    store: Arc<dyn Store>,
    /// The commands that the gateway would receive.
    commands: Mutex<mpsc::Receiver<NodeCommand>>,
    /// `None` means that the store needs no folder.
    _folder: Option<tempfile::TempDir>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// `Null` means that the body is empty.
    body: Value,
}

#[derive(Debug)]
struct FixedStatus(HealthReport);

impl GatewayStatus for FixedStatus {
    fn report(&self) -> HealthReport {
        self.0.clone()
    }

    fn measure(&self) {}
}

impl App {
    fn new() -> Self {
        Self::with(TaskApi::Full)
    }

    fn with(task_api: TaskApi) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config =
            EmbeddedConfig { data_dir: folder.path().to_owned(), default_org: DefaultOrg::default() };
        let store = Arc::new(EmbeddedStore::open(config).expect("opened"));
        Self { _folder: Some(folder), ..Self::over(store, task_api, well()) }
    }

    fn over(store: Arc<dyn Store>, task_api: TaskApi, report: HealthReport) -> Self {
        let webhook = WebhookConfig { secrets: WEBHOOK_SECRETS.map(Secret::new).to_vec() };
        Self::built(store, task_api, report, &webhook)
    }

    fn without_webhooks() -> Self {
        let app = Self::new();
        Self {
            _folder: app._folder,
            ..Self::built(app.store, TaskApi::Full, well(), &WebhookConfig { secrets: Vec::new() })
        }
    }

    fn built(
        store: Arc<dyn Store>,
        task_api: TaskApi,
        report: HealthReport,
        webhook: &WebhookConfig,
    ) -> Self {
        let (command_sender, commands) = mpsc::channel(8);
        let revocations = Arc::<Revocations>::default();
        let cluster = Cluster::alone(revocations.clone(), command_sender, Instant::now());
        let tokens = TokenVerifier {
            keys: Key::secret(SECRET).into(),
            claims: ClaimNames::default(),
            issuer: None,
            audience: None,
            max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
            default_org: DefaultOrg::default(),
            revocations,
        };
        let state = HttpState {
            store: store.clone(),
            reads: Arc::new(BatchedReads::new(store.clone())),
            tokens: Arc::new(tokens),
            task_api,
            reporting: None,
            status: Arc::new(FixedStatus(report)),
            cluster,
            metrics: Arc::default(),
            metrics_token: None,
            webhook: Arc::new(Webhook::new(webhook)),
        };
        Self {
            router: app(Routes::Public, state.clone()),
            state,
            store,
            commands: Mutex::new(commands),
            _folder: None,
        }
    }

    /// The same app with other routes.
    fn serving(self, routes: Routes, metrics_token: Option<Secret>) -> Self {
        let state = HttpState { metrics_token, ..self.state.clone() };
        Self { router: app(routes, state), ..self }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = match &bytes[..] {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes).expect("every body is JSON"),
        };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(request("GET", path, token).body(Body::empty()).expect("valid")).await
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.send_json("POST", path, token, body).await
    }

    async fn patch(&self, path: &str, token: &str, body: Value) -> Answer {
        self.send_json("PATCH", path, token, body).await
    }

    async fn send_json(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let request = request(method, path, token).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).expect("valid")).await
    }

    /// Creates a task with this token and returns its id.
    async fn create(&self, token: &str, body: Value) -> String {
        let answer = self.post("/api/tasks", token, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        answer.body["_id"].as_str().expect("an id").to_owned()
    }
}

impl Answer {
    fn is_error(&self, status: u16, code: &str, message: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.body, json!({"error": {"code": code, "message": message}}));
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

fn app(routes: Routes, state: HttpState) -> Router {
    router(routes, state, Origins::parse(ORIGIN).expect("an origin"), TaskTracker::new(), Router::new())
}

fn request(method: &str, path: &str, token: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"))
}

fn token(user: &str, org: &str) -> String {
    sign(user, org, None, UnixTime::now())
}

/// A token with the scope that the pipeline needs for writing.
fn pipeline_token(org: &str) -> String {
    sign("pipeline", org, Some("openid tasks:write"), UnixTime::now())
}

fn sign(user: &str, org: &str, scope: Option<&str>, issued: UnixTime) -> String {
    let grant = Grant {
        user: user.to_owned(),
        org: Some(org.to_owned()),
        name: Some(format!("{user}'s name")),
        scope: scope.map(str::to_owned),
        ttl: Duration::from_secs(60),
    };
    TokenSigner::new(SECRET, ClaimNames::default(), None, None).sign(&grant, issued).expect("signed")
}

fn well() -> HealthReport {
    HealthReport {
        status: Phase::Ok,
        websocket: WebsocketHealth {
            connected_users: 2,
            connections: 3,
            messages_per_second: 1.5,
            total_errors: 4,
        },
        relay: RelayHealth { lag_ms: 7, epoch: 1, last_event_id: None },
        store: StoreHealth { kind: "embedded", ok: true },
        cluster: ClusterHealth { ok: true, nodes: Vec::new() },
    }
}
