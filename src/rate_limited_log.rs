//! A rate limit for log lines that a client can cause as often as it likes.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(60);

/// Allows the first line, and then one line per minute with the number of suppressed lines. Metrics count all
/// occurrences.
#[derive(Debug)]
pub struct LogRateLimit(Mutex<State>);

#[derive(Debug)]
struct State {
    last_logged: Option<Instant>,
    suppressed: u64,
}

impl LogRateLimit {
    pub const fn new() -> Self {
        Self(Mutex::new(State { last_logged: None, suppressed: 0 }))
    }

    /// Returns `Some` if a line may be logged now. The inner value is the number of lines that were suppressed since
    /// the last one, if any.
    pub fn due(&self, now: Instant) -> Option<Option<u64>> {
        let mut state = self.0.lock();
        if state.last_logged.is_some_and(|last_logged| now.saturating_duration_since(last_logged) < WINDOW) {
            state.suppressed += 1;
            return None;
        }
        let suppressed =
            std::mem::replace(&mut *state, State { last_logged: Some(now), suppressed: 0 }).suppressed;
        Some((suppressed > 0).then_some(suppressed))
    }
}

impl Default for LogRateLimit {
    fn default() -> Self {
        Self::new()
    }
}

/// `rate_limited_log!(info, %error, "refused")`: like `tracing::info!`, but rate-limited. The field `suppressed` is the number of
/// suppressed lines.
macro_rules! rate_limited_log {
    ($level:ident, $($line:tt)+) => {{
        static LIMIT: $crate::rate_limited_log::LogRateLimit = $crate::rate_limited_log::LogRateLimit::new();
        if let Some(suppressed) = LIMIT.due(std::time::Instant::now()) {
            tracing::$level!(suppressed, $($line)+);
        }
    }};
}
pub(crate) use rate_limited_log;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_logged_and_then_one_per_minute_with_the_number_of_suppressed_lines() {
        let limit = LogRateLimit::new();
        let start = Instant::now();
        let at = |seconds| limit.due(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(None));
        for second in 1..60 {
            assert_eq!(at(second), None);
        }
        assert_eq!(at(60), Some(Some(59)));
        assert_eq!(at(61), None);
        assert_eq!(at(500), Some(Some(1)));
        assert_eq!(at(560), Some(None), "no line was suppressed");
    }
}
