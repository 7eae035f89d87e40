//! Lines of the log that somebody outside can cause as often as they like.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);

/// Told the first time, and from then on once a minute, with how many were not. Metrics count all of them.
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

    /// Whether it is time for a line; then with how many there were since the last, if any.
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

/// `seldom!(info, %error, "refused")`: like `tracing::info!`, but seldom. What was left out is the field `untold`.
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
    fn the_first_is_told_and_then_one_a_minute_with_the_number_of_the_others() {
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
        assert_eq!(at(560), Some(None), "nothing was left out");
    }
}
