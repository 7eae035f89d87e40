//! The kinds of WebSocket frames that the load generator needs.

pub fn text(text: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(text.len() + 10);
    frame.push(0x81);
    match text.len() {
        len @ 0..126 => frame.push(len as u8),
        len @ 126..65_536 => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text);
    frame
}

/// The first frame in `bytes`: its kind, its unmasked text, and the length of the whole frame.
pub fn first(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (len, at) = match bytes {
        [_, second, a, b, ..] if second & 127 == 126 => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        [_, second, ..] => (usize::from(second & 127), 2),
        _ => return None,
    };
    let mask = bytes.get(at..at + 4)?;
    let masked = bytes.get(at + 4..at + 4 + len)?;
    let plain = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((bytes[0] & 15, plain, at + 4 + len))
}
