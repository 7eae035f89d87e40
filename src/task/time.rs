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

    /// What a document may hold for a time: RFC 3339 text or milliseconds. Other text is passed on as it is.
    pub fn normalise(value: Value) -> Value {
        let parsed = match &value {
            // What is no time would be passed on, too.
            Value::String(text) if is_written_like_ours(text) => None,
            Value::String(text) => Self::parse(text),
            Value::Number(number) => number.as_i64().and_then(Self::from_millis),
            _ => return Value::Null,
        };
        parsed.map_or(value, |time| Value::String(time.to_string()))
    }

    fn from_datetime(time: OffsetDateTime) -> Option<Self> {
        let utc = time.checked_to_offset(UtcOffset::UTC)?;
        let millis = utc.millisecond();
        (0..=9999).contains(&utc.year()).then(|| utc.replace_millisecond(millis).ok().map(Self)).flatten()
    }
}

/// How times are written: a digit for each 0, for the 5 one up to it.
const FORM: &[u8; 24] = b"0000-00-00T00:00:50.000Z";

fn is_written_like_ours(text: &str) -> bool {
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'5' => matches!(byte, b'0'..=b'5'),
            other => byte == *other,
        })
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
        // Each event has one or two: this is several times faster than `write!`.
        let mut text = *FORM;
        let mut end = 0;
        for (mut number, digits) in numbers {
            for place in text[end..end + digits].iter_mut().rev() {
                *place = b'0' + (number % 10) as u8;
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

/// What another machine's clock showed, between two looks at ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    pub before: Timestamp,
    pub there: Timestamp,
    pub after: Timestamp,
}

impl ClockReading {
    /// By how many milliseconds it is ahead of ours, at least; negative: behind. 0: it may well be right.
    pub fn ahead_ms(self) -> i64 {
        let there = self.there.millis();
        (there - self.after.millis()).max(0) + (there - self.before.millis()).min(0)
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
    fn what_a_document_has_for_a_time_is_written_like_ours() {
        let cases = [
            ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z"),
            ("2026-01-02T03:04:05.6789Z", "2026-01-02T03:04:05.678Z"),
            ("2026-01-02T03:04:05.678+02:00", "2026-01-02T01:04:05.678Z"),
            ("2026-01-02t03:04:05.678z", "2026-01-02T03:04:05.678Z"),
            ("2016-12-31T23:59:60.000Z", "2016-12-31T23:59:59.999Z"),
            ("2026-99-99T99:99:59.999Z", "2026-99-99T99:99:59.999Z"),
            ("yesterday", "yesterday"),
        ];
        for (text, written) in cases {
            assert_eq!(Timestamp::normalise(text.into()), Value::from(written), "{text}");
        }
        assert_eq!(Timestamp::normalise(0.into()), Value::from("1970-01-01T00:00:00.000Z"));
        assert_eq!(Timestamp::normalise(Value::Bool(true)), Value::Null);
    }
}
