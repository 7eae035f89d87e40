//! Metrics of the keys that are fetched from a key server.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use super::{
    labelled::{Counters, Level, all, gauge},
    labels::KeyFetch,
};

#[derive(Debug)]
pub struct KeyMetrics {
    pub fetches: Counters<KeyFetch>,
    age: Gauge<f64, AtomicU64>,
    pub waiting: Level,
}

impl KeyMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let age = Gauge::<f64, AtomicU64>::default();
        age.set(f64::NAN);
        registry.register(
            "keys_age_seconds",
            "How long ago the keys that tokens are checked with were fetched; NaN while there are none, and without \
             JWT_JWKS_URL",
            age.clone(),
        );
        Self {
            fetches: Counters::register(
                registry,
                "key_fetches",
                "Fetches from JWT_JWKS_URL by outcome; after any outcome but fetched, the known keys stay valid",
                ["outcome"],
            )
            .with(all()),
            age,
            waiting: gauge(
                registry,
                "tokens_waiting",
                "Tokens that wait for a fetch because their key is not known",
            ),
        }
    }

    pub fn set_age(&self, age: Option<Duration>) {
        self.age.set(age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }
}
