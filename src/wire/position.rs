//! Positions in the order of all changes and events.

use std::{fmt, str::FromStr};

/// A position in the order of events. It is the same on every node and after every restart.
///
/// `time` is MongoDB's cluster time (seconds in the high 32 bits, increment in the low ones), or the embedded
/// store's sequence number. `ordinal` counts the changes of one `time` (a transaction), `index` the events of
/// one change. The text of a position has 28 hex digits and two dashes. Texts have the same order as values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub time: u64,
    pub ordinal: u32,
    pub index: u32,
}

/// The greatest `ordinal` and the greatest `index`: each is written with six hex digits.
const MAX_PART: u32 = 0xff_ffff;

impl Position {
    pub const ZERO: Position = Position { time: 0, ordinal: 0, index: 0 };

    /// The first position of a change.
    pub const fn change(time: u64, ordinal: u32) -> Self {
        Self { time, ordinal, index: 0 }
    }

    /// The position after everything that happened at `time`. A snapshot of that time has this position.
    pub const fn end_of(time: u64) -> Self {
        Self { time, ordinal: MAX_PART, index: MAX_PART }
    }

    /// The position before everything that happens at `time`.
    pub const fn before(time: u64) -> Self {
        Self::end_of(time.saturating_sub(1))
    }

    /// The position after every event of the change that this position belongs to.
    pub const fn end_of_change(self) -> Self {
        Self { index: MAX_PART, ..self }
    }

    pub const fn with_index(self, index: u32) -> Self {
        Self { index: if index < MAX_PART { index } else { MAX_PART - 1 }, ..self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:06x}-{:06x}", self.time, self.ordinal, self.index)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an eventId of this gateway")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let parts: Vec<&str> = text.split('-').collect();
        let [time, ordinal, index] = parts[..] else { return Err(NotAPosition) };
        let number = |part: &str, digits: usize| match part.len() == digits
            && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            true => u64::from_str_radix(part, 16).map_err(|_| NotAPosition),
            false => Err(NotAPosition),
        };
        Ok(Self {
            time: number(time, 16)?,
            ordinal: number(ordinal, 6)? as u32,
            index: number(index, 6)? as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_value_have_the_same_order(
            a in (any::<u64>(), 0..=MAX_PART, 0..=MAX_PART),
            b in (any::<u64>(), 0..=MAX_PART, 0..=MAX_PART),
        ) {
            let [a, b] = [a, b].map(|(time, ordinal, index)| Position { time, ordinal, index });
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Position>();
        }
    }
}
