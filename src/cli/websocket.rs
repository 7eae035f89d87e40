//! Opens WebSockets to a gateway, for `tail` and `check --url`.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config, tungstenite::Error,
};

use super::gateway_url::GatewayUrl;
use crate::http_client::tls_config;

pub(super) type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) async fn open_websocket(gateway: &GatewayUrl) -> Result<WebSocket, Error> {
    let tls = Connector::Rustls(Arc::new(tls_config()));
    let opened = connect_async_tls_with_config(gateway.websocket_url(), None, false, Some(tls)).await;
    opened.map(|(socket, _)| socket)
}
