//! Turns an HTTP request into a WebSocket (RFC 6455 section 4.2).

use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header, request};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::TcpConnection;

/// The timeout between the answer 101 and the moment when hyper hands the connection over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that can become a WebSocket, with the answer to it. `None` means that the request is not valid.
pub(super) fn accept_upgrade(parts: &mut request::Parts) -> Option<(OnUpgrade, Response<Body>)> {
    let accept = accept_key(parts)?;
    let upgrade = parts.extensions.remove::<OnUpgrade>()?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Some((upgrade, response))
}

/// Waits until hyper hands the connection over. Also returns what has been read behind the request.
pub(super) async fn handed_over(upgrade: OnUpgrade) -> Option<(TcpConnection, Vec<u8>)> {
    let upgraded = timeout(HANDOVER_TIMEOUT, upgrade).await.ok()?.ok()?;
    // `read_buf` is a slice of the 8 KiB buffer that the request was read into. It is copied to free that buffer.
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TcpConnection>>().ok()?;
    Some((io.into_inner(), read_buf.to_vec()))
}

/// The value of `Sec-WebSocket-Accept`, if the request is a valid upgrade.
fn accept_key(parts: &request::Parts) -> Option<HeaderValue> {
    let has = |name, wanted: &str| {
        let values = parts.headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let is_upgrade = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_upgrade)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}
