//! Holds the keys that were fetched from a key server, and refreshes them.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until, timeout_at},
};

use super::super::{AuthError, jws::Jws};
use super::{FetchError, Fetched, KeyServer, KeySet};
use crate::{
    backoff::Backoff,
    metrics::{KeyFetch, KeyMetrics},
};

/// How many callers may wait for a fetch. Most of them hold a connection that is not authenticated yet.
const MAX_WAITING: usize = 1024;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct FetchTimes {
    /// The time until the next regular fetch: the server's `max-age`, limited to `min_interval..=max_interval`, or `default_interval` without
    /// one.
    pub min_interval: Duration,
    pub default_interval: Duration,
    pub max_interval: Duration,
    /// The least time between two fetches that tokens with unknown keys cause, for all such tokens together.
    pub min_on_demand_interval: Duration,
    /// The delay after a failed fetch. Each further failure doubles it, up to `max_retry`.
    pub min_retry: Duration,
    pub max_retry: Duration,
}

impl Default for FetchTimes {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(60),
            default_interval: Duration::from_secs(5 * 60),
            max_interval: Duration::from_secs(60 * 60),
            min_on_demand_interval: Duration::from_secs(60),
            min_retry: Duration::from_secs(1),
            max_retry: Duration::from_secs(15),
        }
    }
}

/// The keys of a key server. Only a usable key set replaces them: while the server is unreachable or its answers are
/// unusable, the known keys stay valid.
#[derive(Debug)]
pub struct FetchedKeys {
    server: KeyServer,
    times: FetchTimes,
    cached: watch::Sender<CachedKeys>,
    /// Notified when a token comes whose key is not known.
    fetch_requested: Notify,
    wait_slots: Semaphore,
}

#[derive(Clone, Debug)]
struct CachedKeys {
    keys: Arc<KeySet>,
    /// When the fetch that returned these keys began.
    as_of: Option<Instant>,
    last_attempt: Option<Attempt>,
    /// No fetch begins before this time.
    next_fetch: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Instant,
    succeeded: bool,
}

impl FetchedKeys {
    /// Has no keys until [`keep_fresh`](Self::keep_fresh) runs.
    pub fn new(server: KeyServer, times: FetchTimes) -> Self {
        let cached =
            CachedKeys { keys: Arc::default(), as_of: None, last_attempt: None, next_fetch: Instant::now() };
        Self {
            server,
            times,
            cached: watch::Sender::new(cached),
            fetch_requested: Notify::new(),
            wait_slots: Semaphore::new(MAX_WAITING),
        }
    }

    #[cfg(test)]
    pub(super) fn with_keys(keys: KeySet) -> Self {
        let url = "http://localhost/".parse().expect("a URL");
        let fetched = Self::new(KeyServer::new(url), FetchTimes::default());
        fetched.cached.send_modify(|cached| cached.keys = Arc::new(keys));
        fetched
    }

    pub(in crate::auth) fn keys(&self) -> Arc<KeySet> {
        self.cached.borrow().keys.clone()
    }

    /// How long ago the keys were fetched. `None` means that there are no keys.
    pub fn age(&self) -> Option<Duration> {
        self.cached.borrow().as_of.map(|as_of| as_of.elapsed())
    }

    /// How many tokens wait for a fetch.
    pub fn waiting(&self) -> usize {
        MAX_WAITING - self.wait_slots.available_permits()
    }

    pub(in crate::auth) fn accept(&self, jws: &Jws<'_>) -> Result<(), AuthError> {
        self.keys().accept(jws).map_err(|error| match error {
            AuthError::NoKey { .. } => no_key_before(self.cached.borrow().next_fetch),
            other => other,
        })
    }

    /// Repeats `attempt` until its result is no longer that a key is missing. If the key is missing from a set whose
    /// fetch began after this call, the token is refused permanently. If that fetch fails, the result is
    /// [`AuthError::NoKey`], because the key may exist.
    pub(in crate::auth) async fn wait_for<T>(
        &self,
        max_wait: Duration,
        attempt: impl Fn() -> Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        let arrived = Instant::now();
        let deadline = arrived + max_wait;
        let mut changes = self.cached.subscribe();
        let mut slot = None;
        loop {
            let CachedKeys { last_attempt, next_fetch, .. } = changes.borrow_and_update().clone();
            match attempt() {
                Err(AuthError::NoKey { .. }) => {}
                result => return result,
            }
            match last_attempt.filter(|attempt| attempt.began >= arrived) {
                Some(Attempt { succeeded: true, .. }) => {
                    return Err(AuthError::Unauthorized("the key server has no key that fits the token"));
                }
                Some(_) => return Err(no_key_before(next_fetch)),
                None if next_fetch > deadline => return Err(no_key_before(next_fetch)),
                None => {}
            }
            if slot.is_none() {
                slot = Some(self.wait_slots.try_acquire().map_err(|_| no_key_before(next_fetch))?);
            }
            self.fetch_requested.notify_one();
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return Err(no_key_before(next_fetch));
            }
        }
    }

    /// Fetches keys again and again. This function never returns.
    pub async fn keep_fresh(&self, metrics: &KeyMetrics) {
        let mut last_logged = None;
        let mut failures = 0;
        let mut next_on_demand = Instant::now();
        loop {
            let began = Instant::now();
            let fetched = self.server.fetch().await;
            metrics.fetches.inc(fetched.as_ref().err().map_or(KeyFetch::Fetched, FetchError::outcome));
            log_outcome(&fetched, &mut last_logged);
            let now = Instant::now();
            let pause = match &fetched {
                Ok(fetched) => {
                    failures = 0;
                    fetched
                        .max_age
                        .unwrap_or(self.times.default_interval)
                        .clamp(self.times.min_interval, self.times.max_interval)
                }
                Err(_) => {
                    failures += 1;
                    self.pause_after(failures)
                }
            };
            let (fresh_until, succeeded) = (now + pause, fetched.is_ok());
            // Every waiting caller wakes at the change below, and notifies again if it still needs a fetch. Earlier notifications are cleared.
            let _ = self.fetch_requested.notified().now_or_never();
            self.cached.send_modify(|cached| {
                if let Ok(Fetched { keys, .. }) = fetched {
                    (cached.keys, cached.as_of) = (Arc::new(keys), Some(began));
                }
                cached.last_attempt = Some(Attempt { began, succeeded });
                // After a failure the regular retry comes soon, so tokens do not cause an earlier fetch.
                cached.next_fetch =
                    if succeeded { next_on_demand.clamp(now, fresh_until) } else { fresh_until };
            });
            let fetch_requested = async {
                if !succeeded {
                    std::future::pending::<()>().await;
                }
                self.fetch_requested.notified().await;
                sleep_until(next_on_demand).await;
            };
            if finishes_first(fetch_requested, sleep_until(fresh_until)).await {
                next_on_demand = Instant::now() + self.times.min_on_demand_interval;
            }
        }
    }

    fn pause_after(&self, failures: u32) -> Duration {
        Backoff::new(self.times.min_retry, self.times.max_retry).pause(failures.saturating_sub(1))
    }
}

/// Returns true if `one` finished first.
async fn finishes_first(one: impl Future<Output = ()>, other: impl Future<Output = ()>) -> bool {
    tokio::select! {
        () = one => true,
        () = other => false,
    }
}

fn no_key_before(moment: Instant) -> AuthError {
    AuthError::NoKey { retry_after: moment.saturating_duration_since(Instant::now()) }
}

/// Logs a line only if the result differs from the one that was logged last.
fn log_outcome(fetched: &Result<Fetched, FetchError>, last_logged: &mut Option<String>) {
    let summary = match fetched {
        Ok(Fetched { keys, left_out, .. }) => {
            format!("{} keys for {}; left out: {left_out:?}", keys.len(), keys.algorithms().join(", "))
        }
        Err(error) => <&str>::from(error.outcome()).to_owned(),
    };
    if last_logged.as_ref() == Some(&summary) {
        return;
    }
    match fetched {
        Ok(Fetched { keys, left_out, .. }) => {
            tracing::info!(
                keys = keys.len(),
                algorithms = keys.algorithms().join(", "),
                "fetched the keys that tokens are checked with"
            );
            for (index, reason) in left_out {
                tracing::warn!(index, %reason, "a key of the key server can't be used and is left out");
            }
        }
        Err(error) => {
            tracing::warn!(%error, "the keys of tokens can't be fetched; the known keys stay valid")
        }
    }
    *last_logged = Some(summary);
}
