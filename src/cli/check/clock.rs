//! Whether clocks agree.

use crate::task::ClockReading;

use super::Finding;

/// `exp` has no leeway, and what MongoDB says of a change's time is told as lag.
const FELT_MS: i64 = 1000;

pub(super) fn check_clock(of: &str, reading: Option<ClockReading>) -> Finding {
    let Some(reading) = reading else {
        return Finding::warn(
            format!("the clock of {of} can't be read"),
            "let NTP set the clocks of all machines",
        );
    };
    let ahead = reading.ahead_ms();
    if ahead.abs() < FELT_MS {
        return Finding::ok(format!("its clock and that of {of} agree"));
    }
    let seconds = ahead.abs() as f64 / 1000.0;
    let where_to = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::warn(
        format!(
            "the clock of {of} is {seconds:.1}s {where_to} this machine's: lag is shown wrong, and one of them lets tokens in too \
             long or refuses them too early"
        ),
        "let NTP set both (timedatectl set-ntp true)",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};
    use crate::task::Timestamp;

    #[test]
    fn only_what_the_way_does_not_explain_is_a_difference() {
        let level = |before, there, after| {
            let at = |millis: i64| Timestamp::from_millis(1_800_000_000_000 + millis).expect("a time");
            check_clock("x", Some(ClockReading { before: at(before), there: at(there), after: at(after) }))
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
