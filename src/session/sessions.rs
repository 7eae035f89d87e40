//! All sessions of this node: how they begin, what their clients send, and how they end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tracing::Instrument;

use super::{
    Clock, CloseReason, Connection, Session, SessionPeer, expiry::Expiries, registry::Registry,
    session::Request, snapshots::Snapshots, throughput::Throughput,
};
use crate::{
    auth::{AuthError, Identity, TokenVerifier},
    cluster::{Cluster, NodeCommand},
    config::{FeaturesConfig, LimitsConfig},
    fanout::{Hub, PeerId},
    metrics::{CutReason, HandshakeOutcome, Metrics},
    rate_limit::RateLimit,
    rate_limited_log::rate_limited_log,
    store::Store,
    task::{OrgId, UserId},
    wire::{ClientEvent, ClientEventName, Code, Message, Refusal, RequestId},
};

/// The rate limit for all messages of one user on this node. A page that joins all its rooms sends hundreds at once, and all pages
/// of a user may do so after a deploy.
const MESSAGES_PER_SECOND: u32 = 200;
const MESSAGE_BURST: u32 = 10_000;
/// The rate limit for refusals of a user's messages. A user with more refused messages ignores the refusals, and is disconnected.
const WARNINGS_PER_SECOND: u32 = 50;
const WARNING_BURST: u32 = 1000;
/// The rate limit for `auth:refresh` of one user: each checks a token. Further requests wait until the limit admits them.
const REFRESHES_PER_SECOND: u32 = 10;
/// How often idle rate limits and other old entries are removed.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct SessionSettings {
    pub features: FeaturesConfig,
    pub limits: LimitsConfig,
}

/// A request of a client. Its transport has removed the framing.
#[derive(Clone, Debug)]
pub struct Incoming<'a> {
    pub name: &'a str,
    /// JSON that has not been parsed, because it may be nested deeper than a parser should follow.
    pub arguments: &'a [&'a RawValue],
    /// The client waits for a reply with this id.
    pub id: Option<RequestId>,
    /// The message has binary attachments, which no request has.
    pub is_binary: bool,
}

/// The user of a session, as its client sees it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionUser<'a> {
    user_id: &'a UserId,
    name: Option<&'a str>,
    org_id: Option<&'a OrgId>,
}

#[derive(Debug)]
pub struct Sessions {
    pub(super) settings: SessionSettings,
    pub(super) hub: Arc<Hub<SessionPeer>>,
    pub(super) snapshots: Snapshots,
    pub(super) tokens: Arc<TokenVerifier>,
    pub(super) join_limit: RateLimit,
    pub(super) refresh_limit: RateLimit,
    message_limit: RateLimit,
    warning_limit: RateLimit,
    pub(super) cluster: Arc<Cluster>,
    expiries: Expiries,
    clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) throughput: Throughput,
    pub(super) registry: Registry,
    next_id: AtomicU64,
}

impl Sessions {
    pub fn new(
        settings: SessionSettings,
        hub: Arc<Hub<SessionPeer>>,
        store: Arc<dyn Store>,
        tokens: Arc<TokenVerifier>,
        cluster: Arc<Cluster>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            snapshots: Snapshots::new(store, &settings.limits, metrics.clone()),
            join_limit: RateLimit::per_second(settings.limits.join_rate_per_second),
            refresh_limit: RateLimit::per_second(REFRESHES_PER_SECOND),
            message_limit: RateLimit::with_burst(MESSAGES_PER_SECOND, MESSAGE_BURST),
            warning_limit: RateLimit::with_burst(WARNINGS_PER_SECOND, WARNING_BURST),
            expiries: Expiries::default(),
            throughput: Throughput::default(),
            registry: Registry::default(),
            next_id: AtomicU64::new(1),
            settings,
            hub,
            tokens,
            cluster,
            clock,
            metrics,
        }
    }

    /// Ends sessions when their tokens expire, and removes old entries. This function never returns.
    pub async fn run_timers(&self) {
        let mut cleanup = tokio::time::interval(CLEANUP_INTERVAL);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        // Each sample stands for one second, so missed ticks are not made up for.
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                expired = self.expiries.next(&*self.clock) => {
                    for session in expired.into_iter().filter_map(|id| self.registry.get(id)) {
                        let _span = session.connection.span().entered();
                        self.end_with_reason(&session, &Refusal::new(Code::TokenExpired, "The token has expired"), true);
                    }
                }
                _ = second.tick() => self.throughput.sample(self.metrics.clients.deliveries.get()),
                _ = cleanup.tick() => {
                    for limit in [&self.join_limit, &self.refresh_limit, &self.message_limit, &self.warning_limit] {
                        limit.forget_idle();
                    }
                    self.cluster.forget_old();
                }
            }
        }
    }

    /// Executes the commands of this node and of other nodes. This function runs as long as the node.
    pub async fn run_commands(&self, mut commands: mpsc::Receiver<NodeCommand>) {
        while let Some(command) = commands.recv().await {
            match command {
                NodeCommand::Close(id) => {
                    if let Some(session) = self.registry.get(PeerId(id)) {
                        rate_limited_log!(
                            info,
                            "closed the oldest connection of a user who has too many on all nodes together"
                        );
                        self.close_excess(&session);
                    }
                }
                NodeCommand::Disconnect(user) => {
                    let sessions = self.registry.of(&user);
                    let disconnected: Vec<_> =
                        sessions.into_iter().filter(|session| self.is_disconnected(session)).collect();
                    tracing::info!(connections = disconnected.len(), "disconnected a user");
                    disconnected.iter().for_each(|session| self.end_disconnected(session));
                }
            }
        }
    }

    pub fn limits(&self) -> &LimitsConfig {
        &self.settings.limits
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The longest token that is accepted.
    pub fn max_token_bytes(&self) -> usize {
        self.tokens.max_token_bytes
    }

    /// `FEATURE_WEBSOCKET` may switch all sessions off.
    pub fn are_enabled(&self) -> bool {
        self.settings.features.websocket
    }

    /// Verifies a token. If its key is not known yet, the caller may wait with [`Sessions::admit`].
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        self.tokens.verify(token, self.clock.now())
    }

    /// Verifies a token, and waits up to `timeout` for its key.
    pub async fn admit(&self, token: &str, timeout: Duration) -> Result<Identity, AuthError> {
        self.tokens.admit(token, timeout).await
    }

    /// Creates a session. The caller gives it to its connection, and then calls [`Sessions::begin`].
    pub fn open(self: &Arc<Self>, connection: Arc<dyn Connection>, identity: Identity) -> Arc<Session> {
        let id = PeerId(self.next_id.fetch_add(1, Ordering::Relaxed));
        connection.span().record("user", identity.viewer.user.as_str());
        tracing::debug!("a client connected");
        let viewer = identity.viewer.clone();
        let session = Arc::new(Session::new(id, connection, identity, self.hub.space_reports()));
        let peer = SessionPeer { session: session.clone(), sessions: Arc::downgrade(self) };
        self.metrics.clients.handshakes.inc(HandshakeOutcome::Accepted);
        self.hub.turn(|fanout| fanout.add_peer(id, peer, viewer));
        session
    }

    /// Tells the client that it has a session. If its user has too many, this closes the oldest one.
    pub fn begin(&self, session: &Arc<Session>) {
        // This is no id of the transport, because such an id may let its holder act as the client.
        let id = uuid::Uuid::new_v4().simple().to_string();
        let Identity { viewer, name, expires_at, .. } = session.identity();
        let user = SessionUser { user_id: &viewer.user, name: name.as_deref(), org_id: viewer.org.as_ref() };
        self.hub.turn(|fanout| {
            let connected = Message::connected(&id, &user, fanout.tasks.position());
            fanout.reply(session.id, &connected);
        });
        let oldest =
            self.registry.add(session, viewer.user.clone(), self.settings.limits.max_connections_per_user);
        // The expiry is added only when the session can be found, because the token may expire at this moment.
        self.expiries.add(expires_at, session.id);
        if let Some(oldest) = oldest {
            rate_limited_log!(info, "closed the oldest connection of a user who has too many");
            self.close_excess(&oldest);
        }
        // The other nodes learn of this session after those that it replaced. Otherwise they could close one session too many.
        self.cluster.opened(session.id.0, viewer.user.clone());
        if session.has_ended() {
            // The connection ended before the session was in these tables, so this call removes it from them.
            self.registry.remove(session.id, &viewer.user);
            self.expiries.remove(expires_at, session.id);
            self.cluster.ended(session.id.0, &viewer.user, false);
        }
        // The user may have been disconnected while the token was checked.
        if self.is_disconnected(session) {
            self.end_disconnected(session);
        }
    }

    /// Handles a client's request. The caller has called [`Sessions::may_send`] first.
    pub fn receive(self: &Arc<Self>, session: &Arc<Session>, incoming: Incoming<'_>) {
        let Incoming { name, id, arguments, is_binary } = incoming;
        let name = name.parse::<ClientEventName>().ok();
        self.metrics.clients.requested(name);
        let Some(name) = name else { return self.refuse(session, id, &Refusal::invalid("Unknown event")) };
        let parsed = match is_binary {
            true => Err(Refusal::invalid("Invalid message format").of(name)),
            false => ClientEvent::parse(name, arguments),
        };
        match parsed {
            Ok(event) => self.submit(session, Request::Client { event, name, id, arrived: Instant::now() }),
            Err(refusal) => self.refuse(session, id, &refusal),
        }
    }

    /// Returns whether a message of this session is within the rate limit. If not, the client gets a refusal. A client that ignores
    /// the refusals is disconnected. `incoming` is the message, if it is a request.
    pub fn may_send(&self, session: &Arc<Session>, incoming: Option<&Incoming<'_>>) -> bool {
        // The session may have ended while more of its messages were already in the read buffer.
        if session.has_ended() {
            return false;
        }
        let user = session.user();
        let Err(limited) = self.message_limit.check(&user) else { return true };
        if self.warning_limit.check(&user).is_err() {
            self.metrics.clients.cut.inc(CutReason::Flooding);
            rate_limited_log!(
                warn,
                "closed a connection: its user sends too many messages and ignores the refusals"
            );
            self.end(session, true);
            session.connection.clone().close_now(CloseReason::TooMany);
            return false;
        }
        let refusal = Refusal::new(Code::RateLimited, "Too many requests").retry_after(limited.retry_after);
        let refusal = match incoming.and_then(|incoming| incoming.name.parse().ok()) {
            Some(name) => refusal.of(name),
            None => refusal,
        };
        self.refuse(session, incoming.and_then(|incoming| incoming.id.clone()), &refusal);
        false
    }

    /// Removes a session from all rooms and tables. Its connection may stay open. `lost` means that the client did not leave by itself.
    /// Returns whether this call ended the session.
    pub fn end(&self, session: &Session, lost: bool) -> bool {
        if !session.end() {
            return false;
        }
        tracing::debug!(lost, "a client disconnected");
        let had_dashboard = self.hub.turn(|fanout| fanout.remove_peer(session.id));
        let identity = session.identity();
        self.expiries.remove(identity.expires_at, session.id);
        self.registry.remove(session.id, &identity.viewer.user);
        self.cluster.ended(session.id.0, &identity.viewer.user, had_dashboard && lost);
        true
    }

    /// Queues a request of a session, and starts a task for the queue if none is running.
    pub(super) fn submit(self: &Arc<Self>, session: &Arc<Session>, request: Request) {
        match session.push(request) {
            Ok(false) => {}
            Ok(true) => {
                let span = session.connection.span();
                tokio::spawn(self.clone().process_requests(session.clone()).instrument(span));
            }
            Err(Request::Client { name, id, .. }) => {
                let refusal = Refusal::new(Code::RateLimited, "Too many requests").of(name);
                self.refuse(session, id, &refusal.retry_after(Duration::from_secs(1)));
            }
            Err(Request::Refresh) => {}
        }
    }

    /// Sends one message to one client, behind all earlier ones.
    pub fn reply(&self, session: &Session, message: &Message) {
        self.hub.turn(|fanout| fanout.reply(session.id, message));
    }

    /// Refuses a request, with the answer that its client waits for or with an event.
    pub fn refuse(&self, session: &Session, id: Option<RequestId>, refusal: &Refusal) {
        self.count_refusal(refusal.code);
        let message = match id {
            Some(id) => Message::reply(id, &serde_json::json!({"ok": false, "error": refusal})),
            None => Message::refused(refusal),
        };
        self.reply(session, &message);
    }

    /// Gives a session the identity of another token.
    pub(super) fn renew(&self, session: &Session, identity: Identity) {
        let old = session.identity();
        let expires_at = identity.expires_at;
        self.expiries.remove(old.expires_at, session.id);
        self.expiries.add(expires_at, session.id);
        if identity.viewer != old.viewer {
            self.hub.turn(|fanout| fanout.change_viewer(session.id, identity.viewer.clone()));
        }
        session.set_identity(identity);
        if session.has_ended() {
            // The session ended while its token was checked. Only this call knows the new expiry, so it removes the expiry.
            self.expiries.remove(expires_at, session.id);
        }
        if self.is_disconnected(session) {
            self.end_disconnected(session);
        }
    }

    /// Returns whether the user was disconnected after the session's token was issued.
    fn is_disconnected(&self, session: &Session) -> bool {
        let identity = session.identity();
        self.tokens.revocations.is_revoked(&identity.viewer.user, identity.issued_at)
    }

    fn end_disconnected(&self, session: &Session) {
        self.end_with_reason(session, &Refusal::new(Code::Unauthorized, "The user was disconnected"), false);
    }

    /// Ends a session whose client must receive nothing more, and sends the client the reason.
    fn end_with_reason(&self, session: &Session, refusal: &Refusal, lost: bool) {
        // The reason goes to the connection directly. With a full queue, the fan-out would hold it back and drop it with the session.
        if self.end(session, lost) {
            self.count_refusal(refusal.code);
            session.close_with_reason(Message::refused(refusal));
        }
    }

    fn close_excess(&self, session: &Session) {
        self.metrics.clients.cut.inc(CutReason::TooMany);
        self.end(session, true);
        session.connection.clone().close_in_order(CloseReason::TooMany);
    }
}

/// A token that is too long points to a setting. Its log line has a rate limit of its own, so that other refusals at the same time
/// do not suppress it.
pub fn log_refused(error: &AuthError, what: &'static str) {
    match error {
        AuthError::TooLong { .. } => rate_limited_log!(warn, %error, "{what}"),
        _ => rate_limited_log!(info, %error, "{what}"),
    }
}
