//! Times as other programs write them into documents.

use super::Timestamp;

/// A regular expression for the texts that [`Timestamp::read`] accepts, for a store that has to recognise them itself. The
/// format is RFC 3339. A space may replace the `T`, and the seconds, the zone (then it is UTC) or the whole time may be absent.
pub const TIME_TEXT: &str = r"\A[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])(?:[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:\.[0-9]{1,12})?)?(?: ?(?:[Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?))?)?\z";

impl Timestamp {
    /// The first and the last millisecond that can be written.
    pub const FIRST: i64 = -62_167_219_200_000;
    pub const LAST: i64 = 253_402_300_799_999;

    /// Reads a text that matches [`TIME_TEXT`], and no other. A day that its month does not have becomes a day of the next
    /// month, as in JavaScript.
    pub fn read(text: &str) -> Option<Self> {
        let mut parser = TimeParser(text.as_bytes());
        let year = parser.number(4, 0..=9999)?;
        parser.one_of(b"-")?;
        let month = parser.number(2, 1..=12)?;
        parser.one_of(b"-")?;
        let day = parser.number(2, 1..=31)?;
        let mut millis = days_since_1970(year, month, day) * 86_400_000;
        if !parser.0.is_empty() {
            parser.one_of(b"Tt ")?;
            millis += parser.time_of_day()? - parser.offset()?;
        }
        if !parser.0.is_empty() {
            return None;
        }
        Self::from_millis(millis.clamp(Self::FIRST, Self::LAST))
    }
}

/// The bytes that have not been read yet.
struct TimeParser<'a>(&'a [u8]);

impl TimeParser<'_> {
    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        wanted.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    fn number(&mut self, digits: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        let number = number.iter().try_fold(0, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
        })?;
        self.0 = rest;
        range.contains(&number).then_some(number)
    }

    /// The time of day in milliseconds.
    fn time_of_day(&mut self) -> Option<i64> {
        let hour = self.number(2, 0..=23)?;
        self.one_of(b":")?;
        let minute = self.number(2, 0..=59)?;
        let mut millis = (hour * 60 + minute) * 60_000;
        if self.one_of(b":").is_some() {
            millis += match self.number(2, 0..=60)? {
                // A leap second becomes the last millisecond of the second before it.
                60 => {
                    self.fraction()?;
                    59_999
                }
                second => second * 1000 + self.fraction()?,
            };
        }
        Some(millis)
    }

    /// The fraction of a second in milliseconds, or 0 if there is none.
    fn fraction(&mut self) -> Option<i64> {
        if self.one_of(b".").is_none() {
            return Some(0);
        }
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, rest) = self.0.split_at_checked(digits).filter(|_| (1..=12).contains(&digits))?;
        self.0 = rest;
        let first_three = fraction.iter().map(|byte| i64::from(byte - b'0')).chain([0, 0]).take(3);
        Some(first_three.fold(0, |millis, digit| millis * 10 + digit))
    }

    /// The offset from UTC in milliseconds, or 0 if no zone is given.
    fn offset(&mut self) -> Option<i64> {
        if self.0.is_empty() {
            return Some(0);
        }
        self.one_of(b" ");
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.number(2, 0..=23)?;
        let minutes = match self.0.is_empty() {
            true => 0,
            false => {
                self.one_of(b":");
                self.number(2, 0..=59)?
            }
        };
        Some(sign * (hours * 60 + minutes) * 60_000)
    }
}

/// Uses the Gregorian calendar, also for days before its introduction. Years begin in March here, so that a leap day is the
/// last day of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let century = year.div_euclid(400);
    let year = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year * 365 + year / 4 - year / 100 + day_of_year;
    century * 146_097 + day_of_era - 719_468
}
