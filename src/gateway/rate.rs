//! How often a user may do something. Joins and resyncs wait for their turn, and only a long queue is refused; messages as
//! such are refused at once.

use std::{
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

#[derive(Debug)]
pub struct UserRate {
    limiter: DefaultKeyedRateLimiter<UserId>,
    clock: DefaultClock,
}

/// When the next try has a chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after: Duration,
}

impl UserRate {
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
    pub fn check(&self, user: &UserId) -> Result<(), TooMany> {
        self.limiter
            .check_key(user)
            .map_err(|early| TooMany { retry_after: early.wait_time_from(self.clock.now()) })
    }

    /// Waits for the user's turn, until [`MAX_WAIT`] after the request has come.
    pub async fn turn(&self, user: &UserId, arrived: Instant) -> Result<(), TooMany> {
        loop {
            let Err(early) = self.check(user) else { return Ok(()) };
            if arrived.elapsed() + early.retry_after > MAX_WAIT {
                return Err(early);
            }
            tokio::time::sleep(early.retry_after).await;
        }
    }

    /// Forgets users that have not asked for a while.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}
