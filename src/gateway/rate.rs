//! Joins and resyncs per user and second: over the limit they wait, and only a long queue is refused.

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
pub struct JoinRate {
    limiter: DefaultKeyedRateLimiter<UserId>,
    clock: DefaultClock,
}

/// When the next try has a chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after: Duration,
}

impl JoinRate {
    pub fn per_second(joins: u32) -> Self {
        let joins = NonZeroU32::new(joins).unwrap_or(NonZeroU32::MIN);
        Self { limiter: RateLimiter::keyed(Quota::per_second(joins)), clock: DefaultClock::default() }
    }

    /// Waits for the user's turn, until [`MAX_WAIT`] after the request has come.
    pub async fn turn(&self, user: &UserId, arrived: Instant) -> Result<(), TooMany> {
        loop {
            let wait = match self.limiter.check_key(user) {
                Ok(()) => return Ok(()),
                Err(early) => early.wait_time_from(self.clock.now()),
            };
            if arrived.elapsed() + wait > MAX_WAIT {
                return Err(TooMany { retry_after: wait });
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Forgets users that have not asked for a while.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}
