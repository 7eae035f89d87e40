//! The checks of a request for a connection before it reaches its transport: the page's origin, tokens in the query, shutdown, capacity,
//! the rate of new connections, and the size of bodies. All transports share it.

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
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::any,
};
use http::{HeaderValue, StatusCode, Uri, header};
use tokio::time::timeout;

use super::TcpHandle;
use crate::{
    address::ClientAddress,
    edge::{
        BodyError, Capacity, CorsRule, OriginRule, UnauthenticatedLimits, UnauthenticatedPermit,
        check_origin, cors, error_response, read_body,
    },
    metrics::{Metrics, RejectReason},
    rate_limit::RateLimited,
    rate_limited_log::rate_limited_log,
};

/// The timeout for the body of a polling request. A client sends a body at once. The server holds its first bytes until the last
/// ones have come.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// The timeout before the client has shown a token. The token is all that the client has to send.
const UNAUTHENTICATED_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a request that the gate does not let through.
pub(super) type Refused = Box<Response>;

#[derive(Clone, Debug)]
pub struct Gate {
    pub cors: CorsRule,
    pub origin: OriginRule,
    pub unauthenticated_limits: Arc<UnauthenticatedLimits>,
    pub draining: Arc<AtomicBool>,
    pub capacity: Capacity,
    pub metrics: Arc<Metrics>,
}

/// A transport behind the gate.
pub(super) trait BehindGate: Clone + Send + Sync + 'static {
    /// Answers a request that carries no token in its query.
    fn answer(
        &self,
        gate: &Gate,
        request: Request,
        address: ClientAddress,
        tcp: TcpHandle,
    ) -> impl Future<Output = Result<Response, Refused>> + Send;
}

#[derive(Clone)]
struct Mounted<T> {
    transport: T,
    gate: Gate,
}

async fn handle<T: BehindGate>(
    State(Mounted { transport, gate }): State<Mounted<T>>,
    Extension(address): Extension<ClientAddress>,
    Extension(tcp): Extension<TcpHandle>,
    request: Request,
) -> Response {
    let answer = match gate.check_query(request.uri()) {
        Ok(()) => transport.answer(&gate, request, address, tcp).await,
        Err(refused) => Err(refused),
    };
    answer.unwrap_or_else(|refused| *refused)
}

impl Gate {
    /// The routes of this transport. Metrics count its requests under `label`.
    pub(super) fn mount<T: BehindGate>(self, paths: &[&str], label: &'static str, transport: T) -> Router {
        let routes = paths.iter().fold(Router::new(), |routes, path| routes.route(path, any(handle::<T>)));
        let routes = routes.with_state(Mounted { transport, gate: self.clone() });
        self.guard(routes, label)
    }

    /// Lets only pages use these routes that are allowed to, and counts the requests.
    fn guard(self, routes: Router, label: &'static str) -> Router {
        let Self { cors: cors_rule, origin, metrics, .. } = self;
        routes
            .layer(from_fn_with_state(cors_rule, cors))
            .layer(from_fn_with_state(origin, check_origin))
            .layer(from_fn_with_state((metrics, label), observe))
    }

    fn check_query(&self, uri: &Uri) -> Result<(), Refused> {
        if !has_token(uri) {
            return Ok(());
        }
        rate_limited_log!(info, "refused a token in a query string");
        Err(self.refused(
            StatusCode::BAD_REQUEST,
            RejectReason::TokenInQuery,
            "A token in the query string ends up in logs: send it in a message or in the Authorization header",
        ))
    }

    /// Decides whether a new connection is admitted.
    pub(super) fn admit(&self, address: ClientAddress) -> Result<Arc<UnauthenticatedPermit>, Refused> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(self.refused(
                StatusCode::SERVICE_UNAVAILABLE,
                RejectReason::Draining,
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
                RejectReason::Overloaded,
                "This node has no room for more clients",
            );
            // Closing the connection frees its slot for another client.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Err(response);
        }
        self.unauthenticated_limits.admit(address).map_err(|limited| self.too_many_connections(limited))
    }

    /// Reads a body of at most `max` bytes.
    pub(super) async fn read(&self, body: Body, max: usize, authenticated: bool) -> Result<Bytes, Refused> {
        let body_timeout = if authenticated { BODY_TIMEOUT } else { UNAUTHENTICATED_BODY_TIMEOUT };
        match timeout(body_timeout, read_body(body, max)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(BodyError::TooLarge { bytes })) => {
                log_too_large(bytes, max, authenticated);
                Err(self.refused(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    RejectReason::PayloadTooLarge,
                    "The request body is too large",
                ))
            }
            // The client has disconnected and does not get this answer.
            Ok(Err(BodyError::Incomplete)) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                Err(Box::new(response))
            }
            Err(_) => Err(self.refused(
                StatusCode::REQUEST_TIMEOUT,
                RejectReason::RequestTimeout,
                "The request body took too long",
            )),
        }
    }

    pub(super) fn overlapping_posts(&self) -> Refused {
        self.refused(
            StatusCode::BAD_REQUEST,
            RejectReason::OverlappingRequests,
            "Too many POST requests at once: a polling client sends one after the other",
        )
    }

    /// Answers 429. The JavaScript client treats this as a network error, and retries by itself.
    fn too_many_connections(&self, RateLimited { retry_after }: RateLimited) -> Refused {
        rate_limited_log!(
            warn,
            "refused connections: one address opens too many, or has too many without a token"
        );
        let mut response = self.refused(
            StatusCode::TOO_MANY_REQUESTS,
            RejectReason::RateLimited,
            "Too many connections from this address",
        );
        let seconds = retry_after.as_secs() + 1;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }

    pub(super) fn refused(&self, status: StatusCode, reason: RejectReason, message: &str) -> Refused {
        self.metrics.clients.rejected.inc(reason);
        Box::new(error_response(status, reason.into(), message))
    }
}

/// Counts the request, and tells caches and browsers not to keep or interpret the answer.
async fn observe(
    State((metrics, label)): State<(Arc<Metrics>, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let mut response = next.run(request).await;
    metrics.http.answered(label, &method, response.status());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns whether the query contains a token, which would end up in logs.
fn has_token(uri: &Uri) -> bool {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut names = pairs.map(|pair| pair.split('=').next().unwrap_or_default());
    names.any(|name| {
        matches!(
            name.to_ascii_lowercase().as_str(),
            "token" | "access_token" | "auth" | "jwt" | "authorization"
        )
    })
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
