//! Counters, gauges and histograms, with and without labels.

use std::{marker::PhantomData, sync::atomic::AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};
use strum::VariantArray;

/// A gauge of a whole number that is not negative.
pub type Level = Gauge<u64, AtomicU64>;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The values of a metric's labels: of one label, or of two.
pub trait LabelValues<const N: usize> {
    fn texts(self) -> [&'static str; N];
}

impl<A: Into<&'static str>> LabelValues<1> for A {
    fn texts(self) -> [&'static str; 1] {
        [self.into()]
    }
}

impl<A: Into<&'static str>, B: Into<&'static str>> LabelValues<2> for (A, B) {
    fn texts(self) -> [&'static str; 2] {
        [self.0.into(), self.1.into()]
    }
}

/// A metric for each combination of its labels' values `V`.
#[derive(Clone, Debug)]
pub struct Labelled<M, V, const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, M>,
    values: PhantomData<fn(V)>,
}

/// Counters with one label.
pub type Counters<V> = Labelled<Counter, V, 1>;
/// Counters with two labels.
pub type PairCounters<A, B> = Labelled<Counter, (A, B), 2>;
/// Gauges with one label.
pub type Gauges<V> = Labelled<Level, V, 1>;

impl<M, V, const N: usize> Labelled<M, V, N>
where
    M: Clone + Default,
    V: LabelValues<N>,
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
        Self { names, family, values: PhantomData }
    }

    /// Creates these label values at the start, because a rate needs a value from before the first increment.
    pub(super) fn with(self, known: impl IntoIterator<Item = V>) -> Self {
        for values in known {
            self.of(values);
        }
        self
    }

    pub fn of(&self, values: V) -> M {
        let values = values.texts();
        let labels = std::array::from_fn(|n| (self.names[n], values[n]));
        self.family.get_or_create_owned(&labels)
    }
}

impl<V: LabelValues<N>, const N: usize> Labelled<Counter, V, N> {
    pub fn inc(&self, values: V) {
        self.of(values).inc();
    }
}

/// All values of a label.
pub(super) fn all<V: VariantArray + Copy>() -> impl Iterator<Item = V> {
    V::VARIANTS.iter().copied()
}

/// All pairs of the values of two labels.
pub(super) fn pairs<A: Copy + 'static, B: Copy + 'static>(
    first: &'static [A],
    second: &'static [B],
) -> impl Iterator<Item = (A, B)> {
    first.iter().flat_map(move |a| second.iter().map(move |b| (*a, *b)))
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
