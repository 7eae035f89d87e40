//! A whole Socket.IO server on socketioxide, with the gate and the TCP connections of the native transport.
//!
//! The library can't close the transport of one client, and does not limit clients without a token. This module does both from outside:
//! it holds the TCP connection of each WebSocket, and refuses further requests of a polling client that was closed.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::{
    Extension, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::{Method, Uri};
use parking_lot::Mutex;
use serde::Deserialize;
use socketioxide::{SocketIo, adapter::LocalAdapter, socket::Socket};
use tokio::sync::Notify;
use tower::{ServiceExt, util::BoxCloneSyncService};

use super::{Attached, attached::attach_with, client::EndTransport};
use crate::{
    address::ClientAddress,
    config::HeartbeatConfig,
    edge::{Evict, UnauthenticatedPermit, max_token_message_bytes},
    session::Sessions,
    shrinking_map::ShrinkingMap,
    transport::{
        Gate, TcpHandle,
        socketio::{CONNECT_TIMEOUT, EngineError},
    },
};

/// The library's own queue. It is short, because the client's queue comes before it and counts as `SEND_QUEUE`.
const LIBRARY_QUEUE: usize = 32;
/// One polling request carries several messages.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Each WebSocket holds a buffer of this size as long as it lives.
const READ_BUFFER: usize = 4096;
/// The answer to a handshake is shorter.
const MAX_HANDSHAKE_BYTES: usize = 4096;

type LibraryService = BoxCloneSyncService<Request, Response, Infallible>;

/// A Socket.IO server on the library.
#[derive(Clone)]
pub struct SocketIoxide {
    pub attached: Arc<Attached>,
    service: LibraryService,
    transports: Arc<Transports>,
    unauthenticated_bytes: usize,
    max_body_bytes: usize,
}

/// One client's transport, from its handshake on.
#[derive(Debug, Default)]
struct Transport {
    /// The TCP connections of the client's WebSockets. The library decides which of them becomes the transport, and closes the others.
    websockets: Mutex<Vec<TcpHandle>>,
    /// The permit from the limits for clients without a token. It is released when the client has shown a token, or after some seconds.
    unauthenticated_permit: Option<Arc<UnauthenticatedPermit>>,
    is_authenticated: AtomicBool,
    has_ended: AtomicBool,
    ended: Notify,
}

/// The transports of clients that began with polling, by their Engine.IO id. The library holds each as long as its socket lives.
#[derive(Debug, Default)]
struct Transports(Mutex<TransportTable>);

#[derive(Debug, Default)]
struct TransportTable {
    by_id: ShrinkingMap<String, Weak<Transport>>,
    /// At this size, entries of ended sockets are removed. It is twice the number that the last removal left.
    cleanup_size: usize,
}

/// No entry is removed from a smaller table.
const MIN_CLEANUP_SIZE: usize = 64;

impl SocketIoxide {
    pub fn new(sessions: Arc<Sessions>, heartbeat: &HeartbeatConfig) -> Self {
        let limits = sessions.limits();
        let unauthenticated_bytes = max_token_message_bytes(sessions.max_token_bytes());
        let max_message_bytes = unauthenticated_bytes.max(limits.max_message_bytes);
        let max_body_bytes = MAX_BODY_BYTES.max(max_message_bytes);
        let (service, io) = SocketIo::builder()
            .req_path("/socket.io")
            .ping_interval(heartbeat.interval)
            .ping_timeout(heartbeat.timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .max_buffer_size(LIBRARY_QUEUE)
            .max_payload(max_body_bytes as u64)
            .ws_read_buffer_size(READ_BUFFER)
            .ws_max_message_size(max_message_bytes)
            .ws_max_frame_size(max_message_bytes)
            .build_svc();
        let attached =
            attach_with(&io, "/", sessions, true, Box::new(|socket| Box::new(TransportEnder::of(socket))));
        let service = ServiceExt::<Request>::map_response(service, |response| response.map(Body::new));
        let service = LibraryService::new(service);
        Self { attached, service, transports: Arc::default(), unauthenticated_bytes, max_body_bytes }
    }
}

impl Transport {
    fn new(unauthenticated_permit: Option<Arc<UnauthenticatedPermit>>) -> Arc<Self> {
        Arc::new(Self { unauthenticated_permit, ..Self::default() })
    }

    /// The client has shown a valid token.
    fn authenticate(&self) {
        self.is_authenticated.store(true, Ordering::Relaxed);
        self.websockets.lock().iter().for_each(TcpHandle::trust);
        self.release();
    }

    fn release(&self) {
        if let Some(unauthenticated_permit) = &self.unauthenticated_permit {
            unauthenticated_permit.release();
        }
    }

    fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.ended.notify_waiters();
        self.websockets.lock().iter().for_each(TcpHandle::shut);
    }

    fn add_websocket(&self, tcp: TcpHandle, unauthenticated_bytes: usize) {
        let mut websockets = self.websockets.lock();
        websockets.retain(TcpHandle::is_open);
        match self.is_authenticated.load(Ordering::Relaxed) {
            true => tcp.trust(),
            false => tcp.allow(unauthenticated_bytes),
        }
        websockets.push(tcp);
    }

    /// When the client last accepted bytes.
    fn last_progress(&self) -> Option<Instant> {
        self.websockets.lock().iter().filter_map(TcpHandle::last_progress).max()
    }

    /// Waits until the client was closed.
    async fn until_ended(&self) {
        let ended = self.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if !self.has_ended.load(Ordering::Relaxed) {
            ended.await;
        }
    }
}

impl Evict for Transport {
    fn evict(&self) {
        self.end();
    }
}

impl Transports {
    fn insert(&self, id: String, transport: &Arc<Transport>) {
        let mut table = self.0.lock();
        if table.by_id.len() >= table.cleanup_size.max(MIN_CLEANUP_SIZE) {
            table.by_id.retain(|_, transport| transport.strong_count() > 0);
            table.cleanup_size = table.by_id.len() * 2;
        }
        table.by_id.insert(id, Arc::downgrade(transport));
    }

    fn get(&self, id: &str) -> Option<Arc<Transport>> {
        self.0.lock().by_id.get(id)?.upgrade()
    }
}

/// Ends the transport of a socket, which is in the extensions of the socket's first request.
#[derive(Debug)]
struct TransportEnder(Weak<Transport>);

impl TransportEnder {
    fn of(socket: &Socket<LocalAdapter>) -> Self {
        let transport = socket.req_parts().extensions.get::<Arc<Transport>>();
        if let Some(transport) = transport {
            transport.authenticate();
        }
        Self(transport.map(Arc::downgrade).unwrap_or_default())
    }
}

impl EndTransport for TransportEnder {
    fn end(&self) {
        if let Some(transport) = self.0.upgrade() {
            transport.end();
        }
    }

    fn last_progress(&self) -> Option<Instant> {
        self.0.upgrade()?.last_progress()
    }
}

#[derive(Clone, Debug)]
struct Routes {
    server: SocketIoxide,
    gate: Gate,
}

/// The routes of Socket.IO, behind the gate.
pub fn routes(server: SocketIoxide, gate: Gate) -> Router {
    let paths = Router::new()
        .route("/socket.io", any(handle))
        .route("/socket.io/", any(handle))
        .route("/socket.io/{*rest}", any(handle))
        .with_state(Routes { server, gate: gate.clone() });
    gate.guard(paths)
}

async fn handle(
    State(routes): State<Routes>,
    Extension(address): Extension<ClientAddress>,
    Extension(tcp): Extension<TcpHandle>,
    request: Request,
) -> Response {
    routes.answer(request, address, tcp).await.unwrap_or_else(|refused| refused)
}

#[derive(Deserialize)]
struct Handshake {
    sid: String,
}

impl Routes {
    async fn answer(
        &self,
        request: Request,
        address: ClientAddress,
        tcp: TcpHandle,
    ) -> Result<Response, Response> {
        self.gate.check_query(request.uri())?;
        match parameter(request.uri(), "sid").map(str::to_owned) {
            Some(id) => self.continue_client(request, &id, tcp).await,
            None => self.open_client(request, address, tcp).await,
        }
    }

    /// A new client.
    async fn open_client(
        &self,
        request: Request,
        address: ClientAddress,
        tcp: TcpHandle,
    ) -> Result<Response, Response> {
        let unauthenticated_permit = self.gate.admit(address)?;
        let transport = Transport::new(Some(unauthenticated_permit.clone()));
        self.gate.unauthenticated_limits.register(&unauthenticated_permit, transport.clone());
        release_permit_later(&transport);
        let is_websocket = parameter(request.uri(), "transport") == Some("websocket");
        if is_websocket {
            transport.add_websocket(tcp, self.server.unauthenticated_bytes);
        }
        let mut request = self.with_body(request, false).await?;
        request.extensions_mut().insert(transport.clone());
        let response = self.call(request).await;
        if is_websocket || !response.status().is_success() {
            return Ok(response);
        }
        // Only the answer has the id of the new socket.
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, MAX_HANDSHAKE_BYTES).await.unwrap_or_default();
        let handshake =
            body.strip_prefix(b"0").and_then(|json| serde_json::from_slice::<Handshake>(json).ok());
        if let Some(Handshake { sid }) = handshake {
            self.server.transports.insert(sid, &transport);
        }
        Ok(Response::from_parts(parts, Body::from(body)))
    }

    /// Another request of a client that began with polling.
    async fn continue_client(
        &self,
        request: Request,
        id: &str,
        tcp: TcpHandle,
    ) -> Result<Response, Response> {
        let transport = self.server.transports.get(id);
        let transport = transport.filter(|transport| !transport.has_ended.load(Ordering::Relaxed));
        let Some(transport) = transport else { return Err(EngineError::UnknownSid.response()) };
        let is_authenticated = transport.is_authenticated.load(Ordering::Relaxed);
        if parameter(request.uri(), "transport") == Some("websocket") {
            transport.add_websocket(tcp, self.server.unauthenticated_bytes);
        } else if is_authenticated {
            tcp.trust();
        }
        let request = self.with_body(request, is_authenticated).await?;
        tokio::select! {
            response = self.call(request) => Ok(response),
            () = transport.until_ended() => Err(EngineError::UnknownSid.response()),
        }
    }

    /// Reads the body of a `POST` before the library sees the request.
    async fn with_body(&self, request: Request, is_authenticated: bool) -> Result<Request, Response> {
        let (parts, body) = request.into_parts();
        let max = match (&parts.method, is_authenticated) {
            (&Method::POST, true) => self.server.max_body_bytes,
            (&Method::POST, false) => self.server.unauthenticated_bytes,
            _ => 0,
        };
        let body = self.gate.read(body, max, is_authenticated).await?;
        Ok(Request::from_parts(parts, Body::from(body)))
    }

    async fn call(&self, request: Request) -> Response {
        match self.server.service.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Releases the permit of a client without a token when the library has closed the client.
fn release_permit_later(transport: &Arc<Transport>) {
    let transport = Arc::downgrade(transport);
    tokio::spawn(async move {
        tokio::time::sleep(CONNECT_TIMEOUT).await;
        if let Some(transport) = transport.upgrade() {
            transport.release();
        }
    });
}

fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

impl fmt::Debug for SocketIoxide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIoxide").field("attached", &self.attached).finish_non_exhaustive()
    }
}
