//! How often somebody may do something. Joins and resyncs wait for their turn, and only a long queue is refused; messages as
//! such, and handshakes, are refused at once.

use std::{
    hash::Hash,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use crate::task::UserId;

/// So long a request waits for its turn.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// By user, unless it says by whom.
#[derive(Debug)]
pub struct Rate<K: Clone + Eq + Hash = UserId> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
}

/// When the next try has a chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after: Duration,
}

impl<K: Clone + Eq + Hash> Rate<K> {
    pub fn per_second(times: u32) -> Self {
        Self::with_burst(times, times)
    }

    /// So often at once, after a rest.
    pub fn with_burst(times: u32, burst: u32) -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(number(times)).allow_burst(number(burst));
        Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Now, or not.
    pub fn check(&self, who: &K) -> Result<(), TooMany> {
        self.limiter
            .check_key(who)
            .map_err(|early| TooMany { retry_after: early.wait_time_from(self.clock.now()) })
    }

    /// Waits for its turn, until [`MAX_WAIT`] after the request has come.
    pub async fn turn(&self, who: &K, arrived: Instant) -> Result<(), TooMany> {
        loop {
            let Err(early) = self.check(who) else { return Ok(()) };
            if arrived.elapsed() + early.retry_after > MAX_WAIT {
                return Err(early);
            }
            tokio::time::sleep(early.retry_after).await;
        }
    }

    /// How many are kept in mind.
    pub fn known(&self) -> usize {
        self.limiter.len()
    }

    /// Forgets those that have not asked for a while: they are as good as those that never did.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}
