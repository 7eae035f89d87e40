//! Holds the keys that were fetched from a key server, and refreshes them.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until, timeout_at},
};

use super::super::{AuthError, jws::Jws};
use super::{FetchError, Fetched, KeyServer, KeySet};
use crate::{backoff::Backoff, metrics::KeyMetrics};

/// How many callers may wait for a fetch. Each of them holds a connection that is not authenticated yet.
const MAX_WAITING: usize = 1024;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct FetchTimes {
    /// The time until the next regular fetch: the server's `max-age`, limited to `least..=most`, or `usual` without
    /// one.
    pub least: Duration,
    pub usual: Duration,
    pub most: Duration,
    /// The least time between two fetches that tokens with unknown keys cause, for all such tokens together.
    pub on_demand: Duration,
    /// The delay after a failed fetch. Each further failure doubles it, up to `slowest_retry`.
    pub retry: Duration,
    pub slowest_retry: Duration,
}

impl Default for FetchTimes {
    fn default() -> Self {
        Self {
            least: Duration::from_secs(60),
            usual: Duration::from_secs(5 * 60),
            most: Duration::from_secs(60 * 60),
            on_demand: Duration::from_secs(60),
            retry: Duration::from_secs(1),
            slowest_retry: Duration::from_secs(15),
        }
    }
}

/// The keys of a key server. Only a usable key set replaces them: while the server is unreachable or its answers are
/// unusable, the known keys stay valid.
#[derive(Debug)]
pub struct FetchedKeys {
    server: KeyServer,
    times: FetchTimes,
    known: watch::Sender<Known>,
    /// Notified when a token comes whose key is not known.
    wanted: Notify,
    places: Semaphore,
}

#[derive(Clone, Debug)]
struct Known {
    keys: Arc<KeySet>,
    /// When the fetch that returned these keys began.
    as_of: Option<Instant>,
    last: Option<Attempt>,
    /// No fetch begins before this time.
    next: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Instant,
    worked: bool,
}

impl FetchedKeys {
    /// Has no keys until [`keep_fresh`](Self::keep_fresh) runs.
    pub fn new(server: KeyServer, times: FetchTimes) -> Self {
        let known = Known { keys: Arc::default(), as_of: None, last: None, next: Instant::now() };
        Self {
            server,
            times,
            known: watch::Sender::new(known),
            wanted: Notify::new(),
            places: Semaphore::new(MAX_WAITING),
        }
    }

    #[cfg(test)]
    pub(super) fn knowing(keys: KeySet) -> Self {
        let url = "http://localhost/".parse().expect("a URL");
        let fetched = Self::new(KeyServer::new(url), FetchTimes::default());
        fetched.known.send_modify(|known| known.keys = Arc::new(keys));
        fetched
    }

    pub(in crate::auth) fn known(&self) -> Arc<KeySet> {
        self.known.borrow().keys.clone()
    }

    /// How long ago the keys were fetched. `None` means that there are no keys.
    pub fn age(&self) -> Option<Duration> {
        self.known.borrow().as_of.map(|as_of| as_of.elapsed())
    }

    /// How many tokens wait for a fetch.
    pub fn waiting(&self) -> usize {
        MAX_WAITING - self.places.available_permits()
    }

    pub(in crate::auth) fn accept(&self, jws: &Jws<'_>) -> Result<(), AuthError> {
        self.known().accept(jws).map_err(|error| match error {
            AuthError::NoKey { .. } => no_key_before(self.known.borrow().next),
            other => other,
        })
    }

    /// Repeats `attempt` until its result is no longer that a key is missing. If the key is missing from a set whose
    /// fetch began after this call, the token is refused for good. If that fetch fails, the result is
    /// [`AuthError::NoKey`], because the key may exist.
    pub(in crate::auth) async fn wait_for<T>(
        &self,
        patience: Duration,
        attempt: impl Fn() -> Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        let arrived = Instant::now();
        let deadline = arrived + patience;
        let mut changes = self.known.subscribe();
        let mut place = None;
        loop {
            let Known { last, next, .. } = changes.borrow_and_update().clone();
            match attempt() {
                Err(AuthError::NoKey { .. }) => {}
                decided => return decided,
            }
            match last.filter(|last| last.began >= arrived) {
                Some(Attempt { worked: true, .. }) => {
                    return Err(AuthError::Unauthorized("the key server has no key that fits the token"));
                }
                Some(_) => return Err(no_key_before(next)),
                None if next > deadline => return Err(no_key_before(next)),
                None => {}
            }
            if place.is_none() {
                place = Some(self.places.try_acquire().map_err(|_| no_key_before(next))?);
            }
            self.wanted.notify_one();
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return Err(no_key_before(next));
            }
        }
    }

    /// Fetches keys again and again. This function never returns.
    pub async fn keep_fresh(&self, metrics: &KeyMetrics) {
        let mut said = None;
        let mut failures = 0;
        let mut on_demand = Instant::now();
        loop {
            let began = Instant::now();
            let fetched = self.server.fetch().await;
            metrics.fetched(fetched.as_ref().err().map_or("fetched", FetchError::outcome));
            tell(&fetched, &mut said);
            let now = Instant::now();
            let pause = match &fetched {
                Ok(fetched) => {
                    failures = 0;
                    fetched.max_age.unwrap_or(self.times.usual).clamp(self.times.least, self.times.most)
                }
                Err(_) => {
                    failures += 1;
                    self.pause_after(failures)
                }
            };
            let (fresh_until, worked) = (now + pause, fetched.is_ok());
            // This fetch answers every caller that waited for it, so their notification is cleared.
            let _ = self.wanted.notified().now_or_never();
            self.known.send_modify(|known| {
                if let Ok(Fetched { keys, .. }) = fetched {
                    (known.keys, known.as_of) = (Arc::new(keys), Some(began));
                }
                known.last = Some(Attempt { began, worked });
                // After a failure the regular retry comes soon, so tokens do not cause an earlier fetch.
                known.next = if worked { on_demand.clamp(now, fresh_until) } else { fresh_until };
            });
            let wanted = async {
                if !worked {
                    std::future::pending::<()>().await;
                }
                self.wanted.notified().await;
                sleep_until(on_demand).await;
            };
            if first(wanted, sleep_until(fresh_until)).await {
                on_demand = Instant::now() + self.times.on_demand;
            }
        }
    }

    fn pause_after(&self, failures: u32) -> Duration {
        Backoff::new(self.times.retry, self.times.slowest_retry).pause(failures.saturating_sub(1))
    }
}

/// Returns true if `one` finished first.
async fn first(one: impl Future<Output = ()>, other: impl Future<Output = ()>) -> bool {
    tokio::select! {
        () = one => true,
        () = other => false,
    }
}

fn no_key_before(moment: Instant) -> AuthError {
    AuthError::NoKey { retry_after: moment.saturating_duration_since(Instant::now()) }
}

/// Logs a line only if the result differs from the one that was logged last.
fn tell(fetched: &Result<Fetched, FetchError>, said: &mut Option<String>) {
    let news = match fetched {
        Ok(Fetched { keys, left_out, .. }) => {
            format!("{} keys for {}; left out: {left_out:?}", keys.len(), keys.algorithms().join(", "))
        }
        Err(error) => error.outcome().to_owned(),
    };
    if said.as_ref() == Some(&news) {
        return;
    }
    match fetched {
        Ok(Fetched { keys, left_out, .. }) => {
            tracing::info!(
                keys = keys.len(),
                algorithms = keys.algorithms().join(", "),
                "fetched the keys that tokens are checked with"
            );
            for (place, reason) in left_out {
                tracing::warn!(place, %reason, "a key of the key server can't be used and is left out");
            }
        }
        Err(error) => {
            tracing::warn!(%error, "the keys of tokens can't be fetched; the known keys stay valid")
        }
    }
    *said = Some(news);
}
