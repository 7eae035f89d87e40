//! A rate limit for log lines that a client can cause as often as it likes.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);

/// Allows the first line, and then one line per minute with the number of suppressed lines. Metrics count all
/// occurrences.
#[derive(Debug)]
pub struct Seldom(Mutex<State>);

#[derive(Debug)]
struct State {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(State { told: None, untold: 0 }))
    }

    /// Returns `Some` if a line may be logged now. The inner value is the number of lines that were suppressed since
    /// the last one, if any.
    pub fn due(&self, now: Instant) -> Option<Option<u64>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told.is_some_and(|told| now.saturating_duration_since(told) < WINDOW) {
            state.untold += 1;
            return None;
        }
        let untold = std::mem::replace(&mut *state, State { told: Some(now), untold: 0 }).untold;
        Some((untold > 0).then_some(untold))
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

/// `seldom!(info, %error, "refused")`: like `tracing::info!`, but rate-limited. The field `untold` is the number of
/// suppressed lines.
macro_rules! seldom {
    ($level:ident, $($line:tt)+) => {{
        static SELDOM: $crate::seldom::Seldom = $crate::seldom::Seldom::new();
        if let Some(untold) = SELDOM.due(std::time::Instant::now()) {
            tracing::$level!(untold, $($line)+);
        }
    }};
}
pub(crate) use seldom;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_logged_and_then_one_per_minute_with_the_number_of_suppressed_lines() {
        let seldom = Seldom::new();
        let start = Instant::now();
        let at = |seconds| seldom.due(start + Duration::from_secs(seconds));
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
