//! The lower bound: the thread that receives a message frames it once and makes one write for each client. The server checks no
//! token, uses no Socket.IO library, and queues data only for a client whose kernel buffer is full.

mod client;
mod frame;

use std::{cell::RefCell, collections::HashMap, env, error::Error, io, rc::Rc, rc::Weak, time::Duration};

use client::Conn;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::{LocalSet, spawn_local},
    time::sleep,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const PING_EVERY: Duration = Duration::from_secs(25);

#[derive(Deserialize)]
struct Publish {
    room: String,
    event: String,
    payload: Box<RawValue>,
}

#[derive(Clone, Default)]
struct Server {
    rooms: Rc<RefCell<HashMap<String, Vec<Rc<Conn>>>>>,
    all: Rc<RefCell<Vec<Weak<Conn>>>>,
}

impl Server {
    fn enter(&self, room: &str, conn: &Rc<Conn>) {
        self.rooms.borrow_mut().entry(room.to_owned()).or_default().push(conn.clone());
    }

    fn leave(&self, room: &str, conn: &Rc<Conn>) {
        if let Some(members) = self.rooms.borrow_mut().get_mut(room) {
            members.retain(|member| !Rc::ptr_eq(member, conn));
        }
    }

    fn publish(&self, body: &[u8]) {
        for Publish { room, event, payload } in
            serde_json::from_slice::<Vec<Publish>>(body).unwrap_or_default()
        {
            let frame = frame::text(format!("42[\"{event}\",{payload}]").as_bytes());
            for member in self.rooms.borrow().get(&room).into_iter().flatten() {
                member.send(&frame);
            }
        }
    }
}

async fn serve(mut stream: TcpStream, server: Server) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let header = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        if let Some(key) = header("sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await?;
            return client::serve(stream, &server).await;
        }
        let len: usize = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while buffer.len() < head + len {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        server.publish(&buffer[head..head + len]);
        buffer.drain(..head + len);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}";
        stream.write_all(answer).await?;
    }
}

async fn ping(server: Server) {
    let ping = frame::text(b"2");
    loop {
        sleep(PING_EVERY).await;
        server.all.borrow_mut().retain(|conn| conn.upgrade().inspect(|conn| conn.send(&ping)).is_some());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::var("PORT")?.parse()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let server = Server::default();
        spawn_local(ping(server.clone()));
        loop {
            let (stream, _) = listener.accept().await?;
            let server = server.clone();
            spawn_local(async move { serve(stream, server).await.ok() });
        }
    })
}
