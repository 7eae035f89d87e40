//! Times on the wire: RFC 3339, UTC, milliseconds.

use std::{fmt, time::SystemTime};

use serde_json::Value;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Milliseconds since 1970-01-01T00:00:00Z, within the years 0 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    pub fn now() -> Self {
        Self::from_datetime(SystemTime::now().into()).unwrap_or(Self(OffsetDateTime::UNIX_EPOCH))
    }

    pub fn from_millis(millis: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
            .ok()
            .and_then(Self::from_datetime)
    }

    pub fn millis(self) -> i64 {
        (self.0.unix_timestamp_nanos() / 1_000_000) as i64
    }

    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().and_then(Self::from_datetime)
    }

    /// Normalises a time in a document: a text that [`Timestamp::read`] accepts, or a number. Any other value becomes null.
    pub fn normalise(value: Value) -> Value {
        let time = match &value {
            Value::String(text) if has_own_format(text) => return value,
            Value::String(text) => Self::read(text),
            Value::Number(number) => number.as_f64().and_then(Self::of_number),
            _ => None,
        };
        time.map_or(Value::Null, |time| Value::String(time.to_string()))
    }

    /// Reads a number in a document as milliseconds, or as seconds if it is less than [`MILLIS_THRESHOLD`].
    pub fn of_number(number: f64) -> Option<Self> {
        let millis = if number.abs() < MILLIS_THRESHOLD { (number * 1000.0).round() } else { number.floor() };
        // The cast turns NaN into 0.
        if millis.is_nan() { None } else { Self::from_millis(millis as i64) }
    }

    fn from_datetime(time: OffsetDateTime) -> Option<Self> {
        let utc = time.checked_to_offset(UtcOffset::UTC)?;
        let millis = utc.millisecond();
        (0..=9999).contains(&utc.year()).then(|| utc.replace_millisecond(millis).ok().map(Self)).flatten()
    }
}

/// A number with a smaller absolute value means seconds. As milliseconds it would be in the years 1966 to 1973; as seconds it
/// is in any year up to 5138.
pub const MILLIS_THRESHOLD: f64 = 100_000_000_000.0;

/// The form of a written time. Each 0 stands for any digit, the 5 for a digit from 0 to 5.
const FORMAT: &[u8; 24] = b"0000-00-00T00:50:50.000Z";

/// Returns whether a text has the form [`FORMAT`] and a day that exists in every month. Any other text is parsed in full.
fn has_own_format(text: &str) -> bool {
    let part = |range| text.get(range).unwrap_or_default();
    text.len() == FORMAT.len()
        && text.bytes().zip(FORMAT).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'5' => matches!(byte, b'0'..=b'5'),
            other => byte == *other,
        })
        && ("01"..="12").contains(&part(5..7))
        && ("01"..="28").contains(&part(8..10))
        && part(11..13) < "24"
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.0.date(), self.0.time());
        let numbers = [
            (date.year().unsigned_abs(), 4),
            (u8::from(date.month()).into(), 2),
            (date.day().into(), 2),
            (time.hour().into(), 2),
            (time.minute().into(), 2),
            (time.second().into(), 2),
            (time.millisecond().into(), 3),
        ];
        // Each event has one or two times. This is several times faster than `write!`.
        let mut text = *FORMAT;
        let mut end = 0;
        for (mut number, digits) in numbers {
            for digit in text[end..end + digits].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
            end += digits + 1;
        }
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The time on another machine's clock, and the times on the local clock before and after it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    pub before: Timestamp,
    pub remote: Timestamp,
    pub after: Timestamp,
}

impl ClockReading {
    /// The least number of milliseconds by which the other clock is ahead of the local one. A negative number means that the
    /// other clock is behind. 0 means that both may be equal.
    pub fn ahead_ms(self) -> i64 {
        let remote = self.remote.millis();
        (remote - self.after.millis()).max(0) + (remote - self.before.millis()).min(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        let time = Timestamp::parse("2026-01-02T03:04:05.6789+02:00").expect("valid");
        assert_eq!(time.to_string(), "2026-01-02T01:04:05.678Z");
        assert_eq!(Timestamp::from_millis(0).expect("valid").to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(-1).expect("valid").to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
    }

    #[test]
    fn a_time_of_a_document_is_normalised() {
        let cases = [
            ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z"),
            ("2026-01-02T03:04:05.6789Z", "2026-01-02T03:04:05.678Z"),
            ("2026-01-02T03:04:05.678+02:00", "2026-01-02T01:04:05.678Z"),
            ("2026-01-02t03:04:05.678z", "2026-01-02T03:04:05.678Z"),
            ("2016-12-31T23:59:60.000Z", "2016-12-31T23:59:59.999Z"),
            ("2026-01-02 03:04:05", "2026-01-02T03:04:05.000Z"),
            ("2026-01-02T03:04", "2026-01-02T03:04:00.000Z"),
            ("2026-01-02T03:04:05.6", "2026-01-02T03:04:05.600Z"),
            ("2026-01-02 03:04:05 +0130", "2026-01-02T01:34:05.000Z"),
            ("2026-01-02T03:04:05-05", "2026-01-02T08:04:05.000Z"),
            ("2026-01-02", "2026-01-02T00:00:00.000Z"),
            ("2026-02-30T00:00:00.000Z", "2026-03-02T00:00:00.000Z"),
            ("0000-01-01T00:00:00+05:00", "0000-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59.999Z"),
        ];
        for (text, written) in cases {
            assert_eq!(Timestamp::normalise(text.into()), Value::from(written), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_not_a_time_becomes_null() {
        let odd = [
            "yesterday",
            "",
            "2026",
            "2026-01-02T",
            "2026-01-02T03",
            "2026-13-02",
            "2026-01-32",
            "2026-00-01",
            "2026-01-02T24:00",
            "2026-99-99T99:99:59.999Z",
            "2026-01-02T03:75:05.678Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05Z ",
            "2026-01-02T03:04:05 Europe/Berlin",
            "2026-01-02T03:04:05+2",
            "\u{662}\u{660}26-01-02",
        ];
        for text in odd {
            assert_eq!(Timestamp::normalise(text.into()), Value::Null, "{text}");
        }
        for odd in [Value::Bool(true), Value::Null, serde_json::json!([0]), 1e18.into()] {
            assert_eq!(Timestamp::normalise(odd), Value::Null);
        }
        assert_eq!(Timestamp::of_number(f64::NAN), None);
        assert_eq!(Timestamp::of_number(f64::INFINITY), None);
    }

    #[test]
    fn small_numbers_are_seconds_and_others_milliseconds() {
        let cases = [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (1_767_221_517.0, "2025-12-31T22:51:57.000Z"),
            (1_767_221_517.25, "2025-12-31T22:51:57.250Z"),
            (1_767_221_517_250.0, "2025-12-31T22:51:57.250Z"),
            (-1.0, "1969-12-31T23:59:59.000Z"),
            (MILLIS_THRESHOLD, "1973-03-03T09:46:40.000Z"),
            (-MILLIS_THRESHOLD, "1966-10-31T14:13:20.000Z"),
        ];
        for (number, written) in cases {
            assert_eq!(Timestamp::of_number(number).expect("a time").to_string(), written, "{number}");
        }
    }

    #[test]
    fn a_written_time_is_read_as_the_same_time() {
        for millis in [Timestamp::FIRST, -1, 0, 1_767_221_517_699, Timestamp::LAST] {
            let time = Timestamp::from_millis(millis).expect("in range");
            assert_eq!(Timestamp::read(&time.to_string()), Some(time));
        }
        assert_eq!(Timestamp::from_millis(Timestamp::FIRST - 1), None);
        assert_eq!(Timestamp::from_millis(Timestamp::LAST + 1), None);
    }
}
