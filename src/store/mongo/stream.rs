//! How the change stream fares, for whoever watches it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mongodb::bson::Document;

use super::ordinals;
use crate::{store::StreamStatus, task::Timestamp};

/// An answer takes a quarter of a second while nothing happens. What is not older than that is no lag.
const UNREMARKABLE: Duration = Duration::from_secs(1);

/// All times are milliseconds since 1970; 0: never.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    restarts: AtomicU64,
    /// The cluster time of the last token.
    token: AtomicU64,
    /// The request that the next answer belongs to.
    asked: AtomicU64,
    /// Everything that was committed until then has been read.
    complete: AtomicU64,
}

impl StreamState {
    pub(super) fn broke_off(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// What happened before is no lag of this node.
    pub(super) fn begins(&self) {
        self.complete.store(now(), Ordering::Relaxed);
    }

    pub(super) fn asks(&self) {
        self.asked.store(now(), Ordering::Relaxed);
    }

    /// A change of that time was read.
    pub(super) fn read(&self, committed: Timestamp) {
        self.complete.fetch_max(u64::try_from(committed.millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// An answer with this token has been dealt with. Whether the stream came further with it. `is_behind`: more changes
    /// wait on the server; otherwise the server had no more when it was asked.
    pub(super) fn reached(&self, token: &Document, is_behind: bool) -> bool {
        if !is_behind {
            self.complete.fetch_max(self.asked.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let Some(time) = ordinals::cluster_time(token) else { return false };
        self.token.swap(time, Ordering::Relaxed) < time
    }

    pub(super) fn status(&self) -> StreamStatus {
        self.status_at(now())
    }

    fn status_at(&self, now: u64) -> StreamStatus {
        let since = |millis: u64| Duration::from_millis(now.saturating_sub(millis));
        let token = (self.token.load(Ordering::Relaxed) >> 32) * 1000;
        let complete = self.complete.load(Ordering::Relaxed);
        let lag = if complete > 0 { since(complete) } else { Duration::ZERO };
        StreamStatus {
            restarts: self.restarts.load(Ordering::Relaxed),
            token_age: (token > 0).then(|| since(token)),
            lag: if lag > UNREMARKABLE { lag } else { Duration::ZERO },
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
    fn the_lag_grows_while_an_answer_is_waited_for() {
        let state = StreamState::default();
        assert_eq!(state.status_at(50_000).lag, Duration::ZERO, "nothing has begun");
        state.complete.store(10_000, Ordering::Relaxed);
        assert_eq!(state.status_at(11_000).lag, Duration::ZERO);
        assert_eq!(state.status_at(30_000).lag, Duration::from_secs(20));
        state.asked.store(28_000, Ordering::Relaxed);
        assert!(state.reached(&token(20, 1), true), "it came further");
        assert_eq!(state.status_at(31_000).lag, Duration::from_secs(21), "and more waits on the server");
        state.read(Timestamp::from_millis(25_000).expect("a time"));
        assert_eq!(state.status_at(31_000).lag, Duration::from_secs(6));
        assert!(!state.reached(&token(20, 1), false), "it came no further");
        assert_eq!(state.status_at(31_000).lag, Duration::from_secs(3));
        assert_eq!(state.status_at(28_500).lag, Duration::ZERO);
        assert_eq!(state.status_at(31_000).token_age, Some(Duration::from_secs(11)));
    }
}
