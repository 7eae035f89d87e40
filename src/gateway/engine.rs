//! Turns Engine.IO connections into Socket.IO sessions, and handles their messages until they end.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::value::RawValue;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tracing::{Instrument, field};

use crate::{
    auth::{Identity, TokenVerifier},
    cluster::{Cluster, Order},
    config::{FeaturesConfig, HeartbeatConfig, LimitsConfig},
    fanout::{Hub, PeerId},
    json::replace_lone_surrogates,
    metrics::Metrics,
    protocol::{
        ClientEvent, ClientEventName, Code, Frame, FrameError, Packet, Refusal, ack, connect_error,
        connected, emitted, event,
    },
    rate_limited_log::rate_limited_log,
    store::Store,
};

use super::{
    SocketPeer,
    expiry::Expiries,
    newcomers::Newcomers,
    rate::Rate,
    session::{Request, Session},
    snapshots::Snapshots,
    socket::{DisconnectReason, Socket, TransportType},
    sockets::Sockets,
    throughput::Throughput,
    users::Sessions,
};

/// A connection without a session is closed after this time, unless it waits for its token's key.
const TIME_TO_CONNECT: Duration = Duration::from_secs(5);
/// A connection may send this many `CONNECT` packets.
const MAX_CONNECTS: u32 = 3;
/// The rate limit for all messages of one user on this node. A page that joins all its rooms sends hundreds at once, and all pages
/// of a user may do so after a deploy.
const MESSAGES_PER_SECOND: u32 = 200;
const MESSAGE_BURST: u32 = 10_000;
/// The rate limit for refusals of a user's messages. A user with more refused messages ignores the refusals, and is disconnected.
const WARNINGS_PER_SECOND: u32 = 50;
const WARNING_BURST: u32 = 1000;
/// The rate limit for `auth:refresh` of one user: each checks a token. Further requests wait for their turn.
const REFRESHES_PER_SECOND: u32 = 10;
/// How often idle rate limits and other old entries are removed.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// The settings of the Socket.IO edge.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    pub features: FeaturesConfig,
    pub limits: LimitsConfig,
    pub heartbeat: HeartbeatConfig,
}

/// The Socket.IO edge of one node.
#[derive(Debug)]
pub struct Gateway {
    pub(super) settings: GatewaySettings,
    pub(super) hub: Arc<Hub<SocketPeer>>,
    pub(super) snapshots: Snapshots,
    pub(super) tokens: Arc<TokenVerifier>,
    pub(super) newcomers: Newcomers,
    pub(super) joins: Rate,
    pub(super) refreshes: Rate,
    messages: Rate,
    warnings: Rate,
    pub(super) cluster: Arc<Cluster>,
    pub(super) expiries: Expiries,
    pub(super) metrics: Arc<Metrics>,
    pub(super) throughput: Throughput,
    pub(super) sockets: Sockets,
    pub(super) sessions: Sessions,
    next_peer: AtomicU64,
    next_connection: AtomicU64,
    pub(super) this: Weak<Gateway>,
}

impl Gateway {
    pub fn new(
        settings: GatewaySettings,
        hub: Arc<Hub<SocketPeer>>,
        store: Arc<dyn Store>,
        tokens: Arc<TokenVerifier>,
        cluster: Arc<Cluster>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            snapshots: Snapshots::new(store, &settings.limits, metrics.clone()),
            newcomers: Newcomers::new(&settings.limits),
            joins: Rate::per_second(settings.limits.join_rate_per_second),
            refreshes: Rate::per_second(REFRESHES_PER_SECOND),
            messages: Rate::with_burst(MESSAGES_PER_SECOND, MESSAGE_BURST),
            warnings: Rate::with_burst(WARNINGS_PER_SECOND, WARNING_BURST),
            expiries: Expiries::default(),
            throughput: Throughput::default(),
            sockets: Sockets::default(),
            sessions: Sessions::default(),
            next_peer: AtomicU64::new(1),
            next_connection: AtomicU64::new(1),
            this: this.clone(),
            settings,
            hub,
            tokens,
            cluster,
            metrics,
        })
    }

    /// Ends sessions when their tokens expire, and removes old entries. This function never returns.
    pub async fn keep_time(&self) {
        let mut forget = tokio::time::interval(FORGET_EVERY);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        // Each sample stands for one second, so missed ticks are not made up for.
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                expired = self.expiries.next() => {
                    for session in expired.into_iter().filter_map(|peer| self.sessions.get(peer)) {
                        let _span = session.socket.data.span().entered();
                        self.expire(&session);
                    }
                }
                _ = second.tick() => self.throughput.sample(self.metrics.clients.deliveries.get()),
                _ = forget.tick() => {
                    self.newcomers.forget_idle();
                    for rate in [&self.joins, &self.refreshes, &self.messages, &self.warnings] {
                        rate.forget_idle();
                    }
                    self.cluster.forget_old();
                }
            }
        }
    }

    /// Closes every client's transport. Each client reconnects by itself.
    pub fn close_all(&self) {
        for socket in self.sockets.all() {
            socket.close(DisconnectReason::ClosedHere);
        }
    }

    /// Shuts the WebSockets of clients that have not read their last packets. Otherwise their tasks continue to wait for them.
    pub fn shut_all(&self) {
        for socket in self.sockets.all() {
            if socket.transport_type() == TransportType::Websocket {
                socket.data.transport().shut();
            }
        }
    }

    /// Waits until no connection is left.
    pub async fn all_gone(&self) {
        while !self.sockets.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The number of sessions, and the number of users that have one.
    pub fn connected(&self) -> (usize, usize) {
        self.sessions.count()
    }

    /// Queues a request of a session, and starts a task for the queue if none is running.
    pub(super) fn submit(&self, session: &Arc<Session>, request: Request) {
        match session.push(request) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(gateway) = self.this.upgrade() {
                    let span = session.socket.data.span();
                    tokio::spawn(gateway.work(session.clone()).instrument(span));
                }
            }
            Err(Request::Client { name, ack, .. }) => {
                let refusal = Refusal::new(Code::RateLimited, "Too many requests").of(name);
                self.refuse(session, ack, &refusal.retry_after(Duration::from_secs(1)));
            }
            Err(Request::Refresh) => {}
        }
    }

    /// Sends one packet to one client, behind all earlier ones.
    pub(super) fn reply(&self, session: &Session, packet: &Packet) {
        self.hub.turn(|fanout| fanout.reply(session.id, packet));
    }

    pub(super) fn refuse(&self, session: &Session, id: Option<u64>, refusal: &Refusal) {
        self.count_refusal(refusal.code);
        let packet = match id {
            Some(id) => ack(id, &serde_json::json!({"ok": false, "error": refusal})),
            None => event(emitted::ERROR, refusal),
        };
        self.reply(session, &packet);
    }

    /// Gives a session the identity of another token.
    pub(super) fn renew(&self, session: &Arc<Session>, identity: Identity) {
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
            self.turn_out(session);
        }
    }

    fn expire(&self, session: &Arc<Session>) {
        self.dismiss(session, &Refusal::new(Code::TokenExpired, "The token has expired"), true);
    }

    /// Carries out the orders of this node and of other nodes. This function runs as long as the node.
    pub async fn obey(&self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Close(id) => {
                    if let Some(session) = self.sessions.get(PeerId(id)) {
                        self.metrics.clients.cut.inc(["too_many"]);
                        rate_limited_log!(
                            info,
                            "closed the oldest connection of a user who has too many on all nodes together"
                        );
                        self.end(&session, true);
                        session.close();
                    }
                }
                Order::Disconnect(user) => {
                    let sessions = self.sessions.of(&user);
                    let disconnected: Vec<_> =
                        sessions.into_iter().filter(|session| self.is_disconnected(session)).collect();
                    tracing::info!(connections = disconnected.len(), "disconnected a user");
                    disconnected.iter().for_each(|session| self.turn_out(session));
                }
            }
        }
    }

    /// Returns whether the user was disconnected after the session's token was issued.
    fn is_disconnected(&self, session: &Session) -> bool {
        let identity = session.identity();
        self.tokens.revocations.cover(&identity.viewer.user, identity.issued_at)
    }

    fn turn_out(&self, session: &Arc<Session>) {
        self.dismiss(session, &Refusal::new(Code::Unauthorized, "The user was disconnected"), false);
    }

    /// Ends a session whose client must receive nothing more, and sends the client the reason.
    fn dismiss(&self, session: &Arc<Session>, refusal: &Refusal, lost: bool) {
        // The reason goes to the socket directly. With a full queue, the fan-out would hold it back and drop it with the session.
        if self.end(session, lost) {
            self.count_refusal(refusal.code);
            session.close_for_good(event(emitted::ERROR, refusal));
        }
    }

    /// Removes a session from all rooms and tables. Its transport may stay open. Returns whether this call ended the session.
    fn end(&self, session: &Arc<Session>, lost: bool) -> bool {
        if !session.end() {
            return false;
        }
        tracing::debug!(lost, "a client disconnected");
        let had_dashboard = self.hub.turn(|fanout| fanout.remove_peer(session.id));
        let identity = session.identity();
        self.expiries.remove(identity.expires_at, session.id);
        self.sessions.remove(session.id, &identity.viewer.user);
        self.cluster.ended(session.id.0, &identity.viewer.user, had_dashboard && lost);
        true
    }

    fn connect(&self, socket: &Arc<Socket>, namespace: &str, auth: Option<&RawValue>) {
        let namespace = namespace.split('?').next().unwrap_or_default();
        if socket.data.session().is_some() {
            // The client already has a session, and asks for another namespace. It must learn that this namespace does not exist.
            if namespace != "/" {
                self.reject(socket, namespace, "Invalid namespace");
            }
            return;
        }
        if socket.data.count_connect() > MAX_CONNECTS {
            self.count_fault();
            socket.close(DisconnectReason::Malformed);
            return;
        }
        if namespace != "/" {
            self.reject(socket, namespace, "Invalid namespace");
        } else if !self.settings.features.websocket {
            self.reject(socket, "/", Code::FeatureDisabled.as_str());
        } else {
            self.authenticate(socket, auth);
        }
    }

    pub(super) fn accept(&self, socket: &Arc<Socket>, identity: Identity) {
        let id = PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed));
        socket.data.span().record("user", identity.viewer.user.as_str());
        tracing::debug!("a client connected");
        let viewer = identity.viewer.clone();
        let expires_at = identity.expires_at;
        let session = Arc::new(Session::new(id, socket.clone(), identity));
        let peer = SocketPeer {
            session: session.clone(),
            gateway: self.this.clone(),
            metrics: self.metrics.clone(),
        };
        self.metrics.clients.handshakes.inc(["accepted"]);
        self.hub.turn(|fanout| fanout.add_peer(id, peer, viewer.clone()));
        let before = socket.data.set_session(session.clone());
        if let Some(newcomer) = &socket.data.newcomer {
            newcomer.leave();
        }
        // This is not the Engine.IO id, because that id lets its holder act as the polling client.
        self.reply(&session, &connected(&uuid::Uuid::new_v4().simple().to_string()));
        let max = self.settings.limits.max_connections_per_user;
        let user = viewer.user;
        let oldest = self.sessions.add(&session, user.clone(), max);
        // The expiry is added only when the session can be found, because the token may expire at this moment.
        self.expiries.add(expires_at, id);
        if let Some(oldest) = oldest {
            self.metrics.clients.cut.inc(["too_many"]);
            rate_limited_log!(info, "closed the oldest connection of a user who has too many");
            self.end(&oldest, true);
            oldest.close();
        }
        if let Some(before) = before {
            self.end(&before, false);
        }
        // The other nodes learn of this session after those that it replaced. Otherwise they could close one session too many.
        self.cluster.opened(id.0, user.clone());
        if session.has_ended() {
            self.cluster.ended(id.0, &user, false);
        }
        // The user may have been disconnected while the token was checked.
        if self.is_disconnected(&session) {
            self.turn_out(&session);
        }
        if socket.is_closed() {
            // `on_disconnect` may have run before the session was set. Socket and session hold each other, so this separates them.
            socket.data.take_session();
            self.end(&session, true);
        }
    }

    /// Closes the socket after [`TIME_TO_CONNECT`] if it has no session by then and waits for no key.
    pub(super) fn await_connect(socket: &Arc<Socket>) {
        let socket = Arc::downgrade(socket);
        tokio::spawn(async move {
            tokio::time::sleep(TIME_TO_CONNECT).await;
            if let Some(socket) = socket.upgrade()
                && socket.data.session().is_none()
                && !socket.data.is_waiting()
            {
                socket.close(DisconnectReason::TransportClose);
            }
        });
    }

    pub(super) fn reject(&self, socket: &Socket, namespace: &str, message: &'static str) {
        let outcome = if namespace == "/" { message } else { "invalid_namespace" };
        self.metrics.clients.handshakes.inc([outcome]);
        self.count_fault();
        socket.send_now(connect_error(namespace, message));
    }

    fn event(&self, session: &Arc<Session>, name: &str, args: &[&RawValue], id: Option<u64>, binary: bool) {
        let name = name.parse::<ClientEventName>().ok();
        self.metrics.clients.requests.inc([name.map_or("unknown", Into::into)]);
        let Some(name) = name else { return self.refuse(session, id, &Refusal::invalid("Unknown event")) };
        let parsed = match binary {
            true => Err(Refusal::invalid("Invalid message format").of(name)),
            false => ClientEvent::parse(name, args),
        };
        match parsed {
            Ok(event) => {
                self.submit(session, Request::Client { event, name, ack: id, arrived: Instant::now() })
            }
            Err(refusal) => self.refuse(session, id, &refusal),
        }
    }

    /// Returns whether a message of this session is within the rate limit. If not, the client gets a refusal. A client that ignores
    /// the refusals is disconnected.
    fn may_speak(&self, session: &Arc<Session>, frame: Option<&Frame<'_>>) -> bool {
        // The session may have ended while more of its messages were already in the read buffer.
        if session.has_ended() {
            return false;
        }
        let user = session.user();
        let Err(early) = self.messages.check(&user) else { return true };
        if self.warnings.check(&user).is_err() {
            self.metrics.clients.cut.inc(["flooding"]);
            rate_limited_log!(
                warn,
                "closed a connection: its user sends too many messages and ignores the refusals"
            );
            self.end(session, true);
            session.cut();
            return false;
        }
        let refusal = Refusal::new(Code::RateLimited, "Too many requests").retry_after(early.retry_after);
        match frame {
            Some(Frame::Event { name, ack, .. }) => {
                let refusal = match name.parse() {
                    Ok(name) => refusal.of(name),
                    Err(_) => refusal,
                };
                self.refuse(session, *ack, &refusal);
            }
            _ => self.refuse(session, None, &refusal),
        }
        false
    }

    fn fault(&self, socket: &Arc<Socket>, error: FrameError) {
        self.count_fault();
        rate_limited_log!(info, %error, "closed a connection that does not speak Socket.IO");
        socket.close(DisconnectReason::Malformed);
    }
}

/// Returns whether a message may bring a token. Such a message has a length limit of its own.
fn may_bring_a_token(frame: &Result<Frame<'_>, FrameError>) -> bool {
    match frame {
        Ok(Frame::Connect { .. }) => true,
        Ok(Frame::Event { name, .. }) => name.parse() == Ok(ClientEventName::AuthRefresh),
        _ => false,
    }
}

/// Connections call these functions to report to the gateway.
impl Gateway {
    pub(super) fn on_connect(&self, socket: &Arc<Socket>) {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        // The log must not show the Engine.IO id, because that id lets its holder act as the polling client.
        socket.data.set_span(tracing::info_span!("connection", id, user = field::Empty));
        self.sockets.insert(socket);
        // This call may close the socket at once, so it comes after the insertion: the socket can then be removed.
        if let Some(newcomer) = &socket.data.newcomer {
            self.newcomers.came(newcomer, socket);
        }
        Self::await_connect(socket);
    }

    pub(super) fn on_disconnect(&self, socket: &Arc<Socket>, reason: DisconnectReason) {
        let _span = socket.data.span().entered();
        self.sockets.remove(socket.id);
        if let Some(newcomer) = &socket.data.newcomer {
            newcomer.leave();
        }
        if let Some(session) = socket.data.take_session() {
            self.end(&session, true);
        }
        self.count_end(reason);
    }

    pub(super) fn on_message(&self, message: &str, socket: &Arc<Socket>) {
        let _span = socket.data.span().entered();
        if message.len() > self.max_read_bytes() {
            return self.fault(socket, FrameError::TooLong);
        }
        let message = replace_lone_surrogates(message);
        let (frame, session) = (Frame::parse(&message), socket.data.session());
        if message.len() > self.settings.limits.max_message_bytes && !may_bring_a_token(&frame) {
            return self.fault(socket, FrameError::TooLong);
        }
        if let Some(session) = &session
            && !self.may_speak(session, frame.as_ref().ok())
        {
            return;
        }
        match (frame, session) {
            (Ok(Frame::Connect { namespace, auth }), _) => self.connect(socket, namespace, auth),
            (Ok(Frame::Disconnect), Some(session)) => {
                socket.data.take_session();
                self.end(&session, false);
                Self::await_connect(socket);
            }
            (Ok(Frame::Event { name, args, ack, binary }), Some(session)) => {
                self.event(&session, &name, &args, ack, binary);
            }
            (Ok(Frame::Ack | Frame::Disconnect) | Err(FrameError::Namespace), _) => {}
            // An event without a session is ignored. It may have been on its way when its session ended.
            (Ok(Frame::Event { .. }), None) => {}
            (Err(error), _) => self.fault(socket, error),
        }
    }

    /// Counts an attachment against the rate limit, and otherwise ignores it. Its event has already been refused.
    pub(super) fn on_binary(&self, socket: &Socket) {
        if let Some(session) = socket.data.session() {
            self.may_speak(&session, None);
        }
    }
}
