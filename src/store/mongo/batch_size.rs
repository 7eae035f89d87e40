//! Chooses how many changes one `getMore` of the change stream requests.
//!
//! Without a limit, the server collects changes as long as it finds more. A change of a large document takes a long time, because the
//! server looks up both images and compares them. All other changes would wait until the server has finished. A small limit, however, is
//! slow if each answer has a delay. The limit therefore follows from two measurements: the delay of an answer, and the time for each
//! change.

use std::time::Duration;

use super::open::MAX_AWAIT_TIME;

/// The limit while the server is fast. The driver's own cursor uses this limit, which costs this node least. Even if each change takes the
/// server 100 ms, an answer takes only about three seconds.
pub(super) const DEFAULT_LIMIT: u32 = 32;
/// The limit of a new stream, which may begin with a backlog of large documents.
const INITIAL_LIMIT: u32 = 4;
const MAX_LIMIT: u32 = 4096;
/// The changes of one answer may take the server this many seconds, or as long as the delay of the answer.
const TARGET_SECONDS: f64 = 0.2;
const GROWTH_FACTOR: u32 = 4;
/// A measurement is discarded after this number of answers, because the server may have changed.
const MAX_SAMPLE_AGE: u32 = 8;

/// Chooses the limit of each request from how long the previous answers took.
#[derive(Debug)]
pub(super) struct BatchSize {
    limit: u32,
    /// The last answer was full, so the next changes are ready and the server does not wait for them.
    is_behind: bool,
    last: Option<Sample>,
    /// The newest measurement with another number of changes than `last`, and its age in answers.
    other: Option<(Sample, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    changes: f64,
    seconds: f64,
}

/// The result of two measurements. A single measurement can't separate the delay from the work.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    /// The delay of an answer, in seconds. It does not depend on the number of changes.
    delay: f64,
    /// The time for each change, in seconds.
    per_change: f64,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { limit: INITIAL_LIMIT, is_behind: false, last: None, other: None }
    }
}

impl BatchSize {
    /// The limit for the next request; at least 1.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns whether the last answer left changes behind on the server.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// An answer with this number of changes came after `took`.
    pub(super) fn answered(&mut self, changes: usize, took: Duration) {
        let changes = u32::try_from(changes).unwrap_or(u32::MAX);
        let was_behind = self.is_behind;
        self.is_behind = changes >= self.limit;
        let limit = if was_behind {
            self.after_work(changes, took.as_secs_f64())
        } else {
            self.after_waiting(changes, took.saturating_sub(MAX_AWAIT_TIME).as_secs_f64())
        };
        self.limit = limit.clamp(1, MAX_LIMIT);
    }

    /// The changes were ready when the request was sent, so the server did not wait for them.
    fn after_work(&mut self, changes: u32, seconds: f64) -> u32 {
        let now = Sample { changes: f64::from(changes), seconds };
        if let Some(last) = self.last.replace(now)
            && last.changes != now.changes
        {
            self.other = Some((last, 0));
        }
        self.other = self.other.and_then(|(other, age)| (age < MAX_SAMPLE_AGE).then_some((other, age + 1)));
        match self.estimate() {
            Some(Estimate { delay, per_change }) => {
                let fitting = (delay.max(TARGET_SECONDS) / per_change).min(f64::from(MAX_LIMIT)) as u32;
                // A delay of more than a fifth of the work for an ordinary answer would make a backlog notably slower.
                let is_delayed = delay > per_change * f64::from(DEFAULT_LIMIT) / 5.0;
                let max_limit = if is_delayed { MAX_LIMIT } else { DEFAULT_LIMIT };
                fitting.min(max_limit).min(self.grown())
            }
            None if seconds <= TARGET_SECONDS && self.limit < DEFAULT_LIMIT => {
                self.grown().min(DEFAULT_LIMIT)
            }
            // A second measurement with another number of changes will separate the delay from the time for each change.
            None if changes > 1 => changes / 2,
            None => 2,
        }
    }

    /// The previous answer left no changes on the server, so the server may have waited for the first change. `seconds` is the time beyond
    /// the longest possible wait, which is too inaccurate for a measurement.
    fn after_waiting(&mut self, changes: u32, seconds: f64) -> u32 {
        let expected =
            self.estimate().map_or(0.0, |known| known.delay + known.per_change * f64::from(changes));
        if seconds <= TARGET_SECONDS {
            self.clear_samples();
            if self.is_behind { self.grown().min(DEFAULT_LIMIT) } else { DEFAULT_LIMIT }
        } else if changes == 0 || seconds <= 2.0 * expected {
            self.limit
        } else {
            self.clear_samples();
            (f64::from(changes) * TARGET_SECONDS / seconds) as u32
        }
    }

    fn grown(&self) -> u32 {
        self.limit.saturating_mul(GROWTH_FACTOR)
    }

    fn clear_samples(&mut self) {
        (self.last, self.other) = (None, None);
    }

    fn estimate(&self) -> Option<Estimate> {
        let (now, (other, _)) = (self.last?, self.other?);
        let slope = (now.seconds - other.seconds) / (now.changes - other.changes);
        let max_per_change = if now.changes > 0.0 { now.seconds / now.changes } else { slope };
        let per_change = slope.min(max_per_change).max(0.0);
        Some(Estimate { delay: (now.seconds - per_change * now.changes).max(0.0), per_change })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server that needs `delay` for each answer and `per_change` for each change in it.
    struct Server {
        delay: f64,
        per_change: f64,
    }

    impl Server {
        fn answers(&self, changes: u32) -> Duration {
            Duration::from_secs_f64(self.delay + self.per_change * f64::from(changes))
        }

        /// Reads a backlog. Returns the number of changes in each answer, and the total time in seconds.
        fn read(&self, size: &mut BatchSize, mut backlog: u32) -> (Vec<u32>, f64) {
            let (mut batches, mut seconds) = (Vec::new(), 0.0);
            while backlog > 0 {
                let batch = size.limit().min(backlog);
                let took = self.answers(batch);
                size.answered(batch as usize, took);
                batches.push(batch);
                seconds += took.as_secs_f64();
                backlog -= batch;
            }
            (batches, seconds)
        }
    }

    fn idle(size: &mut BatchSize) {
        size.answered(0, MAX_AWAIT_TIME);
    }

    #[test]
    fn a_quiet_stream_of_a_fast_server_uses_the_ordinary_limit() {
        let mut size = BatchSize::default();
        for (changes, millis) in [(0, 250), (1, 240), (3, 1), (0, 251), (2, 90), (1, 249)] {
            size.answered(changes, Duration::from_millis(millis));
            assert_eq!(size.limit(), DEFAULT_LIMIT);
            assert!(!size.is_behind());
        }
    }

    #[test]
    fn slow_changes_are_requested_in_small_batches() {
        let mut size = BatchSize::default();
        idle(&mut size);
        let (batches, _) = Server { delay: 0.001, per_change: 1.0 }.read(&mut size, 60);
        assert_eq!(batches[0], DEFAULT_LIMIT, "the first batch has the ordinary limit");
        assert!(batches[1..].iter().all(|batch| *batch <= 4), "{batches:?}");
    }

    #[test]
    fn answers_with_a_long_delay_are_requested_with_many_changes() {
        let mut size = BatchSize::default();
        idle(&mut size);
        let (batches, _) = Server { delay: 20.0, per_change: 0.0001 }.read(&mut size, 20_000);
        assert!(batches.len() < 20, "{batches:?}");
    }

    #[test]
    fn a_delay_that_begins_while_the_limit_is_small_is_detected() {
        let mut size = BatchSize::default();
        Server { delay: 0.0, per_change: 1.0 }.read(&mut size, 20);
        let (batches, _) = Server { delay: 20.0, per_change: 0.0001 }.read(&mut size, 10_000);
        assert!(batches.len() < 40, "{batches:?}");
    }

    #[test]
    fn the_ordinary_limit_returns_when_the_server_is_fast_again() {
        let mut size = BatchSize::default();
        Server { delay: 0.5, per_change: 1.0 }.read(&mut size, 20);
        Server { delay: 0.000_2, per_change: 0.000_06 }.read(&mut size, 100);
        idle(&mut size);
        assert_eq!(size.limit(), DEFAULT_LIMIT);
    }

    proptest! {
        /// After the first three answers of any server, no answer delays the following changes for long. The backlog is read nearly as fast
        /// as with the best fixed limit.
        #[test]
        fn a_backlog_is_read_fast_and_in_short_answers(
            delay in prop_oneof![0.0..0.005f64, 0.0..2.0, 2.0..20.0],
            per_change in prop_oneof![0.000_01..0.001f64, 0.001..0.1, 0.1..2.0],
            backlog in 1..3000u32,
            was_quiet: bool,
        ) {
            let server = Server { delay, per_change };
            let mut size = BatchSize::default();
            if was_quiet {
                idle(&mut size);
            }
            let (batches, seconds) = server.read(&mut size, backlog);
            for batch in batches.iter().skip(3) {
                let work = per_change * f64::from(*batch);
                prop_assert!(work <= 4.0 * per_change.max(TARGET_SECONDS).max(delay), "{batches:?}");
            }
            let changes = f64::from(backlog);
            let rounds = (per_change * changes / TARGET_SECONDS.max(delay)).max(changes / f64::from(if delay > per_change * 6.4 { MAX_LIMIT } else { DEFAULT_LIMIT }));
            let good = per_change * changes + delay * (2.0 * rounds + 16.0);
            prop_assert!(seconds <= 1.5 * good + 1.0, "{seconds} instead of {good}: {batches:?}");
        }

        #[test]
        fn every_limit_is_within_the_bounds(answers in proptest::collection::vec((0..10_000usize, 0..100_000u64), 0..60)) {
            let mut size = BatchSize::default();
            for (changes, millis) in answers {
                let limit = size.limit() as usize;
                size.answered(changes.min(limit), Duration::from_millis(millis));
                prop_assert!((1..=MAX_LIMIT).contains(&size.limit()));
                prop_assert!(size.limit() as usize <= limit * GROWTH_FACTOR as usize || size.limit() <= DEFAULT_LIMIT);
            }
        }
    }
}
