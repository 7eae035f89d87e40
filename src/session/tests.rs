//! Sessions over a connection that a test reads, with a clock that the test moves. The store is the embedded one.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json, value::RawValue};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::*;
use crate::{
    auth::{Identity, UnixTime},
    cluster::Cluster,
    config::{Config, Sources},
    fanout::{Hub, Limits, SendError, run_feed_loop},
    metrics::{Metrics, Transport},
    store::{EmbeddedConfig, EmbeddedStore, Store},
    task::{DefaultOrg, NewTask, OrgId, UserId, Viewer},
    wire::{Content, Message, RequestId},
};
use std::sync::Arc;

const SECRET: &str = "a-secret-of-more-than-32-bytes-for-tests";

/// A clock that stands still until the test moves it.
#[derive(Debug)]
struct TestClock(watch::Sender<UnixTime>);

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        *self.0.borrow()
    }

    fn sleep_until(&self, time: UnixTime) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut times = self.0.subscribe();
        Box::pin(async move {
            let _ = times.wait_for(|now| *now >= time).await;
        })
    }
}

/// A connection that accepts `capacity` messages until the test reads them.
#[derive(Debug)]
struct TestConnection {
    capacity: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Message>,
    is_closing: bool,
    is_closed: bool,
    was_full: bool,
}

impl Connection for TestConnection {
    fn send(&self, message: Message) -> Result<bool, SendError> {
        let mut state = self.state.lock();
        if state.is_closing || state.is_closed {
            return Err(SendError::Closed);
        }
        if state.queue.len() >= self.capacity {
            state.was_full = true;
            return Err(SendError::Full(message));
        }
        state.queue.push(message);
        self.changed.notify_waiters();
        Ok(false)
    }

    fn send_now(&self, message: Message) {
        self.state.lock().queue.push(message);
        self.changed.notify_waiters();
    }

    fn flush(&self) {}

    fn close_in_order(self: Arc<Self>, _: CloseReason) {
        self.state.lock().is_closing = true;
        self.changed.notify_waiters();
    }

    fn close_now(self: Arc<Self>, _: CloseReason) {
        self.state.lock().is_closed = true;
        self.changed.notify_waiters();
    }

    fn last_progress(&self) -> Option<Instant> {
        None
    }

    fn transport(&self) -> Transport {
        Transport::Websocket
    }

    fn span(&self) -> Span {
        Span::none()
    }
}

impl TestConnection {
    /// Reads messages up to the next refusal that is no reply.
    async fn refusal(&self) -> Value {
        self.until(|state| {
            let mut messages = state.queue.drain(..);
            messages.find_map(|message| match message.content() {
                Content::Refused { payload } => Some(serde_json::from_str(payload).expect("JSON")),
                _ => None,
            })
        })
        .await
    }

    /// Waits until the connection's state has something.
    async fn until<T>(&self, mut find: impl FnMut(&mut State) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = find(&mut self.state.lock()) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the connection changes in time")
    }

    /// Reads messages up to the reply to this request.
    async fn reply(&self, id: u64) -> Value {
        self.until(|state| {
            let mut messages = state.queue.drain(..);
            messages.find_map(|message| match message.content() {
                Content::Reply { id: of, payload } if *of == RequestId::Number(id) => {
                    Some(serde_json::from_str(payload).expect("JSON"))
                }
                _ => None,
            })
        })
        .await
    }

    /// Reads messages up to the next event with this name.
    async fn event(&self, wanted: &str) -> Value {
        self.until(|state| {
            while !state.queue.is_empty() {
                let message = state.queue.remove(0);
                if let Content::Event { name, payload, .. } = message.content()
                    && *name == wanted
                {
                    return Some(serde_json::from_str(payload).expect("JSON"));
                }
            }
            None
        })
        .await
    }

    async fn is_closing(&self) {
        self.until(|state| state.is_closing.then_some(())).await;
    }

    async fn is_closed(&self) {
        self.until(|state| state.is_closed.then_some(())).await;
    }
}

/// Sessions over an embedded store in a temporary folder.
struct Node {
    sessions: Arc<Sessions>,
    store: Arc<dyn Store>,
    clock: Arc<TestClock>,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

impl Node {
    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_of_process(settings, Instant::now()).await
    }

    /// A node whose process is older than two minutes.
    async fn start_in_old_process() -> Self {
        let started = Instant::now().checked_sub(Duration::from_secs(121)).expect("a time");
        Self::start_of_process(&[], started).await
    }

    async fn start_of_process(settings: &[(&str, &str)], process_started: Instant) -> Self {
        let secret = [("JWT_SECRET", SECRET)];
        let settings = secret.iter().chain(settings).map(|(name, value)| ((*name).into(), (*value).into()));
        let config = Config::read(&Sources::new(settings)).expect("settings");
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("data");
        let store: Arc<dyn Store> = Arc::new(
            EmbeddedStore::open(EmbeddedConfig { data_dir, default_org: DefaultOrg::default() })
                .expect("a store"),
        );
        let metrics = Arc::<Metrics>::default();
        let limits = Limits {
            ring_bytes: 1 << 20,
            replay_events: 64,
            patience: Duration::from_secs(10),
            behind_messages: 64,
        };
        let hub = Arc::new(Hub::new(limits, metrics.clone()));
        let verifier = Arc::new(config.tokens().expect("tokens").verifier.clone());
        let (command_sender, commands) = mpsc::channel(16);
        let cluster = Cluster::alone(verifier.revocations.clone(), command_sender, process_started);
        let clock = Arc::new(TestClock(watch::Sender::new(UnixTime::from_secs(1_000))));
        let sessions = Arc::new(Sessions::new(
            SessionSettings { features: config.features.clone(), limits: config.limits.clone() },
            hub.clone(),
            store.clone(),
            verifier,
            cluster,
            clock.clone(),
            metrics.clone(),
        ));
        store.prepare().await.expect("a store");
        let (items, feed) = mpsc::channel(16);
        let following = store.clone();
        tokio::spawn(async move { following.follow(items, CancellationToken::new()).await });
        tokio::spawn(run_feed_loop(hub, feed, 1_000));
        let (clocked, commanded) = (sessions.clone(), sessions.clone());
        tokio::spawn(async move { clocked.run_timers().await });
        tokio::spawn(async move { commanded.run_commands(commands).await });
        Self { sessions, store, clock, metrics, _folder: folder }
    }

    fn connect(&self, user: &str, capacity: usize) -> Client {
        let connection =
            Arc::new(TestConnection { capacity, state: Mutex::default(), changed: Notify::new() });
        let session = self.sessions.open(connection.clone(), identity(user, 2_000));
        self.sessions.begin(&session);
        Client { sessions: self.sessions.clone(), session, connection }
    }

    async fn task(&self, title: &str) -> String {
        let task = NewTask::parse(json!({"title": title})).expect("a task");
        self.store.create(task, &viewer("ann"), None).await.expect("created").task.id.to_string()
    }
}

fn viewer(user: &str) -> Viewer {
    Viewer { user: UserId::parse(user).expect("a user"), org: OrgId::parse("acme") }
}

fn identity(user: &str, expires_at: u64) -> Identity {
    Identity {
        viewer: viewer(user),
        name: None,
        scopes: Vec::new(),
        issued_at: Some(UnixTime::from_secs(900)),
        expires_at: UnixTime::from_secs(expires_at),
    }
}

struct Client {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    connection: Arc<TestConnection>,
}

impl Client {
    fn send(&self, name: &str, payload: &Value, id: u64) {
        let raw = RawValue::from_string(payload.to_string()).expect("JSON");
        let incoming = Incoming { name, arguments: &[&raw], id: Some(id.into()), is_binary: false };
        if self.sessions.may_send(&self.session, Some(&incoming)) {
            self.sessions.receive(&self.session, incoming);
        }
    }

    async fn ask(&self, name: &str, payload: Value, id: u64) -> Value {
        self.send(name, &payload, id);
        self.connection.reply(id).await
    }

    /// Returns whether a resync that names no room sends the dashboard. The reply to a later request follows everything that the
    /// resync sends.
    async fn bare_resync_sends_dashboard(&self) -> bool {
        self.send("resync_requested", &json!({}), 1_000);
        self.send("task:leave", &json!({"taskId": "x"}), 1_001);
        let messages = self.connection.until(|state| {
            let is_last = |message: &Message| {
                matches!(message.content(), Content::Reply { id: RequestId::Number(1_001), .. })
            };
            state.queue.iter().any(is_last).then(|| std::mem::take(&mut state.queue))
        });
        let is_state = |message: &Message| matches!(message.content(), Content::Event { name, .. } if *name == "dashboard:state");
        messages.await.iter().any(is_state)
    }
}

#[tokio::test]
async fn a_session_begins_with_its_own_id_and_joins_get_a_state_and_then_the_events() {
    let node = Node::start(&[]).await;
    let client = node.connect("ann", 100);
    let first = client.connection.until(|state| state.queue.first().cloned()).await;
    assert!(matches!(first.content(), Content::Connected { .. }), "{first:?}");

    let task = node.task("A task").await;
    client.send("task:join", &json!({"taskId": task}), 1);
    let state = client.connection.event("task:state").await;
    assert_eq!(state["title"], "A task");
    assert_eq!(client.connection.reply(1).await, json!({"ok": true}));

    let patch = crate::task::TaskPatch::parse(json!({"status": "analyzing"})).expect("a patch");
    let id = crate::task::TaskId::parse(&task).expect("an id");
    node.store.patch(&id, &viewer("ann"), patch).await.expect("patched");
    assert_eq!(client.connection.event("task:analyzing").await["taskId"], task.as_str());
}

#[tokio::test]
async fn requests_are_answered_in_the_order_in_which_they_came() {
    let node = Node::start(&[]).await;
    let client = node.connect("ann", 1_000);
    let task = node.task("A task").await;
    for id in 0..20 {
        let name = if id % 2 == 0 { "task:join" } else { "task:leave" };
        client.send(name, &json!({"taskId": task}), id);
    }
    let replies = client
        .connection
        .until(|state| {
            let replies: Vec<u64> = (state.queue.iter())
                .filter_map(|message| match message.content() {
                    Content::Reply { id: RequestId::Number(id), .. } => Some(*id),
                    _ => None,
                })
                .collect();
            (replies.len() == 20).then_some(replies)
        })
        .await;
    assert_eq!(replies, (0..20).collect::<Vec<_>>());
    assert_eq!(client.ask("resync_requested", json!({}), 21).await["ok"], true);
}

#[tokio::test]
async fn unknown_and_malformed_requests_are_refused_and_the_session_goes_on() {
    let node = Node::start(&[]).await;
    let client = node.connect("ann", 100);
    let refused = |reply: Value| (reply["ok"].clone(), reply["error"]["code"].clone());
    let invalid = (json!(false), json!("invalid_payload"));
    assert_eq!(refused(client.ask("task:explode", json!({}), 1).await), invalid);
    assert_eq!(refused(client.ask("task:join", json!({"taskId": 5}), 2).await), invalid);
    assert_eq!(refused(client.ask("task:join", json!([]), 3).await), invalid);
    let absent = client.ask("task:join", json!({"taskId": "65a000000000000000000001"}), 4).await;
    assert_eq!(refused(absent), (json!(false), json!("not_found")));
    assert_eq!(client.ask("dashboard:join", json!({}), 5).await["ok"], true);
}

#[tokio::test]
async fn a_session_ends_when_its_token_expires() {
    let node = Node::start(&[]).await;
    let client = node.connect("ann", 100);
    assert_eq!(client.ask("dashboard:join", json!({}), 1).await["ok"], true);
    node.clock.0.send_replace(UnixTime::from_secs(1_999));
    assert_eq!(client.ask("dashboard:join", json!({}), 2).await["ok"], true, "the token is still valid");
    node.clock.0.send_replace(UnixTime::from_secs(2_000));
    assert_eq!(client.connection.refusal().await["code"], "token_expired");
    client.connection.is_closing().await;
    client.connection.is_closed().await;
    assert!(client.session.has_ended());
    assert_eq!(node.sessions.connected(), (0, 0));
}

#[tokio::test]
async fn the_oldest_session_of_a_user_with_too_many_is_closed() {
    let node = Node::start(&[("MAX_CONNECTIONS_PER_USER", "2")]).await;
    let clients = [node.connect("ann", 100), node.connect("ann", 100), node.connect("ann", 100)];
    clients[0].connection.is_closing().await;
    assert!(!clients[1].session.has_ended() && !clients[2].session.has_ended());
    assert_eq!(node.sessions.connected(), (2, 1));
}

#[tokio::test]
async fn a_user_who_was_disconnected_gets_no_session_with_an_older_token() {
    let node = Node::start(&[]).await;
    let user = UserId::parse("ann").expect("a user");
    node.sessions.cluster.disconnect(user, UnixTime::from_secs(1_000)).await;
    let client = node.connect("ann", 100);
    assert_eq!(client.connection.refusal().await["code"], "unauthorized");
    client.connection.is_closed().await;
    assert_eq!(node.sessions.connected(), (0, 0));
}

#[tokio::test]
async fn a_client_that_ignores_refusals_is_closed() {
    let node = Node::start(&[]).await;
    let client = node.connect("ann", usize::MAX);
    for id in 0..20_000 {
        client.send("task:leave", &json!({"taskId": "x"}), id);
    }
    client.connection.is_closed().await;
    assert!(client.session.has_ended());
    assert!(node.metrics.clients.errors.get() > 0);
}

#[tokio::test]
async fn answers_that_did_not_fit_follow_when_the_client_has_read() {
    let node = Node::start(&[]).await;
    let client = node.connect("ann", 2);
    for id in 1..=5 {
        client.send("task:leave", &json!({"taskId": "x"}), id);
    }
    let mut replies = Vec::new();
    while replies.len() < 5 {
        let read = client
            .connection
            .until(|state| {
                (state.queue.len() == 2 || state.was_full).then(|| std::mem::take(&mut state.queue))
            })
            .await;
        client.session.report_space();
        replies.extend(read.into_iter().filter_map(|message| match message.content() {
            Content::Reply { id: RequestId::Number(id), .. } => Some(*id),
            _ => None,
        }));
        tokio::task::yield_now().await;
    }
    assert_eq!(replies, [1, 2, 3, 4, 5]);
}

/// The existing client does not join again after a reconnect. It only requests a resync.
#[tokio::test]
async fn a_bare_resync_sends_the_dashboard_only_to_a_user_who_lost_it_without_leaving() {
    let node = Node::start_in_old_process().await;
    assert!(!node.connect("never", 100).bare_resync_sends_dashboard().await);

    let lost = node.connect("lost", 100);
    assert_eq!(lost.ask("dashboard:join", json!({}), 1).await["ok"], true);
    node.sessions.end(&lost.session, true);
    assert!(node.connect("lost", 100).bare_resync_sends_dashboard().await);

    let left = node.connect("left", 100);
    assert_eq!(left.ask("dashboard:join", json!({}), 1).await["ok"], true);
    assert_eq!(left.ask("dashboard:leave", json!({}), 2).await["ok"], true);
    node.sessions.end(&left.session, true);
    assert!(!node.connect("left", 100).bare_resync_sends_dashboard().await);
}

/// A process that has just started does not know who lost the dashboard before the start.
#[tokio::test]
async fn a_bare_resync_soon_after_the_start_sends_the_dashboard_to_every_user() {
    let node = Node::start(&[]).await;
    assert!(node.connect("never", 100).bare_resync_sends_dashboard().await);
}
