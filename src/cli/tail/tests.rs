//! Tests the client with a minimal gateway that sends what the test tells it to send.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// The output so far. A test can close it like a pipe.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<(Vec<u8>, bool)>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().expect("not poisoned");
        if state.1 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").0.clone()).expect("UTF-8")
    }
}

struct Gateway(TcpListener);

struct Peer(WebSocketStream<TcpStream>);

impl Gateway {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    fn tail(&self, task: Option<&str>, out: Output) -> JoinHandle<Result<(), CliError>> {
        let client = Tail {
            gateway: GatewayUrl::local(self.0.local_addr().expect("bound")),
            credentials: Credentials::Given("the-token".into()),
            rooms: Rooms::new(task.map(str::to_owned)),
            printer: Printer::new(out, true),
            backoff: Backoff::new(Duration::from_millis(5), Duration::from_millis(20)),
        };
        tokio::spawn(client.run())
    }

    /// Accepts the next connection and reads up to the client's token.
    async fn connected(&self) -> Peer {
        let (stream, _) = timeout(DEADLINE, self.0.accept()).await.expect("in time").expect("a connection");
        let mut peer = Peer(tokio_tungstenite::accept_async(stream).await.expect("a WebSocket"));
        peer.send(r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#).await;
        assert_eq!(peer.next().await, r#"40{"token":"the-token"}"#);
        peer
    }

    async fn entered(&self) -> Peer {
        let mut peer = self.connected().await;
        peer.send(r#"40{"sid":"y"}"#).await;
        peer
    }
}

impl Peer {
    async fn send(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).await.expect("sent");
    }

    async fn event(&mut self, name: &str, payload: Value) {
        self.send(&format!("42{}", json!([name, payload]))).await;
    }

    async fn next(&mut self) -> String {
        let message = timeout(DEADLINE, self.0.next()).await.expect("in time");
        message.expect("open").expect("a message").into_text().expect("text").to_string()
    }

    /// Sends a ping and waits for the pong. The client has then read everything that was sent before.
    async fn ping(&mut self) {
        self.send("2").await;
        while self.next().await != "3" {}
    }
}

async fn ended(tail: JoinHandle<Result<(), CliError>>) -> Result<(), CliError> {
    timeout(DEADLINE, tail).await.expect("in time").expect("no panic")
}

#[tokio::test]
async fn after_a_lost_connection_each_room_is_resumed() {
    let gateway = Gateway::start().await;
    let out = Output::default();
    let tail = gateway.tail(Some("t"), out.clone());

    let mut peer = gateway.entered().await;
    assert_eq!(peer.next().await, r#"420["dashboard:join",{}]"#);
    assert_eq!(peer.next().await, r#"421["task:join",{"taskId":"t"}]"#);
    peer.event("dashboard:state", json!([])).await;
    peer.send(r#"430[{"ok":true,"eventId":"01"}]"#).await;
    peer.event("task:state", json!({"taskId": "t", "eventId": "02", "n": 1})).await;
    peer.send(r#"431[{"ok":true}]"#).await;
    peer.event("task:coding", json!({"taskId": "t", "eventId": "03", "n": 2})).await;
    peer.event("dashboard:task_removed", json!({"taskId": "u", "eventId": "04", "n": 3})).await;
    peer.ping().await;
    drop(peer);

    let mut peer = gateway.entered().await;
    assert_eq!(peer.next().await, r#"420["resync_requested",{"dashboard":true,"since":"04"}]"#);
    assert_eq!(peer.next().await, r#"421["resync_requested",{"taskIds":["t"],"since":"03"}]"#);
    peer.event("task:coding", json!({"taskId": "t", "eventId": "03", "n": 2})).await;
    peer.event("task:updated", json!({"taskId": "t", "eventId": "05", "n": 4})).await;
    peer.send(r#"431[{"ok":true,"recovered":true,"gone":[]}]"#).await;
    peer.send("1").await;

    let mut peer = gateway.entered().await;
    assert_eq!(peer.next().await, r#"420["resync_requested",{"dashboard":true,"since":"04"}]"#);
    assert_eq!(peer.next().await, r#"421["resync_requested",{"taskIds":["t"],"since":"05"}]"#);
    peer.send(r#"431[{"ok":true,"recovered":false,"gone":["t"]}]"#).await;
    let error = ended(tail).await.expect_err("the task is gone").to_string();
    assert!(error.contains("was deleted"), "{error}");

    let printed: Vec<Value> =
        out.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let numbers: Vec<_> = printed.iter().filter_map(|line| line["payload"]["n"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_refused_connection_ends_the_client_with_advice() {
    for (code, advice) in [
        ("unauthorized", "taskcast token"),
        ("token_expired", "fresh"),
        ("feature_disabled", "FEATURE_WEBSOCKET_ENABLED"),
        ("\u{1b}[2J", "log"),
    ] {
        let gateway = Gateway::start().await;
        let tail = gateway.tail(None, Output::default());
        let mut peer = gateway.connected().await;
        peer.send(&format!("44{}", json!({ "message": code }))).await;
        let error = ended(tail).await.expect_err("refused");
        assert!(matches!(error, CliError::Refused(_)));
        let text = error.to_string();
        assert!(text.contains(advice) && !text.contains('\u{1b}'), "{text}");
    }
}

#[tokio::test]
async fn a_refused_join_ends_the_client_and_a_temporary_error_is_retried() {
    let gateway = Gateway::start().await;
    let tail = gateway.tail(Some("t"), Output::default());
    let mut peer = gateway.entered().await;
    peer.send(r#"431[{"ok":false,"error":{"code":"unavailable","message":"later"}}]"#).await;
    let mut peer = gateway.entered().await;
    assert_eq!(peer.next().await, r#"420["dashboard:join",{}]"#);
    peer.send(r#"431[{"ok":false,"error":{"code":"not_found","message":"no such task"}}]"#).await;
    let text = ended(tail).await.expect_err("refused").to_string();
    assert!(text.contains("task \"t\""), "{text}");
}

#[tokio::test]
async fn malformed_packets_are_ignored() {
    let gateway = Gateway::start().await;
    let out = Output::default();
    let tail = gateway.tail(None, out.clone());
    let mut peer = gateway.entered().await;
    assert_eq!(peer.next().await, r#"420["dashboard:join",{}]"#);
    for odd in [
        "",
        "6",
        "7",
        "4",
        "42",
        "42[",
        "42[]",
        "42[null]",
        "42{}",
        "43",
        "43[1]",
        "430",
        "4399[{\"ok\":true}]",
        "451-[\"x\",{\"_placeholder\":true,\"num\":0}]",
        "5",
        "bogus",
        "é",
        "0{}",
        "40",
        "42/a,[\"x\"]",
        "4299999999999999999999999[\"kept\"]",
    ] {
        peer.send(odd).await;
    }
    peer.0.send(Message::binary(vec![0, 255])).await.expect("sent");
    peer.event("task:state", json!([[], null])).await;
    peer.event("\n\u{1b}[2J", json!({"eventId": 5, "taskId": {}})).await;
    peer.ping().await;
    assert_eq!(out.text().lines().count(), 3, "{}", out.text());
    tail.abort();
}

#[tokio::test]
async fn a_closed_pipe_ends_the_client_without_an_error() {
    let gateway = Gateway::start().await;
    let out = Output::default();
    let tail = gateway.tail(None, out.clone());
    let mut peer = gateway.entered().await;
    peer.event("task:created", json!({"taskId": "a"})).await;
    peer.ping().await;
    assert_eq!(out.text().lines().count(), 1);
    out.0.lock().expect("not poisoned").1 = true;
    peer.event("task:created", json!({"taskId": "b"})).await;
    ended(tail).await.expect("quiet");
}

#[tokio::test]
async fn another_server_ends_the_client_and_a_draining_gateway_does_not() {
    let gateway = Gateway::start().await;
    let tail = gateway.tail(None, Output::default());
    for status in ["503 Service Unavailable", "404 Not Found"] {
        let accepted = timeout(DEADLINE, gateway.0.accept()).await.expect("in time");
        let (mut stream, _) = accepted.expect("a connection");
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let mut request = [0; 2048];
        assert!(stream.read(&mut request).await.expect("a request") > 0);
        stream.write_all(answer.as_bytes()).await.expect("sent");
    }
    let text = ended(tail).await.expect_err("no gateway").to_string();
    assert!(text.contains("404"), "{text}");
}

#[tokio::test]
async fn a_server_without_tls_is_an_error_and_does_not_panic() {
    let gateway = Gateway::start().await;
    let url =
        GatewayUrl::parse(&format!("https://{}", gateway.0.local_addr().expect("bound"))).expect("a URL");
    let opening = tokio::spawn(async move { Session::open(&url, "t").await.err() });
    let (mut stream, _) =
        timeout(DEADLINE, gateway.0.accept()).await.expect("in time").expect("a connection");
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("sent");
    let outcome = timeout(DEADLINE, opening).await.expect("in time").expect("no panic");
    assert!(matches!(outcome, Some(Outcome::Lost(_))));
}
