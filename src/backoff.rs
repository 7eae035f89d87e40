//! Exponential backoff: the pause before another attempt doubles with every failure in a row.

use std::{ops::RangeInclusive, time::Duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after so many failures, of which the first has the number 0.
    pub fn pause(self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(16)).min(self.longest)
    }

    /// The same with jitter: a random part of the pause. Nodes that lose a server at the same moment must not all come back at the same
    /// moment.
    pub fn pause_with_jitter(self, failures: u32, part: RangeInclusive<f64>) -> Duration {
        self.pause(failures).mul_f64(rand::random_range(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

    #[test]
    fn the_pause_doubles_up_to_the_longest_pause() {
        let millis = |failures| BACKOFF.pause(failures).as_millis();
        assert_eq!([millis(0), millis(1), millis(5)], [100, 200, 3200]);
        assert_eq!([millis(6), millis(u32::MAX)], [5000, 5000]);
    }

    #[test]
    fn the_pause_with_jitter_is_within_its_part_and_varies() {
        let pauses: Vec<Duration> = (0..100).map(|_| BACKOFF.pause_with_jitter(1, 0.5..=1.0)).collect();
        assert!(pauses.iter().all(|pause| (100..=200).contains(&pause.as_millis())), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
