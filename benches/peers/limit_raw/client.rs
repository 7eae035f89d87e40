//! Serves one WebSocket client.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    rc::Rc,
};

use tokio::{net::TcpStream, task::spawn_local};

use crate::{
    Server,
    frame::{first, text},
};

const CLOSE: u8 = 8;
const OPEN: &[u8] =
    br#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

pub struct Conn {
    stream: TcpStream,
    /// The bytes that the kernel did not accept. While there are any, a task writes them.
    pending: RefCell<Vec<u8>>,
    dead: Cell<bool>,
}

impl Conn {
    pub fn send(self: &Rc<Self>, frame: &[u8]) {
        if self.dead.get() {
            return;
        }
        let mut pending = self.pending.borrow_mut();
        if !pending.is_empty() {
            return pending.extend_from_slice(frame);
        }
        let written = match self.stream.try_write(frame) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return self.dead.set(true),
        };
        if written < frame.len() {
            pending.extend_from_slice(&frame[written..]);
            spawn_local(flush(self.clone()));
        }
    }
}

async fn flush(conn: Rc<Conn>) {
    loop {
        if conn.stream.writable().await.is_err() {
            return conn.dead.set(true);
        }
        let mut pending = conn.pending.borrow_mut();
        match conn.stream.try_write(&pending) {
            Ok(len) => {
                pending.drain(..len);
                if pending.is_empty() {
                    *pending = Vec::new();
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return conn.dead.set(true),
        }
    }
}

pub async fn serve(stream: TcpStream, server: &Server) -> io::Result<()> {
    let conn = Rc::new(Conn { stream, pending: RefCell::default(), dead: Cell::new(false) });
    conn.send(&text(OPEN));
    server.all.borrow_mut().push(Rc::downgrade(&conn));
    let mut rooms = Vec::new();
    let ended = listen(&conn, server, &mut rooms).await;
    conn.dead.set(true);
    for room in rooms {
        server.leave(&room, &conn);
    }
    ended
}

async fn listen(conn: &Rc<Conn>, server: &Server, rooms: &mut Vec<String>) -> io::Result<()> {
    let mut rest = Vec::new();
    loop {
        conn.stream.readable().await?;
        let mut buffer = [0; 4096];
        match conn.stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => rest.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        while let Some((kind, message, len)) = first(&rest) {
            rest.drain(..len);
            if kind == CLOSE {
                return Ok(());
            }
            if let Some(room) = answer(conn, &String::from_utf8_lossy(&message)) {
                server.enter(&room, conn);
                rooms.push(room);
            }
        }
        if rest.is_empty() {
            rest = Vec::new();
        }
    }
}

/// Answers a message. Returns the room that the client asks to join.
fn answer(conn: &Rc<Conn>, message: &str) -> Option<String> {
    if message.starts_with("40") {
        conn.send(&text(br#"40{"sid":"x"}"#));
        return None;
    }
    if message.starts_with("42[\"dashboard:join\"") {
        conn.send(&text(br#"42["dashboard:state",[]]"#));
        return Some("dashboard".to_owned());
    }
    let id = message.strip_prefix(r#"42["task:join",{"taskId":""#)?.split('"').next()?;
    let state =
        format!(r#"42["task:state",{{"taskId":"{id}","status":"received","title":"A task","events":[]}}]"#);
    conn.send(&text(state.as_bytes()));
    Some(format!("task:{id}"))
}
