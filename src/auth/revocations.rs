//! Remembers the users that an administrator has disconnected, so that their earlier tokens are refused.

use std::time::Duration;

use parking_lot::Mutex;

use crate::{shrinking_map::ShrinkingMap, task::UserId};

use super::UnixTime;

/// How long a disconnect is remembered. A token with a longer lifetime is accepted again afterwards.
pub const REVOCATION_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Administrators disconnect users by hand. This limit bounds the memory that a runaway script can use.
const MAX_USERS: usize = 100_000;

/// The time of the last disconnect of each user.
#[derive(Debug, Default)]
pub struct Revocations(Mutex<ShrinkingMap<UserId, UnixTime>>);

impl Revocations {
    /// Returns false if this disconnect, or a later one of the same user, is already known.
    pub fn add(&self, user: UserId, at: UnixTime) -> bool {
        let mut users = self.0.lock();
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

    /// Returns true if a token of this user that was issued then is refused. `iat` has whole seconds, so a token from
    /// the same second may be older than the disconnect. A token without `iat` may be of any age.
    pub fn is_revoked(&self, user: &UserId, issued_at: Option<UnixTime>) -> bool {
        let Some(at) = self.0.lock().get(user).copied() else { return false };
        issued_at.is_none_or(|issued_at| issued_at.as_secs() <= at.as_secs())
    }

    pub fn all(&self) -> Vec<(UserId, UnixTime)> {
        self.0.lock().iter().map(|(user, at)| (user.clone(), *at)).collect()
    }

    pub fn forget_old(&self, now: UnixTime) {
        self.0.lock().retain(|_, at| now.since(*at) < REVOCATION_TTL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_tokens_of_a_disconnected_user_are_accepted() {
        let revocations = Revocations::default();
        let (ann, bob) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
        let at = |secs| Some(UnixTime::from_secs(secs));
        assert!(!revocations.is_revoked(&ann, None));
        let moment = UnixTime::from_secs(100).plus(Duration::from_millis(400));
        assert!(revocations.add(ann.clone(), moment) && !revocations.add(ann.clone(), moment));
        assert!(revocations.is_revoked(&ann, None) && revocations.is_revoked(&ann, at(100)));
        assert!(!revocations.is_revoked(&ann, at(101)) && !revocations.is_revoked(&bob, at(1)));
        assert!(!revocations.add(ann.clone(), UnixTime::from_secs(99)), "an earlier one changes nothing");
        assert!(revocations.is_revoked(&ann, at(100)));
        revocations.forget_old(UnixTime::from_secs(101).plus(REVOCATION_TTL));
        assert!(!revocations.is_revoked(&ann, at(1)) && revocations.all().is_empty());
    }

    #[test]
    fn the_number_of_revocations_is_limited() {
        let revocations = Revocations::default();
        for n in 0..=MAX_USERS as u64 {
            revocations.add(UserId::parse(&n.to_string()).unwrap(), UnixTime::from_secs(n));
        }
        assert_eq!(revocations.all().len(), MAX_USERS);
        assert!(!revocations.is_revoked(&UserId::parse("0").unwrap(), None), "the oldest was removed");
    }
}
