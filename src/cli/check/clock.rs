//! Checks that the clock of another server agrees with the clock of this machine.

use crate::task::ClockReading;

use super::Finding;

/// A larger difference is a warning. A token's `exp` has no leeway, and the lag metric uses the time that MongoDB gives a
/// change.
const FELT_MS: i64 = 1000;

pub(super) fn check_clock(of: &str, reading: Option<ClockReading>) -> Finding {
    let Some(reading) = reading else {
        return Finding::warn(
            format!("taskcast can't read the clock of {of}"),
            "let NTP set the clocks of all machines",
        );
    };
    let ahead = reading.ahead_ms();
    if ahead.abs() < FELT_MS {
        return Finding::ok(format!("the clocks of this machine and of {of} agree"));
    }
    let seconds = ahead.abs() as f64 / 1000.0;
    let where_to = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::warn(
        format!(
            "the clock of {of} is {seconds:.1}s {where_to} this machine's: the lag is measured wrong, and one of the machines \
             accepts tokens for too long or refuses them too early"
        ),
        "let NTP set both clocks (timedatectl set-ntp true)",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};
    use crate::task::Timestamp;

    #[test]
    fn the_time_that_the_request_takes_is_not_a_difference_of_the_clocks() {
        let level = |before, remote, after| {
            let at = |millis: i64| Timestamp::from_millis(1_800_000_000_000 + millis).expect("a time");
            check_clock("x", Some(ClockReading { before: at(before), remote: at(remote), after: at(after) }))
                .level
        };
        assert_eq!(level(0, 10, 20), Level::Ok);
        assert_eq!(level(0, 3000, 4000), Level::Ok, "the answer took that long");
        assert_eq!(level(0, 900, 20), Level::Ok);
        assert_eq!(level(0, 2000, 20), Level::Warn);
        assert_eq!(level(0, -2000, 20), Level::Warn);
        assert_eq!(check_clock("x", None).level, Level::Warn);
    }
}
