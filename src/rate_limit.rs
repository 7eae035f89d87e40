//! Rate limits. Joins, resyncs and token refreshes wait for their turn, and are refused only if the wait is too long. Messages as
//! such, and handshakes, are refused at once.

use std::{
    hash::Hash,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use governor::{
    DefaultKeyedRateLimiter, InsufficientCapacity, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use crate::task::UserId;

/// A request waits at most this long for its turn.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// A rate limit per key. The default key is the user.
#[derive(Debug)]
pub struct RateLimit<K: Clone + Eq + Hash = UserId> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
}

/// The rate limit is exceeded. The next try can succeed after `retry_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    pub retry_after: Duration,
}

impl<K: Clone + Eq + Hash> RateLimit<K> {
    pub fn per_second(times: u32) -> Self {
        Self::with_burst(times, times)
    }

    /// After a pause, `burst` calls may come at once.
    pub fn with_burst(times: u32, burst: u32) -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(number(times)).allow_burst(number(burst));
        Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Counts a call if the limit allows it now. This function does not wait.
    pub fn check(&self, who: &K) -> Result<(), RateLimited> {
        self.limiter
            .check_key(who)
            .map_err(|early| RateLimited { retry_after: early.wait_time_from(self.clock.now()) })
    }

    /// Counts `n` calls if the limit allows all of them now. If there are more than the burst, the limit would never allow them, and this
    /// returns the burst as an error.
    pub fn check_many(&self, who: &K, n: usize) -> Result<Result<(), RateLimited>, u32> {
        let Some(n) = NonZeroU32::new(u32::try_from(n).unwrap_or(u32::MAX)) else { return Ok(Ok(())) };
        let checked = self.limiter.check_key_n(who, n).map_err(|InsufficientCapacity(burst)| burst)?;
        Ok(checked.map_err(|early| RateLimited { retry_after: early.wait_time_from(self.clock.now()) }))
    }

    /// Waits for the request's turn, until [`MAX_WAIT`] after the request has arrived.
    pub async fn wait_for_turn(&self, who: &K, arrived: Instant) -> Result<(), RateLimited> {
        loop {
            let Err(early) = self.check(who) else { return Ok(()) };
            if arrived.elapsed() + early.retry_after > MAX_WAIT {
                return Err(early);
            }
            tokio::time::sleep(early.retry_after).await;
        }
    }

    /// How many keys are stored.
    pub fn known(&self) -> usize {
        self.limiter.len()
    }

    /// Removes keys that have been idle so long that they have their full burst again.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}
