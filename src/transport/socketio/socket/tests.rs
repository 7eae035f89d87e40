use futures_util::StreamExt;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::*;
use crate::transport::{
    TcpConnection,
    outbox::{MAX_BYTES_PER_WRITE, MAX_SLICES_PER_WRITE, Packet as _},
    socket::MAX_WRITES_PER_FLUSH,
    test_wire::wire,
};

fn polling(capacity: usize) -> Arc<Socket> {
    Socket::for_polling(capacity, Client::default())
}

fn websocket(capacity: usize, connection: &TcpConnection) -> Arc<Socket> {
    Socket::for_websocket(capacity, Client::default(), connection.shared())
}

/// A message of the server whose packet has this text as its session id.
fn message(text: &str) -> crate::wire::Message {
    crate::wire::Message::connected(text, &"a user", crate::wire::Position::ZERO)
}

fn send(socket: &Socket, text: &str) -> Result<(), SendError> {
    if socket.send(message(text))? {
        socket.flush();
    }
    Ok(())
}

async fn expect_message(client: &mut WebSocketStream<TcpStream>, text: &str) {
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text(format!(r#"40{{"sid":"{text}"}}"#)));
}

/// Does what the connection's own task does when the kernel's buffer has space again.
async fn resume_until_all_is_sent(socket: Arc<Socket>, connection: TcpConnection) -> TcpConnection {
    while !socket.has_sent_all() {
        connection.shared().writable().await.unwrap();
        socket.resume();
    }
    connection
}

fn packets(text: &str) -> PollAnswer {
    let split = text.split(char::from(SEPARATOR));
    PollAnswer::Packets(
        split
            .map(|packet| {
                if packet == "2" {
                    Packet::ping()
                } else if packet == "1" {
                    Packet::close()
                } else {
                    encode_message(&message(&packet[1..]))
                }
            })
            .collect(),
    )
}

#[tokio::test]
async fn a_client_that_pauses_gets_everything_when_it_reads_again() {
    let (connection, mut client) = wire().await;
    let socket = websocket(100, &connection);
    let text = |n: usize| format!("{n} {}", "x".repeat(n % 7 * 9_000));
    let mut queued = 0;
    while send(&socket, &text(queued)).is_ok() {
        queued += 1;
    }
    assert!(queued > 100 && socket.is_stalled(), "{queued} packets");
    // This packet comes on top of a full queue.
    socket.send_now(encode_message(&message("last")));

    let resumes = tokio::spawn(resume_until_all_is_sent(socket.clone(), connection));
    for n in 0..queued {
        expect_message(&mut client, &text(n)).await;
    }
    expect_message(&mut client, "last").await;
    resumes.await.unwrap();
    assert!(!socket.is_stalled());
}

#[tokio::test]
async fn nothing_is_sent_after_a_connection_fails_within_a_packet() {
    let (connection, _client) = wire().await;
    let socket = websocket(100, &connection);
    while !socket.is_stalled() {
        send(&socket, &"x".repeat(50_000)).unwrap();
    }
    socket.close(DisconnectReason::TransportError);
    socket.queue_control_frames(vec![0x8A, 0]);
    assert!(socket.has_sent_all());
}

#[tokio::test]
async fn a_ping_overtakes_messages_and_interrupts_none() {
    let (connection, mut client) = wire().await;
    let socket = websocket(100, &connection);
    let text = |n: usize| format!("{n} {}", "x".repeat(40_000));
    let mut queued = 0;
    while send(&socket, &text(queued)).is_ok() {
        queued += 1;
    }
    assert!(socket.is_stalled());
    let (written, _) = socket.write_progress();
    let end = socket.ping();
    assert!(end > written && end <= written + 50_000, "behind one message at most: {written}, {end}");
    assert_eq!(socket.ping(), end, "a ping already waits");
    socket.queue_control_frames(vec![0x8A, 0]);
    let resumes = tokio::spawn(resume_until_all_is_sent(socket.clone(), connection));
    let (mut received, mut ping_at, mut pong_at) = (0, None, None);
    while received < queued {
        match client.next().await.unwrap().unwrap() {
            Message::Text(text) if text.as_str() == "2" => assert_eq!(ping_at.replace(received), None),
            Message::Pong(_) => assert_eq!(pong_at.replace(received), None),
            message => {
                assert_eq!(message, Message::text(format!(r#"40{{"sid":"{}"}}"#, text(received))));
                received += 1;
            }
        }
    }
    resumes.await.unwrap();
    assert_eq!(ping_at, pong_at);
    assert!(ping_at.is_some_and(|at| at < queued - 50), "{ping_at:?} of {queued}");
    assert!(socket.write_progress().0 > end);
}

/// The caller of a flush has other connections to flush, and the fan-out may wait for the lock.
#[tokio::test]
async fn a_flush_writes_a_limited_amount_and_leaves_the_rest_to_the_task() {
    let (connection, mut client) = wire().await;
    let socket = websocket(10_000, &connection);
    for n in 0..1000 {
        socket.send(message(&n.to_string())).unwrap();
    }
    socket.flush();
    let waiting = socket.core.lock().outbox.queue.len();
    assert_eq!((waiting, socket.is_stalled()), (1000 - MAX_WRITES_PER_FLUSH * MAX_SLICES_PER_WRITE, true));
    socket.flush();
    assert_eq!(socket.core.lock().outbox.queue.len(), waiting, "the rest is for the task");
    let mut turns = 0;
    while !socket.has_sent_all() {
        socket.resume();
        turns += 1;
    }
    assert_eq!(
        (turns, socket.is_stalled()),
        (waiting.div_ceil(MAX_WRITES_PER_FLUSH * MAX_SLICES_PER_WRITE), false)
    );
    for n in 0..1000 {
        expect_message(&mut client, &n.to_string()).await;
    }
    let large = message(&"x".repeat(4 << 20));
    let (before, _) = socket.write_progress();
    let reading = tokio::spawn(async move { client.next().await.unwrap().unwrap().len() });
    socket.send(large.clone()).unwrap();
    socket.flush();
    while !socket.has_sent_all() {
        let (written, _) = socket.write_progress();
        connection.shared().writable().await.unwrap();
        socket.resume();
        assert!(socket.write_progress().0 - written <= (MAX_WRITES_PER_FLUSH * MAX_BYTES_PER_WRITE) as u64);
    }
    assert_eq!(socket.write_progress().0 - before, encode_message(&large).frame().len() as u64);
    assert_eq!(reading.await.unwrap(), encode_message(&large).payload().len());
}

#[tokio::test]
async fn a_probe_writes_before_the_runtime_reports_room() {
    let (connection, client) = wire().await;
    let socket = websocket(1000, &connection);
    while send(&socket, &"x".repeat(50_000)).is_ok() {}
    let (written, _) = socket.write_progress();
    let mut client = client.into_inner();
    let mut read = 0;
    // The runtime does not run in between, so it cannot notice that there is room.
    while socket.write_progress().0 == written {
        let mut some = [0; 16 * 1024];
        client.readable().await.unwrap();
        read += client.try_read(&mut some).unwrap_or(0);
        socket.retry_write();
        assert!(socket.is_stalled() && read < 64 << 20);
    }
    let _ = client.shutdown().await;
}

#[test]
fn the_fan_out_is_told_once_that_there_is_room() {
    let socket = polling(2);
    let is_reported = || {
        let mut core = socket.core.lock();
        core.take_space_request(2)
    };
    assert!(!is_reported());
    send(&socket, "a").unwrap();
    send(&socket, "b").unwrap();
    assert!(!is_reported(), "the fan-out does not wait for room");
    assert!(matches!(send(&socket, "c"), Err(SendError::Full(_))));
    assert!(!is_reported(), "there is no room");
    socket.core.lock().outbox.queue.pop_front();
    assert!(is_reported() && !is_reported());
    send(&socket, "d").unwrap();
    assert!(matches!(send(&socket, "e"), Err(SendError::Full(_))));
    socket.close(DisconnectReason::ClosedHere);
    assert!(!socket.core.lock().outbox.space_requested, "it does not wait for a closed connection");
}

#[tokio::test]
async fn a_ping_overtakes_the_queued_messages_of_a_polling_client() {
    let socket = polling(3);
    send(&socket, "a").unwrap();
    send(&socket, "b").unwrap();
    socket.ping();
    socket.ping();
    assert_eq!(socket.begin_poll().unwrap().answer().await, packets("2\u{1e}4a\u{1e}4b"));
}

#[tokio::test]
async fn an_answer_to_a_polling_client_has_a_size_limit() {
    let socket = polling(100);
    let large = "x".repeat(MAX_POLLED_BYTES / 2);
    for n in 0..4 {
        send(&socket, &format!("{n}{large}")).unwrap();
    }
    send(&socket, &large.repeat(4)).unwrap();
    let mut answers = Vec::new();
    while !socket.has_sent_all() {
        let PollAnswer::Packets(packets) = socket.begin_poll().unwrap().answer().await else {
            unreachable!()
        };
        answers.push(packets.len());
    }
    assert_eq!(answers, [1, 1, 1, 1, 1], "two packets are more than the limit");
}

#[tokio::test]
async fn one_polling_request_at_a_time_gets_the_queued_packets() {
    let socket = polling(3);
    send(&socket, "a").unwrap();
    send(&socket, "b").unwrap();
    let poll = socket.begin_poll().unwrap();
    assert!(socket.begin_poll().is_none(), "one at a time");
    assert_eq!(poll.answer().await, packets("4a\u{1e}4b"));
    for text in ["c", "d", "e"] {
        send(&socket, text).unwrap();
    }
    assert!(matches!(send(&socket, "f"), Err(SendError::Full(_))));
    socket.send_now(Packet::ping());
    assert_eq!(socket.begin_poll().unwrap().answer().await, packets("4c\u{1e}4d\u{1e}4e\u{1e}2"));
}

#[tokio::test]
async fn a_waiting_request_gets_the_queued_packets_and_then_the_end() {
    let socket = polling(3);
    let waiting = tokio::spawn({
        let socket = socket.clone();
        async move { socket.begin_poll().unwrap().answer().await }
    });
    while !socket.has_pending_poll() {
        tokio::task::yield_now().await;
    }
    socket.send(message("bye")).unwrap();
    socket.close(DisconnectReason::ClosedHere);
    assert_eq!(waiting.await.unwrap(), packets("4bye\u{1e}1"));
    assert!(matches!(send(&socket, "late"), Err(SendError::Closed)));
    let broken = polling(3);
    send(&broken, "lost").unwrap();
    broken.close(DisconnectReason::TransportError);
    assert_eq!(broken.begin_poll().unwrap().answer().await, packets("1"));
}

#[tokio::test]
async fn a_client_that_breaks_off_its_request_ends_the_session() {
    let socket = polling(3);
    assert!(futures_util::FutureExt::now_or_never(socket.begin_poll().unwrap().answer()).is_none());
    assert_eq!(socket.closed_for(), Some(DisconnectReason::TransportError));
}

#[tokio::test]
async fn a_client_that_closes_the_session_is_not_sent_the_same() {
    let (idle, busy) = (polling(3), polling(3));
    send(&busy, "last").unwrap();
    idle.close(DisconnectReason::ClientClose);
    busy.close(DisconnectReason::ClientClose);
    assert_eq!(idle.begin_poll().unwrap().answer().await, PollAnswer::Nothing);
    assert_eq!(busy.begin_poll().unwrap().answer().await, packets("4last"));
}

#[tokio::test]
async fn after_an_upgrade_everything_is_sent_on_the_websocket() {
    let (connection, mut client) = wire().await;
    let socket = polling(3);
    let poll = socket.begin_poll().unwrap();
    assert!(socket.begin_upgrade() && !socket.begin_upgrade(), "once");
    assert_eq!(poll.answer().await, PollAnswer::Nothing);
    send(&socket, "a").unwrap();
    assert!(socket.upgrade(connection.shared()).is_some());
    send(&socket, "b").unwrap();
    expect_message(&mut client, "a").await;
    expect_message(&mut client, "b").await;
    assert!(socket.begin_poll().is_none(), "it accepts no polling request any more");

    let ended = polling(3);
    ended.close(DisconnectReason::ClosedHere);
    assert!(ended.upgrade(connection.shared()).is_none());
}
