//! The type of an activity event, such as `batch:start` or `agent.failed`.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// The type of an event: segments of `[a-z][a-z0-9_]*`, joined by `.` or `:`. A clone shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(Arc<str>);

/// Types that begin with one of these texts are the gateway's own events.
const RESERVED_PREFIXES: [&str; 6] = ["task:", "dashboard:", "presence:", "live:", "activity:", "admin:"];

/// The messages of the plain WebSocket, which share their field `type` with events.
const RESERVED_NAMES: [&str; 11] = [
    "init",
    "ack",
    "auth",
    "ping",
    "pong",
    "subscribe",
    "unsubscribe",
    "notice",
    "refused",
    "gap",
    "activity",
];

/// Why a text is not the type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    #[error("must be at most {} bytes", EventType::MAX_BYTES)]
    TooLong,
    #[error(
        "must be segments that begin with a letter and contain only a-z, 0-9 and _, joined by \".\" or \":\""
    )]
    Malformed,
    #[error("is reserved for the gateway's own messages; choose another type")]
    Reserved,
}

impl EventType {
    pub const MAX_BYTES: usize = 64;

    pub fn parse(text: &str) -> Result<Self, TypeError> {
        if text.len() > Self::MAX_BYTES {
            return Err(TypeError::TooLong);
        }
        if !text.split(is_separator).all(is_segment) {
            return Err(TypeError::Malformed);
        }
        if RESERVED_NAMES.contains(&text) || RESERVED_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(TypeError::Reserved);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefixes of this type that end with a separator, the longest one first. `a:b.c` has `a:b.` and `a:`.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.0.rmatch_indices(is_separator).filter_map(|(at, _)| self.0.get(..=at))
    }
}

pub(super) fn is_separator(c: char) -> bool {
    matches!(c, '.' | ':')
}

/// Returns whether a text may stand between two separators of a type. Other names of the domain have the same form.
pub(super) fn is_segment(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

impl Borrow<str> for EventType {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_segments_with_separators() {
        for text in [
            "error",
            "a",
            "batch:start",
            "mcp.tool_called",
            "a1.b_2:c",
            "ping.x",
            "taskless:x",
            "task.created",
        ] {
            assert_eq!(EventType::parse(text).map(|parsed| parsed.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "", "A", "1a", "_a", "a.", ".a", "a..b", "a:.b", "a-b", "a b", "a.B", "a.1", "\u{e9}", "a\n",
            "*", "a.*",
        ] {
            assert_eq!(EventType::parse(text), Err(TypeError::Malformed), "{text}");
        }
        assert!(EventType::parse(&"a".repeat(64)).is_ok());
        assert_eq!(EventType::parse(&"a".repeat(65)), Err(TypeError::TooLong));
    }

    #[test]
    fn the_gateways_own_messages_are_reserved() {
        for text in
            RESERVED_NAMES.into_iter().chain(["task:created", "presence:join", "admin:stats", "live:x"])
        {
            assert_eq!(EventType::parse(text), Err(TypeError::Reserved), "{text}");
        }
    }

    #[test]
    fn prefixes_end_with_a_separator() {
        let parsed = EventType::parse("a:b.c").expect("a type");
        assert_eq!(parsed.prefixes().collect::<Vec<_>>(), ["a:b.", "a:"]);
        assert_eq!(EventType::parse("error").expect("a type").prefixes().count(), 0);
    }
}
