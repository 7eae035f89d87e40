//! The state of the change stream for health and metrics: restarts, the age of the resume token, and the lag.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mongodb::bson::Document;

use super::ordinals;
use crate::{store::ChangeStreamStatus, task::Timestamp};

/// A smaller lag is reported as zero, because an answer takes a quarter of a second while nothing happens.
const MIN_REPORTED_LAG: Duration = Duration::from_secs(1);

/// All times but `token` are milliseconds since 1970. The value 0 means never.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    restarts: AtomicU64,
    /// The cluster time of the last resume token.
    token: AtomicU64,
    /// When the last request was sent.
    requested_at: AtomicU64,
    /// All changes that were committed up to this time have been read.
    complete_until: AtomicU64,
}

impl StreamState {
    pub(super) fn broke_off(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins to measure the lag. Earlier changes do not count as lag of this node.
    pub(super) fn started(&self) {
        self.complete_until.store(now(), Ordering::Relaxed);
    }

    pub(super) fn request_sent(&self) {
        self.requested_at.store(now(), Ordering::Relaxed);
    }

    /// A change that was committed at this time was read.
    pub(super) fn change_read(&self, committed: Timestamp) {
        self.complete_until.fetch_max(u64::try_from(committed.millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// An answer with this token was processed. Returns whether the stream advanced. `is_behind` means that more changes wait on the
    /// server. Otherwise the server had no more changes at the time of the request.
    pub(super) fn answer_processed(&self, token: &Document, is_behind: bool) -> bool {
        if !is_behind {
            self.complete_until.fetch_max(self.requested_at.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let Some(time) = ordinals::cluster_time(token) else { return false };
        self.token.swap(time, Ordering::Relaxed) < time
    }

    pub(super) fn status(&self) -> ChangeStreamStatus {
        self.status_at(now())
    }

    fn status_at(&self, now: u64) -> ChangeStreamStatus {
        let since = |millis: u64| Duration::from_millis(now.saturating_sub(millis));
        let token = (self.token.load(Ordering::Relaxed) >> 32) * 1000;
        let complete_until = self.complete_until.load(Ordering::Relaxed);
        let lag = if complete_until > 0 { since(complete_until) } else { Duration::ZERO };
        ChangeStreamStatus {
            restarts: self.restarts.load(Ordering::Relaxed),
            token_age: (token > 0).then(|| since(token)),
            lag: if lag > MIN_REPORTED_LAG { lag } else { Duration::ZERO },
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    fn token(seconds: u32, increment: u32) -> Document {
        doc! {"_data": format!("82{seconds:08X}{increment:08X}2B0229")}
    }

    #[test]
    fn the_lag_grows_while_the_node_waits_for_an_answer() {
        let state = StreamState::default();
        assert_eq!(state.status_at(50_000).lag, Duration::ZERO, "nothing has begun");
        state.complete_until.store(10_000, Ordering::Relaxed);
        assert_eq!(state.status_at(11_000).lag, Duration::ZERO);
        assert_eq!(state.status_at(30_000).lag, Duration::from_secs(20));
        state.requested_at.store(28_000, Ordering::Relaxed);
        assert!(state.answer_processed(&token(20, 1), true), "the stream advanced");
        assert_eq!(state.status_at(31_000).lag, Duration::from_secs(21), "more changes wait on the server");
        state.change_read(Timestamp::from_millis(25_000).expect("a time"));
        assert_eq!(state.status_at(31_000).lag, Duration::from_secs(6));
        assert!(!state.answer_processed(&token(20, 1), false), "the stream did not advance");
        assert_eq!(state.status_at(31_000).lag, Duration::from_secs(3));
        assert_eq!(state.status_at(28_500).lag, Duration::ZERO);
        assert_eq!(state.status_at(31_000).token_age, Some(Duration::from_secs(11)));
    }
}
