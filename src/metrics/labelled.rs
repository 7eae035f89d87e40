//! Counters, gauges and histograms, with and without labels.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// A gauge of a whole number that is not negative.
pub type Level = Gauge<u64, AtomicU64>;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A metric for each combination of its labels' values.
#[derive(Clone, Debug)]
pub struct Labelled<M, const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, M>,
}

pub type Counters<const N: usize> = Labelled<Counter, N>;
pub type Gauges<const N: usize> = Labelled<Level, N>;

impl<M, const N: usize> Labelled<M, N>
where
    M: Clone + Default,
    Family<Labels<N>, M>: Metric,
{
    pub(super) fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        names: [&'static str; N],
    ) -> Self {
        let family = Family::default();
        registry.register(name, help, family.clone());
        Self { names, family }
    }

    /// Creates these label values at the start, because a rate needs a value from before the first increment.
    pub(super) fn with(self, known: impl IntoIterator<Item = [&'static str; N]>) -> Self {
        for values in known {
            self.of(values);
        }
        self
    }

    pub fn of(&self, values: [&'static str; N]) -> M {
        let labels = std::array::from_fn(|n| (self.names[n], values[n]));
        self.family.get_or_create_owned(&labels)
    }
}

impl<const N: usize> Counters<N> {
    pub fn inc(&self, values: [&'static str; N]) {
        self.of(values).inc();
    }
}

pub(super) fn gauge(registry: &mut Registry, name: &str, help: &str) -> Level {
    let gauge = Level::default();
    registry.register(name, help, gauge.clone());
    gauge
}

pub(super) fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// A histogram of seconds.
pub(super) fn histogram<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    buckets: [f64; N],
) -> Histogram {
    let histogram = Histogram::new(buckets);
    registry.register(name, help, histogram.clone());
    histogram
}
