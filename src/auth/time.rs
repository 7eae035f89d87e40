//! The clock that tokens are checked against.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment as milliseconds since 1970-01-01T00:00:00Z, up to the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The last second of the year 9999: later than any token needs, and small enough for any timer and any date type.
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

    /// Converts a JWT's NumericDate (RFC 7519 §2), which may have a fraction. The value is rounded down to a
    /// millisecond, so that no token is valid after its `exp`. A time before 1970 becomes 1970. `None` means that the
    /// number is not finite.
    pub(super) fn from_numeric_date(number: &serde_json::Number) -> Option<Self> {
        if let Some(secs) = number.as_u64() {
            return Some(Self::from_secs(secs));
        }
        let secs = number.as_f64().filter(|secs| secs.is_finite())?;
        // The cast saturates: a number that does not fit becomes the nearest number that fits.
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

    /// The time from `earlier` until this moment, or zero if this moment is before `earlier`.
    pub fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
