//! The clock of the sessions. Tests move their own.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use crate::auth::UnixTime;

/// The wall clock may be set at any time, so it is read again at least this often.
const MAX_SLEEP: Duration = Duration::from_secs(60);

pub trait Clock: fmt::Debug + Send + Sync {
    fn now(&self) -> UnixTime;

    /// Waits until this time, or a shorter time: the caller reads the clock again.
    fn sleep_until(&self, time: UnixTime) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }

    fn sleep_until(&self, time: UnixTime) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let wait = Duration::from_millis(time.as_millis().saturating_sub(self.now().as_millis()));
        Box::pin(tokio::time::sleep(wait.min(MAX_SLEEP)))
    }
}
