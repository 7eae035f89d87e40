//! A WebSocket client with low overhead: only text frames, one read buffer for all clients, and a mask of zeros.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Poll, ready},
};

use memchr::memmem;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
};

thread_local!(static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; 256 << 10].into()));

const ADDRESSES: usize = 20;
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[derive(Debug)]
pub struct Ws {
    stream: TcpStream,
    /// The bytes of a frame that is not complete yet.
    rest: Vec<u8>,
}

/// Connects from one of twenty loopback addresses, so that there are enough ports.
pub async fn tcp(to: SocketAddr, n: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if to.ip().is_loopback() {
        socket.bind(SocketAddr::from(([127, 0, 0, 2 + (n % ADDRESSES) as u8], 0)))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Ws {
    pub async fn connect(to: SocketAddr, n: usize) -> io::Result<Self> {
        let mut stream = tcp(to, n).await?;
        let request =
            format!("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {to}\r\n{UPGRADE}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(512);
        loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = memmem::find(&answer, b"\r\n\r\n") {
                if !answer.starts_with(b"HTTP/1.1 101") {
                    return Err(io::Error::other(String::from_utf8_lossy(&answer[..end]).into_owned()));
                }
                return Ok(Self { stream, rest: answer[end + 4..].to_vec() });
            }
        }
    }

    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        let mut frame = Vec::with_capacity(text.len() + 8);
        frame.push(0x81);
        if text.len() < 126 {
            frame.push(0x80 | text.len() as u8);
        } else {
            frame.push(0x80 | 126);
            frame.extend((text.len() as u16).to_be_bytes());
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).await
    }

    /// Reads once and calls `on_text` with each complete text. `false` means that the connection is closed. Dropping the future loses no data.
    pub async fn read(&mut self, on_text: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        if !self.rest.is_empty() {
            // These bytes arrived together with the answer to the upgrade.
            let (consumed, open) = frames(&self.rest, on_text);
            self.rest.drain(..consumed);
            if consumed > 0 || !open {
                return Ok(open);
            }
        }
        let (stream, rest) = (&mut self.stream, &mut self.rest);
        poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
                let received = buffer.filled();
                if received.is_empty() {
                    return Poll::Ready(Ok(false));
                }
                if rest.is_empty() {
                    let (consumed, open) = frames(received, on_text);
                    rest.extend_from_slice(&received[consumed..]);
                    return Poll::Ready(Ok(open));
                }
                rest.extend_from_slice(received);
                let (consumed, open) = frames(rest, on_text);
                rest.drain(..consumed);
                if rest.is_empty() {
                    *rest = Vec::new();
                }
                Poll::Ready(Ok(open))
            })
        })
        .await
    }
}

/// The number of bytes in complete frames, and whether the connection is still open after them.
fn frames(bytes: &[u8], on_text: &mut impl FnMut(&[u8])) -> (usize, bool) {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let (len, head) = match rest {
            [_, 126, a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            [_, 127, a, b, c, d, e, f, g, h, ..] => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize, 10)
            }
            [_, len @ 0..=125, ..] => (usize::from(*len), 2),
            _ => return (at, true),
        };
        if rest.len() < head + len {
            return (at, true);
        }
        match rest[0] & 15 {
            1 => on_text(&rest[head..head + len]),
            8 => return (at, false),
            _ => {}
        }
        at += head + len;
    }
}
