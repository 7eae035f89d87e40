//! Users that an administrator has disconnected: what they held until then lets them in no more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::task::UserId;

use super::UnixTime;

/// So long a disconnect is remembered. A token that lives longer is accepted again afterwards.
pub const REVOKED_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Administrators make them by hand; this bounds what a runaway script takes.
const MAX_USERS: usize = 100_000;

/// By user, when that was.
#[derive(Debug, Default)]
pub struct Revocations(Mutex<HashMap<UserId, UnixTime>>);

impl Revocations {
    /// Whether that is news.
    pub fn add(&self, user: UserId, at: UnixTime) -> bool {
        let mut users = self.lock();
        if users.get(&user).is_some_and(|known| *known >= at) {
            return false;
        }
        users.insert(user, at);
        if users.len() > MAX_USERS
            && let Some(oldest) = users.iter().min_by_key(|(_, at)| **at).map(|(user, _)| user.clone())
        {
            users.remove(&oldest);
        }
        true
    }

    /// Whether a token of this user that was issued then is refused. `iat` has whole seconds: one of the very second
    /// of the disconnect may be from before it. One without `iat` may be from any time.
    pub fn cover(&self, user: &UserId, issued_at: Option<UnixTime>) -> bool {
        let Some(at) = self.lock().get(user).copied() else { return false };
        issued_at.is_none_or(|issued_at| issued_at.as_secs() <= at.as_secs())
    }

    pub fn all(&self) -> Vec<(UserId, UnixTime)> {
        self.lock().iter().map(|(user, at)| (user.clone(), *at)).collect()
    }

    pub fn forget_old(&self, now: UnixTime) {
        self.lock().retain(|_, at| now.since(*at) < REVOKED_FOR);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, UnixTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_tokens_of_the_same_user_are_accepted() {
        let revocations = Revocations::default();
        let (ann, bob) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
        let at = |secs| Some(UnixTime::from_secs(secs));
        assert!(!revocations.cover(&ann, None));
        let moment = UnixTime::from_secs(100).plus(Duration::from_millis(400));
        assert!(revocations.add(ann.clone(), moment) && !revocations.add(ann.clone(), moment));
        assert!(revocations.cover(&ann, None) && revocations.cover(&ann, at(100)));
        assert!(!revocations.cover(&ann, at(101)) && !revocations.cover(&bob, at(1)));
        assert!(!revocations.add(ann.clone(), UnixTime::from_secs(99)), "an earlier one changes nothing");
        assert!(revocations.cover(&ann, at(100)));
        revocations.forget_old(UnixTime::from_secs(101).plus(REVOKED_FOR));
        assert!(!revocations.cover(&ann, at(1)) && revocations.all().is_empty());
    }

    #[test]
    fn they_are_bounded() {
        let revocations = Revocations::default();
        for n in 0..=MAX_USERS as u64 {
            revocations.add(UserId::parse(&n.to_string()).unwrap(), UnixTime::from_secs(n));
        }
        assert_eq!(revocations.all().len(), MAX_USERS);
        assert!(!revocations.cover(&UserId::parse("0").unwrap(), None), "the oldest went");
    }
}
