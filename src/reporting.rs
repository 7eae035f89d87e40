//! Accepts events that producers report: limits their rate, checks them against their schemas, and stores them.
//!
//! Every way to report an event leads here, so all of them have the same limits and the same errors.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::{
    activity::{EventProblem, Origin, Registry, Report},
    metrics::{Metrics, ReportOutcome},
    rate_limit::{RateLimit, RateLimited},
    rate_limited_log::rate_limited_log,
    store::{ActivityStore, AppendError, Appended, EventBatch, NewEvent, RetentionLimits, StoreError},
    task::{Timestamp, UserId, Viewer},
};

/// An answer names at most this many problems.
const MAX_PROBLEMS: usize = 20;
/// A user may report this many seconds' worth of events at once.
const BURST_SECONDS: u32 = 10;
/// How often events whose retention has ended are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct ReportingSettings {
    pub retention: Duration,
    pub high_volume_retention: Duration,
    /// How many events one user may report per second.
    pub rate_per_second: u32,
}

/// The activity of one node: its store, its types, and its limits.
#[derive(Debug)]
pub struct Reporting {
    pub store: Arc<dyn ActivityStore>,
    pub registry: Arc<Registry>,
    settings: ReportingSettings,
    rate_limit: RateLimit,
    metrics: Arc<Metrics>,
}

/// What is wrong with one event of a batch.
#[derive(Debug, PartialEq, Serialize)]
pub struct InvalidEvent {
    /// The place of the event in the batch, from 0.
    pub index: usize,
    /// The type that the event names, if it has the form of a type.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    #[serde(flatten)]
    pub problem: EventProblem,
}

/// Why nothing of a batch was stored.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{}", summary(.0))]
    Invalid(Vec<InvalidEvent>),
    #[error(
        "event {index} of the batch has the id of an earlier event of this reporter, but another content: use a new id for it"
    )]
    Conflict { index: usize },
    #[error("this user reports too many events: wait, or raise ACTIVITY_RATE_PER_SECOND")]
    TooMany(RateLimited),
    /// The batch is larger than the burst, so it would be refused at any time.
    #[error("at most {max} events fit into one request, because ACTIVITY_RATE_PER_SECOND limits the burst")]
    LargerThanBurst { max: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Reporting {
    pub fn new(
        store: Arc<dyn ActivityStore>,
        registry: Arc<Registry>,
        settings: ReportingSettings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let rate = settings.rate_per_second;
        let rate_limit = RateLimit::with_burst(rate, rate.saturating_mul(BURST_SECONDS));
        Self { store, registry, settings, rate_limit, metrics }
    }

    /// Counts the first event of a report. A user who reports too much is refused before anything is read.
    pub fn check_rate(&self, user: &UserId) -> Result<(), ReportError> {
        self.rate_limit.check(user).map_err(|limited| self.too_many(ReportError::TooMany(limited)))
    }

    /// Stores the events that a user reports as JSON, or none of them. The caller has called [`Self::check_rate`].
    pub async fn report(&self, reporter: &Viewer, events: Vec<Value>) -> Result<Appended, ReportError> {
        self.count(&reporter.user, events.len())?;
        let mut problems = Vec::new();
        let mut reports = Vec::with_capacity(events.len());
        for (index, event) in events.into_iter().enumerate() {
            let event_type = Report::named_type(&event).map(str::to_owned);
            let checked =
                Report::parse(event).and_then(|report| self.registry.check(&report).map(|()| report));
            match checked {
                Ok(report) => reports.push(report),
                Err(found) => problems.extend(found.into_iter().map(|problem| InvalidEvent {
                    index,
                    event_type: event_type.clone(),
                    problem,
                })),
            }
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
        }
        if !problems.is_empty() {
            problems.truncate(MAX_PROBLEMS);
            self.metrics.activity.reports.inc(ReportOutcome::Invalid);
            return Err(ReportError::Invalid(problems));
        }
        self.append(reporter, reports).await
    }

    /// Stores the reports that the server itself has made from what a user sent. The caller has called [`Self::check_rate`].
    pub async fn report_made(
        &self,
        reporter: &Viewer,
        reports: Vec<Report>,
    ) -> Result<Appended, ReportError> {
        self.count(&reporter.user, reports.len())?;
        self.append(reporter, reports).await
    }

    async fn append(&self, reporter: &Viewer, reports: Vec<Report>) -> Result<Appended, ReportError> {
        let events = reports.into_iter().map(|report| {
            let high_volume = self.registry.is_high_volume(&report.event_type);
            NewEvent { report, high_volume }
        });
        let origin = Origin { org: reporter.org.clone(), reported_by: Some(reporter.user.clone()) };
        let reports = &self.metrics.activity.reports;
        match self.store.append(EventBatch { origin, events: events.collect() }).await {
            Ok(appended) => {
                reports.inc(ReportOutcome::Stored);
                self.metrics.activity.accepted.inc_by(appended.accepted as u64);
                self.metrics.activity.duplicates.inc_by(appended.duplicates as u64);
                Ok(appended)
            }
            Err(AppendError::Conflict { index }) => {
                reports.inc(ReportOutcome::Conflict);
                Err(ReportError::Conflict { index })
            }
            Err(AppendError::Store(error)) => {
                reports.inc(ReportOutcome::Unavailable);
                Err(error.into())
            }
        }
    }

    /// Counts the events of a report, of which the first is already counted.
    fn count(&self, user: &UserId, events: usize) -> Result<(), ReportError> {
        let max = self.settings.rate_per_second.saturating_mul(BURST_SECONDS);
        if events > usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(self.too_many(ReportError::LargerThanBurst { max }));
        }
        let counted = match self.rate_limit.check_many(user, events.saturating_sub(1)) {
            Ok(limited) => limited.map_err(ReportError::TooMany),
            Err(max) => Err(ReportError::LargerThanBurst { max }),
        };
        counted.map_err(|error| self.too_many(error))
    }

    fn too_many(&self, error: ReportError) -> ReportError {
        self.metrics.activity.reports.inc(ReportOutcome::RateLimited);
        error
    }

    /// Removes events whose retention has ended, and old entries of the rate limit. This function never returns.
    pub async fn run_cleanup(&self) {
        let mut interval = tokio::time::interval(PRUNE_INTERVAL);
        loop {
            interval.tick().await;
            self.rate_limit.forget_idle();
            loop {
                match self.store.prune(self.retention_limits(Timestamp::now())).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        rate_limited_log!(warn, %error, "old events can't be removed at the moment");
                        break;
                    }
                }
            }
        }
    }

    fn retention_limits(&self, now: Timestamp) -> RetentionLimits {
        let before = |retention: Duration| {
            let millis = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_millis(now.millis().saturating_sub(millis)).unwrap_or(now)
        };
        RetentionLimits {
            events: before(self.settings.retention),
            high_volume: before(self.settings.high_volume_retention),
        }
    }
}

fn summary(problems: &[InvalidEvent]) -> String {
    match problems {
        [] => "an event is not valid".to_owned(),
        [first, ..] => format!(
            "event {}: {} {}; nothing was stored",
            first.index, first.problem.path, first.problem.message
        ),
    }
}
