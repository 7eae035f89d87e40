//! The route of Socket.IO, and what is checked before a request reaches a socket: query, shutdown, capacity, rate, and body size.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::from_fn_with_state,
    response::Response,
    routing::any,
};
use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::timeout;

use super::{
    SocketIo,
    client::Client,
    polling::EngineError,
    query::Query,
    socket::TransportType,
};
use crate::{
    address::ClientAddress,
    auth::bearer,
    edge::{BodyError, Capacity, CorsRule, Newcomer, OriginRule, check_origin, cors, error_response, whole},
    rate_limit::RateLimited,
    rate_limited_log::rate_limited_log,
    transport::TcpHandle,
};

/// The timeout for the body of a polling request. A client sends a body at once. The server holds its first bytes until the last
/// ones have come.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// The timeout before the client has shown a token. The token is all that the client has to send.
const UNAUTHENTICATED_BODY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct SocketIoRoutes {
    pub server: Arc<SocketIo>,
    pub cors: CorsRule,
    pub origin: OriginRule,
    pub draining: Arc<AtomicBool>,
    pub capacity: Capacity,
}

pub fn routes(state: SocketIoRoutes) -> Router {
    let (origin_rule, cors_rule) = (state.origin.clone(), state.cors.clone());
    Router::new()
        .route("/socket.io", any(handle))
        .route("/socket.io/", any(handle))
        .route("/socket.io/{*rest}", any(handle))
        .with_state(state)
        .layer(from_fn_with_state(cors_rule, cors))
        .layer(from_fn_with_state(origin_rule, check_origin))
}

async fn handle(
    State(state): State<SocketIoRoutes>,
    Extension(address): Extension<ClientAddress>,
    Extension(tcp): Extension<TcpHandle>,
    request: Request,
) -> Response {
    state.answer(request, address, tcp).await.unwrap_or_else(|refused| refused)
}

impl SocketIoRoutes {
    async fn answer(
        &self,
        request: Request,
        address: ClientAddress,
        tcp: TcpHandle,
    ) -> Result<Response, Response> {
        if Query::has_token(request.uri()) {
            rate_limited_log!(info, "refused a token in a query string");
            return Err(self.refused(
                StatusCode::BAD_REQUEST,
                "token_in_query",
                "A token in the query string ends up in logs: send it as auth.token or in the Authorization header",
            ));
        }
        let query = Query::of(request.uri()).map_err(EngineError::response)?;
        let newcomer = match query.sid {
            Some(_) => None,
            None => Some(self.admit(address)?),
        };
        let server = &self.server;
        let authenticated = query.sid.is_some_and(|sid| server.sockets.is_authenticated(sid));
        let (mut parts, body) = request.into_parts();
        let post = query.sid.filter(|_| parts.method == Method::POST);
        let Ok(_posting) = post.map(|sid| server.sockets.begin_post(sid)).transpose() else {
            return Err(self.refused(
                StatusCode::BAD_REQUEST,
                "overlapping_requests",
                "Too many POST requests at once: a polling client sends one after the other",
            ));
        };
        let body = self.read(body, parts.method == Method::POST, authenticated).await?;
        if authenticated {
            tcp.trust();
        }
        let client = || Client::new(newcomer, bearer(&parts.headers).map(str::to_owned));
        Ok(match (query.transport, &parts.method, query.sid) {
            (TransportType::Polling, &Method::GET, None) => server.open(client()),
            (TransportType::Polling, &Method::GET, Some(sid)) => server.poll(sid).await,
            (TransportType::Polling, &Method::POST, Some(sid)) => server.post(sid, &body),
            (TransportType::Websocket, &Method::GET, sid) => {
                let client = sid.map_or_else(|| Ok(client()), Err);
                server.begin_websocket(&mut parts, client)
            }
            _ => EngineError::BadMethod.response(),
        })
    }

    /// Decides whether a new connection is admitted.
    fn admit(&self, address: ClientAddress) -> Result<Arc<Newcomer>, Response> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(self.refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "This node is shutting down",
            ));
        }
        if self.capacity.is_scarce() {
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
            return Err(response);
        }
        self.server.newcomers.admit(address).map_err(|limited| self.too_many(limited))
    }

    /// Reads the body of a `POST`. Other requests have none.
    async fn read(&self, body: Body, is_post: bool, authenticated: bool) -> Result<Bytes, Response> {
        let (max, body_timeout) = match authenticated {
            true => (self.server.max_body_bytes(), BODY_TIMEOUT),
            false => (self.server.unauthenticated_bytes(), UNAUTHENTICATED_BODY_TIMEOUT),
        };
        let max = if is_post { max } else { 0 };
        match timeout(body_timeout, whole(body, max)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(BodyError::TooLarge { bytes })) => {
                log_too_large(bytes, max, authenticated);
                Err(self.refused(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "payload_too_large",
                    "The request body is too large",
                ))
            }
            // The client has disconnected and does not get this answer.
            Ok(Err(BodyError::BrokenOff)) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                Err(response)
            }
            Err(_) => Err(self.refused(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "The request body took too long",
            )),
        }
    }

    /// Answers 429. The JavaScript client treats this as a network error, and retries by itself.
    fn too_many(&self, RateLimited { retry_after }: RateLimited) -> Response {
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

    fn refused(&self, status: StatusCode, code: &'static str, message: &str) -> Response {
        self.server.metrics.clients.turned_away.inc([code]);
        error_response(status, code, message)
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
