//! The clock that tokens are checked against.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment as milliseconds since 1970-01-01T00:00:00Z, up to the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The last second of the year 9999: far enough for any token, near enough for any timer and any date type.
    pub const MAX: UnixTime = UnixTime(253_402_300_799_000);

    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).min(Self::MAX)
    }

    pub const fn from_secs(secs: u64) -> Self {
        match secs.checked_mul(1000) {
            Some(millis) if millis < Self::MAX.0 => Self(millis),
            _ => Self::MAX,
        }
    }

    pub fn from_millis(millis: u64) -> Self {
        Self(millis).min(Self::MAX)
    }

    /// A JWT's NumericDate (RFC 7519 §2), which may have a fraction. It is rounded down to a millisecond, so that no token is good
    /// after its `exp`. What lies before 1970 becomes 1970. None: not a finite number.
    pub(super) fn from_numeric_date(number: &serde_json::Number) -> Option<Self> {
        if let Some(secs) = number.as_u64() {
            return Some(Self::from_secs(secs));
        }
        let secs = number.as_f64().filter(|secs| secs.is_finite())?;
        // A cast of a number that does not fit gives the nearest one that does.
        let millis = (secs.fract() * 1000.0) as u64;
        Some(Self::from_secs(secs.trunc() as u64).plus(Duration::from_millis(millis)))
    }

    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis)).min(Self::MAX)
    }

    /// How long from `earlier` until this moment; zero when it is past.
    pub fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
