//! Outgoing packets: Engine.IO protocol v4 text packets, each in the WebSocket frame that carries it.
//! <https://socket.io/docs/v4/engine-io-protocol/>, RFC 6455 section 5.2.

use std::fmt;

use bytes::Bytes;

use crate::transport::{
    outbox,
    text_frame::{TEXT, text_frame, text_of_frame},
};

/// The type of Engine.IO's messages.
const MESSAGE: &str = "4";

/// An encoded packet, framed once for all clients that get it. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet(Bytes);

impl From<Bytes> for Packet {
    fn from(frame: Bytes) -> Self {
        Self(frame)
    }
}

impl From<Packet> for Bytes {
    fn from(packet: Packet) -> Self {
        packet.0
    }
}

impl Packet {
    pub fn noop() -> Self {
        Self(Bytes::from_static(&[TEXT, 1, b'6']))
    }

    pub fn close() -> Self {
        Self(Bytes::from_static(&[TEXT, 1, b'1']))
    }

    /// The answer to `2probe`.
    pub fn probed() -> Self {
        Self(Bytes::from_static(&[TEXT, 6, b'3', b'p', b'r', b'o', b'b', b'e']))
    }

    /// An Engine.IO message that contains the Socket.IO packet with these parts.
    pub fn message(parts: &[&str]) -> Self {
        Self(text_frame(std::iter::once(MESSAGE).chain(parts.iter().copied())))
    }

    /// The first packet of a connection, with the handshake in JSON.
    pub fn open(handshake: &str) -> Self {
        Self(text_frame(["0", handshake].into_iter()))
    }

    /// The bytes for the answer to a polling request: the Engine.IO packet.
    pub fn payload(&self) -> &[u8] {
        text_of_frame(&self.0)
    }

    /// The Socket.IO packet in a message.
    pub fn text(&self) -> &str {
        self.payload().get(1..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl outbox::Packet for Packet {
    fn ping() -> Self {
        Self(Bytes::from_static(&[TEXT, 1, b'2']))
    }

    /// A polling client can't get these.
    fn control(frames: Vec<u8>) -> Self {
        Self(frames.into())
    }

    fn frame(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether the packet contains a Socket.IO packet. The order of such packets matters.
    fn is_message(&self) -> bool {
        self.0.first() == Some(&TEXT) && self.payload().first() == Some(&b'4')
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Packet").field(&self.text()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::{
        Message,
        protocol::{Role, WebSocketContext},
    };

    use super::*;
    use crate::transport::outbox::Packet as _;

    #[test]
    fn a_packet_of_any_length_is_a_frame_that_a_websocket_can_read() {
        for length in [0, 1, 124, 125, 126, 65_534, 65_535, 65_536, 200_000] {
            let text = "x".repeat(length);
            let packet = Packet::message(&[&text]);
            assert_eq!(packet.text(), text);
            let mut stream = std::io::Cursor::new(packet.frame().to_vec());
            let read = WebSocketContext::new(Role::Client, None).read(&mut stream).expect("a frame");
            assert_eq!(read, Message::text(format!("4{text}")), "{length}");
        }
    }

    #[test]
    fn packets_without_a_message() {
        for (packet, payload) in [
            (Packet::ping(), "2"),
            (Packet::noop(), "6"),
            (Packet::close(), "1"),
            (Packet::probed(), "3probe"),
            (Packet::open("{}"), "0{}"),
        ] {
            assert_eq!(packet.payload(), payload.as_bytes());
            assert_eq!(usize::from(packet.frame()[1]), payload.len());
        }
    }
}
