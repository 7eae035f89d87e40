//! Outgoing packets: Engine.IO protocol v4 text packets, each in the WebSocket frame that carries it.
//! <https://socket.io/docs/v4/engine-io-protocol/>, RFC 6455 section 5.2.

use std::fmt;

use bytes::Bytes;

/// The length of the longest header of an unmasked frame (10 bytes) and of the Engine.IO packet type (1 byte).
const HEADROOM: usize = 11;
/// The first byte of a frame: the final fragment of a text message.
const TEXT: u8 = 0x81;
const MESSAGE: u8 = b'4';

/// An encoded packet, framed once for all clients that get it. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet(Bytes);

/// A buffer for a packet, with space for the header of the frame before it.
#[derive(Debug)]
pub struct PacketBuffer(Vec<u8>);

impl PacketBuffer {
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADROOM + capacity);
        bytes.resize(HEADROOM, MESSAGE);
        Self(bytes)
    }

    /// Completes an Engine.IO message, which contains a Socket.IO packet.
    pub fn into_packet(mut self) -> Packet {
        let length = self.0.len() - HEADROOM + 1;
        let begin = match length {
            0..=125 => {
                self.0[9] = length as u8;
                8
            }
            126..=0xFFFF => {
                self.0[7] = 126;
                self.0[8..10].copy_from_slice(&(length as u16).to_be_bytes());
                6
            }
            _ => {
                self.0[1] = 127;
                self.0[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                0
            }
        };
        self.0[begin] = TEXT;
        self.0.shrink_to_fit();
        Packet(Bytes::from(self.0).slice(begin..))
    }
}

impl std::io::Write for PacketBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
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

    /// An Engine.IO message that contains this Socket.IO packet.
    pub fn message(text: &str) -> Self {
        let mut buffer = PacketBuffer::with_capacity(text.len());
        buffer.0.extend_from_slice(text.as_bytes());
        buffer.into_packet()
    }

    /// The first packet of a connection, with the handshake in JSON.
    pub fn open(handshake: &str) -> Self {
        let mut buffer = PacketBuffer::with_capacity(handshake.len());
        buffer.0[HEADROOM - 1] = b'0';
        buffer.0.extend_from_slice(handshake.as_bytes());
        buffer.into_packet()
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

    /// The size of the Socket.IO packet in bytes.
    pub fn size(&self) -> usize {
        self.payload().len().saturating_sub(1)
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
            let packet = Packet::message(&text);
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
