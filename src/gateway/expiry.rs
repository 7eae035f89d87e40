//! Finds the sessions whose tokens expire, with one timer for all of them.

use std::{collections::BTreeSet, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{auth::UnixTime, fanout::PeerId};

/// The timer runs at most this long, because the wall clock may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Expiries {
    /// Expiry times in milliseconds since 1970.
    due: Mutex<BTreeSet<(u64, PeerId)>>,
    earlier: Notify,
}

impl Expiries {
    pub fn add(&self, at: UnixTime, peer: PeerId) {
        let entry = (at.as_millis(), peer);
        let mut due = self.due.lock();
        due.insert(entry);
        if due.first() == Some(&entry) {
            self.earlier.notify_one();
        }
    }

    pub fn remove(&self, at: UnixTime, peer: PeerId) {
        self.due.lock().remove(&(at.as_millis(), peer));
    }

    /// Waits for the next peers whose tokens have expired.
    pub async fn next(&self) -> Vec<PeerId> {
        loop {
            let now = UnixTime::now().as_millis();
            let wait = {
                let mut due = self.due.lock();
                let later = due.split_off(&(now + 1, PeerId(0)));
                let expired = std::mem::replace(&mut *due, later);
                if !expired.is_empty() {
                    return expired.into_iter().map(|(_, peer)| peer).collect();
                }
                due.first().map_or(MAX_SLEEP, |(at, _)| Duration::from_millis(at - now))
            };
            tokio::select! {
                () = tokio::time::sleep(wait.min(MAX_SLEEP)) => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}
