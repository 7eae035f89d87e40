use futures_util::StreamExt;
use tokio_tungstenite::tungstenite;

use super::*;
use crate::transport::{TcpConnection, client::Client, outbox::Packet as _, test_wire::wire};

fn socket(connection: &TcpConnection) -> Arc<JsonSocket> {
    let socket = JsonSocket::websocket(Json::new(1), 1000, Client::default(), connection.shared());
    socket.client.set_tcp(connection.handle());
    socket
}

fn message(n: u64) -> Message {
    Message::reply(n, &"x".repeat(50_000))
}

/// Queues messages until the kernel accepts no more and some wait. Returns their number.
fn fill(socket: &JsonSocket) -> u64 {
    let mut queued = 0;
    while !socket.is_stalled() || queued % 20 > 0 {
        socket.send(message(queued)).expect("room");
        socket.flush();
        queued += 1;
    }
    queued
}

/// Does what the connection's task does with a connection that is closed.
async fn finish(socket: &JsonSocket, connection: &TcpConnection) {
    while !socket.has_sent_all() {
        connection.shared().writable().await.unwrap();
        socket.resume();
    }
    let frame = socket.own.close_frame();
    while connection.shared().try_write(&[std::io::IoSlice::new(&frame)]).is_err() {
        connection.shared().writable().await.unwrap();
    }
}

/// Reads the texts before the close frame, and the code of the close frame.
async fn read_to_end(
    client: &mut (impl StreamExt<Item = tungstenite::Result<tungstenite::Message>> + Unpin),
) -> (Vec<String>, u16) {
    let mut texts = Vec::new();
    loop {
        match client.next().await.unwrap().unwrap() {
            tungstenite::Message::Text(text) => texts.push(text.to_string()),
            tungstenite::Message::Close(Some(close)) => return (texts, close.code.into()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_in_order_sends_its_queue_and_then_the_code() {
    let (connection, mut client) = wire().await;
    let socket = socket(&connection);
    let queued = fill(&socket);
    socket.clone().close_in_order(CloseReason::TokenEnded);
    socket.clone().evict();
    assert!(matches!(socket.send(message(0)), Err(SendError::Closed)));
    let (_, (texts, code)) = tokio::join!(finish(&socket, &connection), read_to_end(&mut client));
    assert_eq!((texts.len() as u64, code), (queued, 4401), "the first code counts");
}

#[tokio::test]
async fn a_connection_that_is_closed_now_ends_its_frame_and_sends_the_code() {
    let (connection, mut client) = wire().await;
    let socket = socket(&connection);
    let queued = fill(&socket);
    socket.clone().close_now(CloseReason::Overloaded);
    let (_, (texts, code)) = tokio::join!(finish(&socket, &connection), read_to_end(&mut client));
    assert_eq!(code, 1013);
    assert!((texts.len() as u64) < queued, "{} of {queued}", texts.len());
    for (n, text) in texts.iter().enumerate() {
        let frame = Json::encode(&message(n as u64));
        assert_eq!(text, frame.text(), "whole messages, in order: {}", frame.frame().len());
    }
}

#[tokio::test]
async fn pongs_overtake_messages_and_their_number_is_limited() {
    let (connection, _client) = wire().await;
    let socket = socket(&connection);
    let queued = fill(&socket);
    for _ in 0..1000 {
        socket.send_before_messages(JsonFrame::pong());
    }
    let core = socket.core.lock();
    let waiting = core.outbox.queue.len();
    let pongs = core.outbox.queue.iter().filter(|frame| **frame == JsonFrame::pong()).count();
    assert!((63..=64).contains(&pongs), "{pongs}");
    assert!(waiting < queued as usize + pongs, "messages have left before");
    assert!(core.outbox.queue.iter().skip(1).take(pongs).all(|frame| !frame.is_message()));
}
