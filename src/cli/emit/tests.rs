//! Tests the command with a gateway that answers as the test tells it to.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A gateway that stores events once each, refuses those of the type `bad`, and fails a number of times first.
#[derive(Clone, Default)]
struct Gateway {
    stored: Arc<Mutex<Vec<Value>>>,
    failures_left: Arc<Mutex<u32>>,
}

/// Answers one request. The client opens a connection for each.
async fn serve(gateway: &Gateway, mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).await.expect("a body");
    let (status, answer) = gateway.answer(&String::from_utf8(body).expect("text"));
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
    stream.write_all(text.as_bytes()).await.expect("sent");
}

impl Gateway {
    fn answer(&self, body: &str) -> (u16, String) {
        let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        if lines.iter().any(|event| event["type"] == "bad") {
            let error = json!({"code": "invalid_event", "message": "m", "details": [{"path": "/type", "message": "is bad"}]});
            return (422, json!({"error": error}).to_string());
        }
        let mut stored = self.stored.lock().expect("not poisoned");
        let (mut accepted, mut duplicates) = (0, 0);
        for event in lines {
            assert!(event["id"].is_string());
            match stored.iter().any(|other| other["id"] == event["id"]) {
                true => duplicates += 1,
                false => {
                    accepted += 1;
                    stored.push(event);
                }
            }
        }
        let mut failures_left = self.failures_left.lock().expect("not poisoned");
        if *failures_left > 0 {
            *failures_left -= 1;
            // The events are stored, but the client does not learn of it.
            return (503, String::new());
        }
        (202, json!({"accepted": accepted, "duplicates": duplicates, "eventId": "x"}).to_string())
    }
}

async fn started(gateway: &Gateway) -> Emitter {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let gateway = gateway.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(&gateway, stream).await;
        }
    });
    Emitter {
        gateway: GatewayUrl::local(address),
        credentials: Credentials::Given("token".to_owned()),
        max_attempts: SINGLE_ATTEMPTS,
        stored: 0,
        duplicates: 0,
        refused: 0,
    }
}

fn input(text: &str) -> mpsc::Receiver<Line> {
    read_lines(io::Cursor::new(text.to_owned()))
}

#[tokio::test]
async fn only_the_wrong_lines_are_refused() {
    let gateway = Gateway::default();
    let emitter = started(&gateway).await;
    let lines: Vec<String> = (0..700)
        .map(|n| match n % 100 {
            7 => r#"{"type": "bad", "payload": {}}"#.to_owned(),
            8 => "{".to_owned(),
            _ => format!(r#"{{"type": "good", "payload": {{"n": {n}}}}}"#),
        })
        .collect();
    let error = emitter.stream(input(&lines.join("\n"))).await.expect_err("some lines are wrong");
    assert_eq!(error.to_string(), "686 stored, 0 stored before, 14 refused");
    let stored = gateway.stored.lock().expect("not poisoned");
    let numbers: Vec<u64> = stored.iter().map(|event| event["payload"]["n"].as_u64().expect("n")).collect();
    assert!(numbers.is_sorted(), "the order of the lines is kept");
}

#[tokio::test]
async fn a_report_without_an_answer_is_sent_again_and_stored_once() {
    let gateway = Gateway { failures_left: Arc::new(Mutex::new(2)), ..Gateway::default() };
    let summary = started(&gateway).await.stream(input("{\"type\":\"a\",\"payload\":{}}\n")).await;
    assert_eq!(summary.expect("stored"), "0 stored, 1 stored before, 0 refused");
    assert_eq!(gateway.stored.lock().expect("not poisoned").len(), 1);
}

#[test]
fn an_event_keeps_its_own_id() {
    assert_eq!(with_id(r#"{"id": "x"}"#, "run", 3), Ok(r#"{"id":"x"}"#.to_owned()));
    assert_eq!(with_id(r#"{"id": null}"#, "run", 3), Ok(r#"{"id":"run-3"}"#.to_owned()));
    assert_eq!(with_id(r#"{"id": "\ud83d"}"#, "run", 3), Ok("{\"id\":\"\u{fffd}\"}".to_owned()));
    assert_eq!(with_id("5", "run", 3), Err("must be an object with type and payload".to_owned()));
}
