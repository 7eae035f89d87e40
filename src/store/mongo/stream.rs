//! How the change stream fares, for whoever watches it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mongodb::bson::Document;

use super::ordinals;
use crate::store::StreamStatus;

#[derive(Debug, Default)]
pub(super) struct StreamState {
    restarts: AtomicU64,
    /// The cluster time of the last token, in seconds; 0: there was none.
    token: AtomicU64,
}

impl StreamState {
    pub(super) fn broke_off(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reached(&self, token: &Document) {
        if let Some(time) = ordinals::cluster_time(token) {
            self.token.store(time >> 32, Ordering::Relaxed);
        }
    }

    pub(super) fn status(&self) -> StreamStatus {
        let token = self.token.load(Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let token_age = (token > 0).then(|| now.saturating_sub(Duration::from_secs(token)));
        StreamStatus { restarts: self.restarts.load(Ordering::Relaxed), token_age }
    }
}
