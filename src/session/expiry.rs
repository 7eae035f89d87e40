//! Finds the sessions whose tokens expire, with one timer for all of them.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Clock;
use crate::{auth::UnixTime, fanout::PeerId};

#[derive(Debug, Default)]
pub struct Expiries {
    /// Expiry times in milliseconds since 1970.
    due: Mutex<BTreeSet<(u64, PeerId)>>,
    earlier_added: Notify,
}

impl Expiries {
    pub fn add(&self, at: UnixTime, peer: PeerId) {
        let entry = (at.as_millis(), peer);
        let mut due = self.due.lock();
        due.insert(entry);
        if due.first() == Some(&entry) {
            self.earlier_added.notify_one();
        }
    }

    pub fn remove(&self, at: UnixTime, peer: PeerId) {
        self.due.lock().remove(&(at.as_millis(), peer));
    }

    /// Waits for the next peers whose tokens have expired.
    pub async fn next(&self, clock: &dyn Clock) -> Vec<PeerId> {
        loop {
            let now = clock.now().as_millis();
            let next = {
                let mut due = self.due.lock();
                let later = due.split_off(&(now.saturating_add(1), PeerId(0)));
                let expired = std::mem::replace(&mut *due, later);
                if !expired.is_empty() {
                    return expired.into_iter().map(|(_, peer)| peer).collect();
                }
                due.first().map_or(UnixTime::MAX, |(at, _)| UnixTime::from_millis(*at))
            };
            tokio::select! {
                () = clock.sleep_until(next) => {}
                () = self.earlier_added.notified() => {}
            }
        }
    }
}
