//! Puts a text into the WebSocket frame that carries it to a client (RFC 6455 section 5.2).

use bytes::Bytes;

/// The length of the longest header of an unmasked frame.
const MAX_HEADER: usize = 10;
/// The first byte of a frame: the final fragment of a text message.
pub(super) const TEXT: u8 = 0x81;

/// The frame that carries the concatenation of these parts.
pub(super) fn text_frame<'a>(parts: impl Iterator<Item = &'a str> + Clone) -> Bytes {
    let length = parts.clone().map(str::len).sum::<usize>();
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
    parts.for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    bytes.into()
}

/// The text in a frame that [`text_frame`] has made.
pub(super) fn text_of_frame(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::{
        Message,
        protocol::{Role, WebSocketContext},
    };

    use super::*;

    #[test]
    fn a_text_of_any_length_is_a_frame_that_a_websocket_can_read() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let text = "x".repeat(length);
            let frame = text_frame(["4", &*text].into_iter());
            assert_eq!(text_of_frame(&frame), format!("4{text}").as_bytes());
            let read = WebSocketContext::new(Role::Client, None)
                .read(&mut std::io::Cursor::new(frame.to_vec()))
                .expect("a frame");
            assert_eq!(read, Message::text(format!("4{text}")), "{length}");
        }
    }
}
