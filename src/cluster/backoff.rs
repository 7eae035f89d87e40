//! The backoff between attempts to connect to Redis.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The pause doubles with every failure in a row, and a random part of up to a half is subtracted (`random` is from 0
/// to 1). The nodes of a cluster lose Redis at the same moment and must not reconnect at the same moment.
pub(super) fn pause(failures: u32, random: f64) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST);
    whole.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_and_is_randomised() {
        let millis = |failures, random| pause(failures, random).as_millis();
        assert_eq!([millis(0, 0.0), millis(1, 0.0), millis(5, 0.0)], [100, 200, 3200]);
        assert_eq!([millis(6, 0.0), millis(u32::MAX, 0.0)], [5000, 5000]);
        assert_eq!([millis(0, 1.0), millis(u32::MAX, 1.0)], [50, 2500]);
    }
}
