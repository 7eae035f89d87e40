//! The polling transport of Engine.IO with its heartbeat, and the upgrade of an HTTP request to a WebSocket.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request};
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout_at;

use super::{
    SocketIo,
    packet::Packet,
    sid::Sid,
    socket::{DisconnectReason, PollAnswer, SEPARATOR, Socket},
    websocket::{SocketIoHandler, upgrade_client},
};
use crate::transport::{
    client::Client,
    gate::BODY_TIMEOUT,
    polling_body::{AnswerBody, PollingClient},
    upgrade::{accept_upgrade, handed_over},
    websocket::WebsocketTask,
};

/// The errors of Engine.IO itself, with the codes of its reference server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineError {
    UnknownTransport,
    UnknownSid,
    BadMethod,
    BadRequest,
    UnsupportedVersion,
}

impl EngineError {
    pub fn response(self) -> Response<Body> {
        let (code, message) = match self {
            Self::UnknownTransport => (0, "Transport unknown"),
            Self::UnknownSid => (1, "Session ID unknown"),
            Self::BadMethod => (2, "Bad handshake method"),
            Self::BadRequest => (3, "Bad request"),
            Self::UnsupportedVersion => (5, "Unsupported protocol version"),
        };
        let body = serde_json::json!({"code": code, "message": message});
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// What a WebSocket is for: a new connection, or the upgrade of a polling client, which is named by its id or its socket.
pub(super) enum Opening<S = Sid> {
    New(Client),
    Upgrade(S),
}

impl SocketIo {
    /// Opens a new polling connection.
    pub(super) fn open(self: &Arc<Self>, client: Client) -> Response<Body> {
        let socket = Socket::for_polling(self.send_queue, client);
        let packet = self.open_packet(&socket, &["websocket"]);
        self.on_connect(&socket);
        tokio::spawn(self.clone().run_polling(socket));
        text_response(Body::from(packet.payload().to_vec()))
    }

    /// Answers a client's request for packets, when there are packets.
    pub(super) async fn poll(&self, sid: Sid) -> Response<Body> {
        let Some(socket) = self.sockets.get(sid) else { return EngineError::UnknownSid.response() };
        let Some(poll) = socket.begin_poll() else {
            // A late request of a client that has upgraded to a WebSocket meanwhile must not close the connection.
            if socket.is_polling() {
                socket.close(DisconnectReason::MultiplePolling);
            }
            return EngineError::BadRequest.response();
        };
        let answer = match poll.answer().await {
            PollAnswer::Packets(packets) => AnswerBody::new(encode_payload(&packets), Some(socket.clone())),
            PollAnswer::Nothing => AnswerBody::<Socket>::new(encode_payload(&[Packet::noop()]), None),
        };
        text_response(Body::new(answer))
    }

    /// A client sends packets.
    pub(super) fn post(self: &Arc<Self>, sid: Sid, body: &Bytes) -> Response<Body> {
        let Some(socket) = self.sockets.get(sid) else { return EngineError::UnknownSid.response() };
        if !socket.is_polling() {
            // The client has upgraded. Messages that were sent after this one may already have come on the WebSocket.
            return EngineError::BadRequest.response();
        }
        let Ok(body) = std::str::from_utf8(body) else {
            socket.close(DisconnectReason::Malformed);
            return EngineError::BadRequest.response();
        };
        for packet in body.split(char::from(SEPARATOR)) {
            match packet.as_bytes().first() {
                Some(b'4') => self.on_message(&packet[1..], &socket),
                Some(b'b') => self.on_binary(&socket),
                Some(b'3' | b'2') => socket.record_pong(),
                Some(b'1') => _ = socket.close(DisconnectReason::ClientClose),
                _ => {
                    socket.close(DisconnectReason::Malformed);
                    return EngineError::BadRequest.response();
                }
            }
            if socket.is_closed() {
                break;
            }
        }
        text_response(Body::from("ok"))
    }

    /// Starts a WebSocket, for a new connection or for the polling client with this id.
    pub(super) fn begin_websocket(
        self: &Arc<Self>,
        parts: &mut request::Parts,
        opening: Opening,
    ) -> Response<Body> {
        let Some((upgrade, response)) = accept_upgrade(parts) else {
            return EngineError::BadRequest.response();
        };
        let opening = match opening {
            Opening::New(client) => Opening::New(client),
            Opening::Upgrade(sid) => match self.sockets.get(sid) {
                Some(socket) => Opening::Upgrade(socket),
                None => return EngineError::UnknownSid.response(),
            },
        };
        tokio::spawn(self.clone().websocket(upgrade, opening));
        response
    }

    async fn websocket(self: Arc<Self>, upgrade: OnUpgrade, opening: Opening<Arc<Socket>>) {
        let Some((tcp, rest)) = handed_over(upgrade).await else { return };
        let mut task = WebsocketTask::new(SocketIoHandler::new(self.clone()), tcp, rest);
        let tcp = task.tcp();
        match opening {
            Opening::New(client) => {
                let socket = Socket::for_websocket(self.send_queue, client, tcp.shared());
                socket.client.limit_unauthenticated(&tcp.handle(), self.read_limits.unauthenticated);
                socket.client.set_tcp(tcp.handle());
                socket.send_now(self.open_packet(&socket, &[]));
                self.on_connect(&socket);
                // This gets a task of its own, because the future of the current task is larger.
                tokio::spawn(task.run(socket, Instant::now()));
            }
            Opening::Upgrade(socket) => {
                // If the client has already upgraded, this second WebSocket is dropped.
                if socket.is_polling() {
                    socket.client.limit_unauthenticated(&tcp.handle(), self.read_limits.unauthenticated);
                    if let Some(pinged) = upgrade_client(&mut task, &socket).await {
                        tokio::spawn(task.run(socket, pinged));
                    }
                }
            }
        }
    }

    fn open_packet(&self, socket: &Socket, upgrades: &[&str]) -> Packet {
        let heartbeat = &self.heartbeat;
        Packet::open(
            &serde_json::json!({
                "sid": socket.own.id.to_string(),
                "upgrades": upgrades,
                "pingInterval": millis(heartbeat.interval),
                "pingTimeout": millis(heartbeat.timeout),
                "maxPayload": self.read_limits.body(),
            })
            .to_string(),
        )
    }

    /// The task of a polling client: it keeps the heartbeat until the client moves to a WebSocket, or the connection ends.
    async fn run_polling(self: Arc<Self>, socket: Arc<Socket>) {
        self.run_heartbeat(&socket).await;
        if let Some(reason) = socket.polling_end() {
            self.on_disconnect(&socket, reason);
        }
    }

    /// The heartbeat of a polling client. A WebSocket's task keeps its own.
    async fn run_heartbeat(&self, socket: &Socket) {
        let heartbeat = &self.heartbeat;
        let mut next = tokio::time::Instant::now();
        loop {
            // The interval runs from ping to ping, so that the late answer of a slow client does not delay the next ping.
            next += heartbeat.interval;
            if timeout_at(next, socket.polling_ended()).await.is_ok() {
                return;
            }
            next = tokio::time::Instant::now();
            socket.clear_pong();
            socket.ping();
            while let Some(due) = pong_deadline(socket, heartbeat.timeout) {
                match timeout_at(due.into(), socket.wait_for_polling_pong()).await {
                    Ok(true) => break,
                    Ok(false) => return,
                    // The deadline has moved, for example because bytes have left meanwhile.
                    Err(_)
                        if pong_deadline(socket, heartbeat.timeout)
                            .is_some_and(|due| due > Instant::now()) => {}
                    Err(_) => {
                        socket.close(DisconnectReason::HeartbeatTimeout);
                        return;
                    }
                }
            }
        }
    }
}

/// The deadline for the client's answer to a ping. `None` means that this is no longer a polling connection.
fn pong_deadline(socket: &Socket, timeout: Duration) -> Option<Instant> {
    let due = socket.pong_deadline(timeout)?;
    // A client sends one request after the other, so its answer to a ping waits for the end of a large request.
    Some(if socket.own.posts.is_reading() { due + BODY_TIMEOUT } else { due })
}

impl PollingClient for Socket {
    fn record_sent(&self, bytes: usize) {
        Socket::record_sent(self, bytes);
    }

    fn break_off(&self) {
        if self.is_polling() {
            self.close(DisconnectReason::TransportError);
        }
    }
}

/// Encodes packets as the body of an answer to a polling request.
fn encode_payload(packets: &[Packet]) -> Bytes {
    let length = packets.iter().map(|packet| packet.payload().len() + 1).sum();
    let mut body = Vec::with_capacity(length);
    for packet in packets {
        if !body.is_empty() {
            body.push(SEPARATOR);
        }
        body.extend_from_slice(packet.payload());
    }
    body.into()
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn text_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}
