//! Remembers which users lost the dashboard without leaving it. The existing client does not join again after a
//! reconnect; it only requests a resync.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{shrinking_map::ShrinkingMap, task::UserId};

/// How long after the loss a resync without a join restores the dashboard.
pub(super) const LOST_DASHBOARD_TTL: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct LostDashboards {
    started: Instant,
    lost: Mutex<ShrinkingMap<UserId, Instant>>,
}

impl LostDashboards {
    pub fn new(started: Instant) -> Self {
        Self { started, lost: Mutex::default() }
    }

    pub fn lost(&self, user: UserId, now: Instant) {
        self.lost.lock().insert(user, now);
    }

    /// Returns true if a connection of this user may have lost the dashboard recently. This is always so soon after the
    /// start, because nothing is known of an earlier process.
    pub fn may_have_lost(&self, user: &UserId, now: Instant) -> bool {
        let recent = |then: &Instant| now.saturating_duration_since(*then) <= LOST_DASHBOARD_TTL;
        recent(&self.started) || self.lost.lock().get(user).is_some_and(recent)
    }

    /// The users who lost the dashboard in the last two minutes, each with the time.
    pub fn recent(&self, now: Instant) -> Vec<(UserId, Instant)> {
        self.forget_old(now);
        self.lost.lock().iter().map(|(user, then)| (user.clone(), *then)).collect()
    }

    pub fn forget_old(&self, now: Instant) {
        self.lost.lock().retain(|_, then| now.saturating_duration_since(*then) <= LOST_DASHBOARD_TTL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_is_remembered_for_two_minutes() {
        let start = Instant::now();
        let lost = LostDashboards::new(start);
        let (ann, bob) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
        let at = |secs| start + Duration::from_secs(secs);
        assert!(lost.may_have_lost(&ann, at(120)), "the process is young");
        lost.lost(ann.clone(), at(200));
        assert!(lost.may_have_lost(&ann, at(320)));
        assert!(!lost.may_have_lost(&ann, at(321)));
        assert!(!lost.may_have_lost(&bob, at(210)));
        lost.forget_old(at(321));
        assert!(lost.lost.lock().is_empty());
    }
}
