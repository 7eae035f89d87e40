//! Reads packets without parsing their JSON, because parsing would be too slow for half a million packets per second.

use memchr::memmem;

/// A marker in the written text: `~b:<stream>:<n>:<microseconds>~`. Every event that contains the text contains the marker.
#[derive(Clone, Copy, Debug)]
pub struct Marker {
    pub stream: u64,
    /// Counts the writes of the stream, from 1.
    pub n: u64,
    /// The time at which the write was due, not the time at which it was made. Waiting for a busy server therefore counts as latency.
    pub due: u64,
}

impl Marker {
    pub fn text(self) -> String {
        format!("~b:{}:{}:{}~", self.stream, self.n, self.due)
    }

    pub fn find(packet: &[u8]) -> Option<Self> {
        let at = memmem::find(packet, b"~b:")?;
        let (mut values, mut field) = ([0_u64; 3], 0);
        for &byte in &packet[at + 3..] {
            match byte {
                b'0'..=b'9' => values[field] = values[field] * 10 + u64::from(byte - b'0'),
                b':' if field < 2 => field += 1,
                _ => break,
            }
        }
        let [stream, n, due] = values;
        Some(Self { stream, n, due })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    State,
    Error,
    /// From here on: the kinds of events. A write causes at most one event of each kind with its marker.
    Status,
    Updated,
    Entry,
    List,
    Counts,
    Other,
}

/// The kind of a whole `42[…]` packet.
pub fn kind(packet: &[u8]) -> Kind {
    const NAMES: [(&[u8], Kind); 8] = [
        (b"\"task:updated\"", Kind::Updated),
        (b"\"task:event_added\"", Kind::Entry),
        (b"\"task:state\"", Kind::State),
        (b"\"dashboard:state\"", Kind::State),
        (b"\"dashboard:task_l", Kind::List),
        (b"\"dashboard:task_c", Kind::Counts),
        (b"\"error\"", Kind::Error),
        (b"\"task:", Kind::Status),
    ];
    let name = packet.get(3..).unwrap_or_default();
    NAMES.iter().find(|(start, _)| name.starts_with(start)).map_or(Kind::Other, |(_, kind)| *kind)
}

/// The value of a field that is a string without escapes.
pub fn string<'a>(packet: &'a [u8], key: &str) -> Option<&'a str> {
    let at = memmem::find(packet, format!("\"{key}\":\"").as_bytes())? + key.len() + 4;
    let end = memchr::memchr(b'"', &packet[at..])?;
    std::str::from_utf8(&packet[at..at + end]).ok()
}

/// The last argument, if it is a string. The library's recovery calls it the offset.
pub fn offset(packet: &[u8]) -> Option<&str> {
    let inside = packet.strip_suffix(b"\"]")?;
    let at = memchr::memrchr(b'"', inside)? + 1;
    std::str::from_utf8(&inside[at..]).ok()
}
