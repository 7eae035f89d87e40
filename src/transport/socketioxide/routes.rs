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
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use http::{Method, Uri, header};
use parking_lot::Mutex;
use serde_json::Value;
use socketioxide::{SocketIo, adapter::LocalAdapter, socket::Socket};
use tokio::sync::Notify;
use tower::{ServiceExt, util::BoxCloneSyncService};

use super::{
    Attached,
    attached::{Events, attach_with},
    client::EndTransport,
};
use crate::{
    address::ClientAddress,
    config::HeartbeatConfig,
    edge::{Evict, UnauthenticatedPermit},
    session::Sessions,
    shrinking_map::ShrinkingMap,
    transport::{
        Gate, TcpHandle,
        admission::CONNECT_TIMEOUT,
        gate::{BehindGate, Refused},
        polling_body::{AnswerBody, PollingClient, Posts},
        read_limits::ReadLimits,
        socketio::{EngineError, PATHS, RawQuery, TransportType},
    },
};

/// The library's own queue. It is short, because the client's queue comes before it and counts as `SEND_QUEUE`.
const LIBRARY_QUEUE: usize = 32;
/// Each WebSocket holds a buffer of this size as long as it lives.
const READ_BUFFER: usize = 4096;
/// The limit that the library has for bodies and for its answers to polling requests. If it ended an answer at a limit, an upgrade would
/// lose the next message. [`Routes::with_body`] limits the bodies, and the handshake tells clients the limit.
const UNLIMITED_ANSWER: u64 = u32::MAX as u64;
/// The answer to a handshake is shorter.
const MAX_HANDSHAKE_BYTES: usize = 4096;

type LibraryService = BoxCloneSyncService<Request, Response, Infallible>;

/// A Socket.IO server on the library.
#[derive(Clone)]
pub struct SocketIoxide {
    pub attached: Arc<Attached>,
    service: LibraryService,
    transports: Arc<Transports>,
    read_limits: ReadLimits,
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
    posts: Posts,
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
        let read_limits = ReadLimits::of(&sessions);
        let (service, io) = SocketIo::builder()
            .req_path("/socket.io")
            .ping_interval(heartbeat.interval)
            .ping_timeout(heartbeat.timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .max_buffer_size(LIBRARY_QUEUE)
            .max_payload(UNLIMITED_ANSWER)
            .ws_read_buffer_size(READ_BUFFER)
            .ws_max_message_size(read_limits.message())
            .ws_max_frame_size(read_limits.message())
            .build_svc();
        let events = Events { refuse_unknown: true, on_connect: Box::new(|_| {}) };
        let attached =
            attach_with(&io, "/", sessions, events, Box::new(|socket| Box::new(TransportEnder::of(socket))));
        let service = ServiceExt::<Request>::map_response(service, |response| response.map(Body::new));
        let service = LibraryService::new(service);
        Self { attached, service, transports: Arc::default(), read_limits }
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
        if self.has_ended.load(Ordering::Relaxed) {
            return tcp.shut();
        }
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

/// The routes of Socket.IO, behind the gate.
pub fn routes(server: SocketIoxide, gate: Gate) -> Router {
    gate.mount(&PATHS, PATHS[0], server)
}

impl PollingClient for Transport {
    fn break_off(&self) {
        self.end();
    }
}

/// A polling request that waits for messages. If the client breaks it off, its transport ends.
struct WaitingPoll(Option<Arc<Transport>>);

impl Drop for WaitingPoll {
    fn drop(&mut self) {
        if let Some(transport) = self.0.take() {
            transport.end();
        }
    }
}

impl BehindGate for SocketIoxide {
    async fn answer(
        &self,
        gate: &Gate,
        request: Request,
        address: ClientAddress,
        tcp: TcpHandle,
    ) -> Result<Response, Refused> {
        let RawQuery { transport, sid } =
            RawQuery::of(request.uri()).map_err(|error| Box::new(error.response()))?;
        let sid = sid.map(str::to_owned);
        let request = with_query(request, transport, sid.as_deref())?;
        match sid {
            Some(id) => self.continue_client(gate, request, transport, &id, tcp).await,
            None => self.open_client(gate, request, transport, address, tcp).await,
        }
    }
}

impl SocketIoxide {
    /// A new client.
    async fn open_client(
        &self,
        gate: &Gate,
        request: Request,
        transport_type: TransportType,
        address: ClientAddress,
        tcp: TcpHandle,
    ) -> Result<Response, Refused> {
        let unauthenticated_permit = gate.admit(address)?;
        let transport = Transport::new(Some(unauthenticated_permit.clone()));
        gate.unauthenticated_limits.register(&unauthenticated_permit, transport.clone());
        if transport_type == TransportType::Websocket {
            transport.add_websocket(tcp, self.read_limits.unauthenticated);
        }
        let mut request = self.with_body(gate, request, false).await?;
        release_permit_later(&transport);
        request.extensions_mut().insert(transport.clone());
        let response = self.call(request).await;
        if transport_type == TransportType::Websocket || !response.status().is_success() {
            return Ok(response);
        }
        // Only the answer has the id of the new socket.
        let (mut parts, body) = response.into_parts();
        let body = to_bytes(body, MAX_HANDSHAKE_BYTES).await.unwrap_or_default();
        let handshake = body.strip_prefix(b"0").and_then(|json| serde_json::from_slice(json).ok());
        let Some(Value::Object(mut handshake)) = handshake else {
            return Ok(Response::from_parts(parts, Body::from(body)));
        };
        if let Some(Value::String(sid)) = handshake.get("sid") {
            self.transports.insert(sid.clone(), &transport);
        }
        handshake.insert("maxPayload".into(), self.read_limits.body().into());
        parts.headers.remove(header::CONTENT_LENGTH);
        Ok(Response::from_parts(parts, Body::from(format!("0{}", Value::Object(handshake)))))
    }

    /// Another request of a client that began with polling.
    async fn continue_client(
        &self,
        gate: &Gate,
        request: Request,
        transport_type: TransportType,
        id: &str,
        tcp: TcpHandle,
    ) -> Result<Response, Refused> {
        let unknown = || Box::new(EngineError::UnknownSid.response());
        let transport = self.transports.get(id);
        let transport = transport.filter(|transport| !transport.has_ended.load(Ordering::Relaxed));
        let Some(transport) = transport else { return Err(unknown()) };
        let is_authenticated = transport.is_authenticated.load(Ordering::Relaxed);
        if transport_type == TransportType::Websocket {
            transport.add_websocket(tcp, self.read_limits.unauthenticated);
            return Ok(self.call(request).await);
        }
        let is_post = request.method() == Method::POST;
        let _post_guard = match is_post {
            true => Some(transport.posts.begin().ok_or_else(|| gate.overlapping_posts())?),
            false => None,
        };
        let request = self.with_body(gate, request, is_authenticated).await?;
        if is_authenticated {
            tcp.trust();
        }
        if is_post {
            return Ok(self.call(request).await);
        }
        let mut waiting = WaitingPoll(Some(transport.clone()));
        tokio::select! {
            response = self.call(request) => {
                let (parts, body) = response.into_parts();
                // The library has the whole answer in memory.
                let answer = to_bytes(body, usize::MAX).await.unwrap_or_default();
                let client = waiting.0.take().filter(|_| parts.status.is_success());
                Ok(Response::from_parts(parts, Body::new(AnswerBody::new(answer, client))))
            }
            () = transport.until_ended() => Err(unknown()),
        }
    }

    /// Reads the body of a `POST` before the library sees the request.
    async fn with_body(
        &self,
        gate: &Gate,
        request: Request,
        is_authenticated: bool,
    ) -> Result<Request, Refused> {
        let (parts, body) = request.into_parts();
        let max = self.read_limits.request_body(&parts.method, is_authenticated);
        let body = gate.read(body, max, is_authenticated).await?;
        Ok(Request::from_parts(parts, Body::from(body)))
    }

    async fn call(&self, request: Request) -> Response {
        match self.service.clone().oneshot(request).await {
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

/// The request with a query that the library reads in the same way as this module.
fn with_query(request: Request, transport: TransportType, sid: Option<&str>) -> Result<Request, Refused> {
    let transport = match transport {
        TransportType::Polling => "polling",
        TransportType::Websocket => "websocket",
    };
    let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
    let (mut parts, body) = request.into_parts();
    // The id is a part of a valid URI already.
    let uri = format!("/socket.io/?EIO=4&transport={transport}{sid}").parse::<Uri>();
    parts.uri = uri.map_err(|_| Box::new(EngineError::UnknownSid.response()))?;
    Ok(Request::from_parts(parts, body))
}

impl fmt::Debug for SocketIoxide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIoxide").field("attached", &self.attached).finish_non_exhaustive()
    }
}
