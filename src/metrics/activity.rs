//! Metrics of activity events.

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use strum::VariantArray;

use super::{
    labelled::{Counters, counter},
    labels::ReportOutcome,
};

#[derive(Debug)]
pub struct ActivityMetrics {
    pub reports: Counters<ReportOutcome>,
    pub accepted: Counter,
    pub duplicates: Counter,
}

impl ActivityMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let reports = Counters::register(
            registry,
            "activity_reports",
            "Requests that report activity events, by outcome",
            ["outcome"],
        );
        Self {
            reports: reports.with(ReportOutcome::VARIANTS.iter().copied()),
            accepted: counter(
                registry,
                "activity_events",
                "Activity events that producers reported and the store has stored",
            ),
            duplicates: counter(
                registry,
                "activity_duplicates",
                "Reported activity events that had been stored before, with the same id",
            ),
        }
    }
}
