//! Metrics of the store and of its change stream.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use strum::VariantArray;

use super::{
    labelled::{Level, PairCounters, counter, gauge, pairs},
    labels::{StoreFailure, StoreOperation},
};

#[derive(Debug)]
pub struct StoreMetrics {
    seconds: Family<[(&'static str, &'static str); 1], Histogram>,
    failures: PairCounters<StoreOperation, StoreFailure>,
    pub up: Level,
    stream_restarts: Counter,
    ambiguous_ids: Counter,
    token_age: Gauge<f64, AtomicU64>,
    stream_lag: Gauge<f64, AtomicU64>,
    oplog_window: Gauge<f64, AtomicU64>,
}

impl StoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let seconds = Family::<[_; 1], Histogram>::new_with_constructor(histogram as fn() -> Histogram);
        for operation in StoreOperation::VARIANTS {
            seconds.get_or_create_owned(&[("operation", operation.into())]);
        }
        registry.register("store_seconds", "Time that the store took, by operation", seconds.clone());
        let (token_age, stream_lag, oplog_window) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register(
            "resume_token_age_seconds",
            "How long ago the change stream's resume token was current; NaN without a change stream",
            token_age.clone(),
        );
        registry.register(
            "stream_lag_seconds",
            "How old changes may be that the change stream has not read yet; 0 while it reads all changes within a second, \
             NaN without a change stream",
            stream_lag.clone(),
        );
        registry.register(
            "oplog_window_seconds",
            "How far back MongoDB's oplog reaches: with an older resume token, history is lost; NaN if it is not known",
            oplog_window.clone(),
        );
        token_age.set(f64::NAN);
        stream_lag.set(f64::NAN);
        oplog_window.set(f64::NAN);
        Self {
            seconds,
            failures: PairCounters::register(
                registry,
                "store_failures",
                "Failed operations of the store: unavailable is temporary, the others need an operator",
                ["operation", "kind"],
            )
            .with(pairs(StoreOperation::VARIANTS, &[StoreFailure::Unavailable])),
            up: gauge(registry, "store_up", "1 while the store answers the check that runs every 2 s"),
            stream_restarts: counter(
                registry,
                "stream_restarts",
                "Times that the change stream broke off and was opened again",
            ),
            ambiguous_ids: counter(
                registry,
                "ambiguous_ids",
                "Times that a task was requested by an id that two documents have as text",
            ),
            token_age,
            stream_lag,
            oplog_window,
        }
    }

    pub fn set_ambiguous_ids(&self, times: u64) {
        self.ambiguous_ids.inner().fetch_max(times, Ordering::Relaxed);
    }

    pub fn observe_duration(&self, operation: StoreOperation, elapsed: Duration) {
        self.seconds.get_or_create(&[("operation", operation.into())]).observe(elapsed.as_secs_f64());
    }

    pub fn count_failure(&self, operation: StoreOperation, failure: StoreFailure) {
        self.failures.inc((operation, failure));
    }

    /// `token_age` is `None` before the first token.
    pub fn set_stream(&self, restarts: u64, token_age: Option<Duration>, lag: Duration) {
        // Two scrapes at the same time must not both add the new restarts.
        self.stream_restarts.inner().fetch_max(restarts, Ordering::Relaxed);
        self.token_age.set(token_age.map_or(f64::NAN, |age| age.as_secs_f64()));
        self.stream_lag.set(lag.as_secs_f64());
    }

    pub fn set_oplog_window(&self, window: Option<Duration>) {
        self.oplog_window.set(window.map_or(f64::NAN, |window| window.as_secs_f64()));
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0])
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn scrapes_at_the_same_time_do_not_count_a_restart_twice() {
        const SCRAPES: usize = 4;
        let metrics = StoreMetrics::register(&mut Registry::default());
        let together = Barrier::new(SCRAPES);
        let scrape = || {
            for restarts in 1..=2_000 {
                together.wait();
                metrics.set_stream(restarts, None, Duration::ZERO);
                together.wait();
                assert_eq!(metrics.stream_restarts.get(), restarts);
            }
        };
        std::thread::scope(|scope| (0..SCRAPES).for_each(|_| drop(scope.spawn(scrape))));
    }
}
