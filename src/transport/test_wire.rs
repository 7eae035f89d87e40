//! Both ends of a WebSocket, for tests.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::TcpConnection;

/// The server's end without a decoder, and the client's end.
pub async fn wire() -> (TcpConnection, WebSocketStream<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let connection = TcpConnection::accept(accepted, Duration::from_secs(60)).unwrap();
    (connection, WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
}
