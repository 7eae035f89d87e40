//! Outgoing packets: Engine.IO protocol v4 text packets, each in the WebSocket frame that carries it.
//! <https://socket.io/docs/v4/engine-io-protocol/>, RFC 6455 section 5.2.

use std::fmt;

use bytes::Bytes;

/// The length of the longest header of an unmasked frame.
const MAX_HEADER: usize = 10;
/// The first byte of a frame: the final fragment of a text message.
const TEXT: u8 = 0x81;
const MESSAGE: u8 = b'4';

/// An encoded packet, framed once for all clients that get it. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet(Bytes);

/// Puts an Engine.IO packet of this type into a WebSocket frame.
fn framed(packet_type: u8, parts: &[&str]) -> Packet {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(MAX_HEADER + length);
    bytes.push(TEXT);
    match length {
        0..=125 => bytes.push(length as u8),
        126..=0xFFFF => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.push(packet_type);
    parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    Packet(bytes.into())
}

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
    pub fn ping() -> Self {
        Self(Bytes::from_static(&[TEXT, 1, b'2']))
    }

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
        framed(MESSAGE, parts)
    }

    /// The first packet of a connection, with the handshake in JSON.
    pub fn open(handshake: &str) -> Self {
        framed(b'0', &[handshake])
    }

    /// WebSocket frames of another kind. A polling client can't get them.
    pub fn control(frame: Vec<u8>) -> Self {
        Self(frame.into())
    }

    /// The bytes for a WebSocket: the whole frame.
    pub fn frame(&self) -> &[u8] {
        &self.0
    }

    /// The bytes for the answer to a polling request: the Engine.IO packet.
    pub fn payload(&self) -> &[u8] {
        let header = match self.0.get(1) {
            Some(127) => 10,
            Some(126) => 4,
            _ => 2,
        };
        self.0.get(header..).unwrap_or_default()
    }

    /// Returns whether the packet contains a Socket.IO packet. The order of such packets matters.
    pub fn is_message(&self) -> bool {
        self.0.first() == Some(&TEXT) && self.payload().first() == Some(&MESSAGE)
    }

    /// The Socket.IO packet in a message.
    pub fn text(&self) -> &str {
        self.payload().get(1..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
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
