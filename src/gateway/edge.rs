//! Checks each Socket.IO request before a transport handles it: `Origin`, CORS, query, shutdown, capacity, rate, and body size.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    address::ClientAddress,
    auth::bearer,
    config::{Origins, TrustedProxies},
    cors::{allow, allow_preflight, varies},
    rate_limited_log::rate_limited_log,
};

use super::{
    Capacity, Gateway, TransportHandle,
    body::{BodyError, whole},
    origin,
    polling::EngineError,
    query::Query,
    rate::TooMany,
    session::Connection,
    socket::TransportType,
};

/// The timeout for the body of a polling request. A client sends a body at once. The server holds its first bytes until the last
/// ones have come.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// The timeout before the client has shown a token. The token is all that the client has to send.
const UNAUTHENTICATED_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The log shows this many bytes of a refused `Origin`.
const MAX_SHOWN: usize = 100;
/// The methods that pages may use, and the headers of an answer that they may read.
const METHODS: &str = "GET, POST";
const EXPOSED: &str = "Retry-After";

/// The Socket.IO path of the listener.
#[derive(Clone, Debug)]
pub struct Edge {
    gateway: Arc<Gateway>,
    origins: Origins,
    proxies: TrustedProxies,
    draining: Arc<AtomicBool>,
    capacity: Capacity,
}

impl Edge {
    pub fn new(
        gateway: Arc<Gateway>,
        origins: Origins,
        proxies: TrustedProxies,
        draining: Arc<AtomicBool>,
        capacity: Capacity,
    ) -> Self {
        Self { gateway, origins, proxies, draining, capacity }
    }

    pub fn serves(path: &str) -> bool {
        path.strip_prefix("/socket.io").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub async fn call(
        &mut self,
        request: Request<Incoming>,
        peer: SocketAddr,
        address: ClientAddress,
        transport: TransportHandle,
    ) -> Response<Body> {
        let origin = request.headers().get(header::ORIGIN).cloned();
        if !origin::allows(request.headers(), &self.origins, &self.proxies, peer.ip()) {
            rate_limited_log!(
                info,
                origin = shown(origin.as_ref()),
                "refused an Origin that is not in WEBSOCKET_CORS_ORIGIN"
            );
            let mut response =
                self.refused(StatusCode::FORBIDDEN, "forbidden_origin", "This Origin is not allowed");
            varies(response.headers_mut());
            return response;
        }
        let mut response = self.admitted(request, address, transport).await;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        varies(headers);
        if let Some(origin) = origin {
            allow(headers, origin, EXPOSED);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        response
    }

    async fn admitted(
        &mut self,
        request: Request<Incoming>,
        address: ClientAddress,
        transport: TransportHandle,
    ) -> Response<Body> {
        if request.method() == Method::OPTIONS {
            return preflight(request.headers());
        }
        if Query::has_token(request.uri()) {
            rate_limited_log!(info, "refused a token in a query string");
            return self.refused(
                StatusCode::BAD_REQUEST,
                "token_in_query",
                "A token in the query string ends up in logs: send it as auth.token or in the Authorization header",
            );
        }
        let query = match Query::of(request.uri()) {
            Ok(query) => query,
            Err(error) => return error.response(),
        };
        if query.sid.is_none() && self.draining.load(Ordering::Relaxed) {
            return self.refused(StatusCode::SERVICE_UNAVAILABLE, "draining", "This node is shutting down");
        }
        if query.sid.is_none() && self.capacity.is_scarce() {
            rate_limited_log!(
                warn,
                open = self.capacity.open(),
                "refused connections: file descriptors or memory are scarce"
            );
            let mut response = self.refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "This node has no room for more clients",
            );
            // Closing the connection frees its slot for another client.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
        let newcomer = match query.sid {
            Some(_) => None,
            None => match self.gateway.newcomers.admit(address) {
                Ok(newcomer) => Some(newcomer),
                Err(TooMany { retry_after }) => return self.too_many(retry_after),
            },
        };
        let authenticated = query.sid.is_some_and(|sid| self.gateway.sockets.is_authenticated(sid));
        let (max_body_bytes, body_timeout) = match authenticated {
            true => (self.gateway.max_body_bytes(), BODY_TIMEOUT),
            false => (self.gateway.unauthenticated_bytes(), UNAUTHENTICATED_BODY_TIMEOUT),
        };
        let (mut parts, body) = request.into_parts();
        let post = query.sid.filter(|_| parts.method == Method::POST);
        let Ok(_posting) = post.map(|sid| self.gateway.sockets.begin_post(sid)).transpose() else {
            return self.refused(
                StatusCode::BAD_REQUEST,
                "overlapping_requests",
                "Too many POST requests at once: a polling client sends one after the other",
            );
        };
        let max_body_bytes = if parts.method == Method::POST { max_body_bytes } else { 0 };
        let reading = whole(body, max_body_bytes);
        let body = match timeout(body_timeout, reading).await {
            Ok(Ok(body)) => body,
            Ok(Err(BodyError::TooLarge { bytes })) => {
                log_too_large(bytes, max_body_bytes, authenticated);
                return self.refused(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "payload_too_large",
                    "The request body is too large",
                );
            }
            // The client has disconnected and does not get this answer.
            Ok(Err(BodyError::BrokenOff)) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                return response;
            }
            Err(_) => {
                return self.refused(
                    StatusCode::REQUEST_TIMEOUT,
                    "request_timeout",
                    "The request body took too long",
                );
            }
        };
        if authenticated {
            transport.trust();
        }
        let connection = || Connection::new(newcomer, bearer(&parts.headers).map(str::to_owned));
        match (query.transport, &parts.method, query.sid) {
            (TransportType::Polling, &Method::GET, None) => self.gateway.open(connection()),
            (TransportType::Polling, &Method::GET, Some(sid)) => self.gateway.poll(sid).await,
            (TransportType::Polling, &Method::POST, Some(sid)) => self.gateway.post(sid, &body),
            (TransportType::Websocket, &Method::GET, sid) => {
                let connection = sid.map_or_else(|| Ok(connection()), Err);
                self.gateway.begin_websocket(&mut parts, connection)
            }
            _ => EngineError::BadMethod.response(),
        }
    }

    /// Answers 429. The JavaScript client treats this as a network error, and retries by itself.
    fn too_many(&self, retry_after: Duration) -> Response<Body> {
        rate_limited_log!(
            warn,
            "refused connections: one address opens too many, or has too many without a token"
        );
        let mut response = self.refused(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "Too many connections from this address",
        );
        let seconds = retry_after.as_secs() + 1;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }

    fn refused(&self, status: StatusCode, code: &'static str, message: &str) -> Response<Body> {
        self.gateway.metrics.clients.turned_away.inc([code]);
        let body = serde_json::json!({"error": {"code": code, "message": message}});
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn log_too_large(bytes: usize, max: usize, authenticated: bool) {
    match authenticated {
        true => rate_limited_log!(info, bytes, max, "refused a polling request: its body is too large"),
        false => rate_limited_log!(
            warn,
            bytes,
            max,
            "refused a polling request of a client without a token: its body is too large; MAX_TOKEN_BYTES raises this limit"
        ),
    }
}

/// The refused `Origin` as the log shows it.
fn shown(origin: Option<&HeaderValue>) -> Option<&str> {
    let text = origin?.to_str().ok()?;
    // The text is ASCII, so it can be cut at any byte.
    Some(&text[..text.len().min(MAX_SHOWN)])
}

fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow_preflight(asked, response.headers_mut(), METHODS);
    response
}
