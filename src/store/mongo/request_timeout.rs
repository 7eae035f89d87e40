//! Decides how long the change stream waits for an answer of MongoDB.
//!
//! A server that works for a long time is not dead, and a second request would only start the same work again. The driver detects a dead
//! server or network: it sends a heartbeat to every server once a second. If no heartbeat is answered within the connect timeout, the
//! driver ends all requests to that server. One case remains: a single answer is lost, for example because a firewall dropped that
//! connection. After some silence, this node therefore asks the server over another connection whether it still works on the request.

use std::time::Duration;

/// An answer may take this long before this node asks about the state of the request.
const QUERY_DELAY: Duration = Duration::from_secs(5);
const MAX_QUERY_DELAY: Duration = Duration::from_secs(80);

/// The measured speed of the server. The follower keeps this value when it reopens the stream.
#[derive(Debug, Default)]
pub(super) struct RequestTimeout {
    /// The longest time after which an answer came.
    longest_answer: Duration,
    /// The number of requests that were given up in a row, without any progress between them.
    given_up: u32,
}

/// The state of an unanswered request, as the server reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestState {
    Running,
    /// The server does not work on such a request. The answer is on its way, or it is lost.
    Finished,
    /// The server did not report the state, or it refused to.
    Unknown,
}

/// One request that has not been answered yet. All times are measured from the start of the request.
#[derive(Debug)]
pub(super) struct PendingRequest {
    query_delay: Duration,
    /// The last state that the server reported, when the report came, and how long it took.
    report: Option<(RequestState, Duration, Duration)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitStep {
    WaitUntil(Duration),
    QueryState,
    GiveUp(&'static str),
}

impl RequestTimeout {
    /// An answer came after `took`.
    pub(super) fn answered(&mut self, took: Duration) {
        self.longest_answer = self.longest_answer.max(took);
    }

    /// The stream has made progress, so giving up the request has helped.
    pub(super) fn record_progress(&mut self) {
        self.given_up = 0;
    }

    pub(super) fn gave_up(&mut self) {
        self.given_up = self.given_up.saturating_add(1);
    }

    pub(super) fn pending_request(&self) -> PendingRequest {
        let query_delay =
            QUERY_DELAY.max(self.longest_answer.saturating_mul(2)).saturating_mul(1 << self.given_up.min(10));
        PendingRequest { query_delay: query_delay.min(MAX_QUERY_DELAY), report: None }
    }
}

impl PendingRequest {
    /// Returns the next step when no answer has come for `waited`.
    pub(super) fn next(&self, waited: Duration) -> WaitStep {
        let until =
            |time: Duration, then: WaitStep| if waited < time { WaitStep::WaitUntil(time) } else { then };
        match self.report {
            None => until(self.query_delay, WaitStep::QueryState),
            Some((RequestState::Running, at, took)) => {
                until(at + self.query_delay.max(took), WaitStep::QueryState)
            }
            // An answer that is on its way takes as long as the report took, or longer if it is large.
            Some((RequestState::Finished, at, took)) => {
                until(at + self.query_delay.max(took), WaitStep::GiveUp("the server's answer did not arrive"))
            }
            Some((RequestState::Unknown, at, _)) if at < MAX_QUERY_DELAY => {
                until(at + self.query_delay, WaitStep::QueryState)
            }
            Some((RequestState::Unknown, ..)) => WaitStep::GiveUp("no answer in time"),
        }
    }

    /// Stores a report of the server. The report came after `waited` and took `took`.
    pub(super) fn reported(&mut self, state: RequestState, waited: Duration, took: Duration) {
        self.report = Some((state, waited, took));
    }

    /// How long the server may take to report the state of the request.
    pub(super) fn query_timeout(&self) -> Duration {
        MAX_QUERY_DELAY
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server that answers the request after `answer`. It reports the true state of the request, `delay` late.
    struct Server {
        answer: Option<Duration>,
        works: Duration,
        delay: Duration,
    }

    /// Returns when the request was given up. `None` means that it was answered.
    fn given_up(timeout: &mut RequestTimeout, server: &Server) -> Option<Duration> {
        let mut wait = timeout.pending_request();
        let mut now = Duration::ZERO;
        let answered = |now: Duration| server.answer.is_some_and(|at| at <= now);
        loop {
            match wait.next(now) {
                WaitStep::WaitUntil(time) => {
                    assert!(time > now, "the time advances");
                    now = time;
                }
                WaitStep::QueryState => {
                    let asked = now;
                    now += server.delay;
                    let state = if asked + server.delay / 2 < server.works {
                        RequestState::Running
                    } else {
                        RequestState::Finished
                    };
                    if !answered(now) {
                        wait.reported(state, now, server.delay);
                    }
                }
                WaitStep::GiveUp(_) => {
                    timeout.gave_up();
                    return Some(now);
                }
            }
            if answered(now) {
                timeout.answered(server.answer.unwrap_or_default());
                timeout.record_progress();
                return None;
            }
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lost_answer_is_given_up_soon() {
        let lost = Server { answer: None, works: seconds(0), delay: Duration::from_millis(1) };
        let mut timeout = RequestTimeout::default();
        let first = given_up(&mut timeout, &lost).expect("given up");
        assert!(first <= seconds(11), "{first:?}");
        let second = given_up(&mut timeout, &lost).expect("given up");
        assert!(second > first, "the next request gets more time");
        for _ in 0..20 {
            assert!(given_up(&mut timeout, &lost).expect("given up") <= seconds(165));
        }
        timeout.record_progress();
        assert_eq!(given_up(&mut timeout, &lost), Some(first));
    }

    #[test]
    fn the_longest_answer_time_is_remembered() {
        let mut timeout = RequestTimeout::default();
        timeout.answered(seconds(12));
        timeout.record_progress();
        timeout.answered(Duration::from_millis(1));
        assert_eq!(timeout.pending_request().next(seconds(23)), WaitStep::WaitUntil(seconds(24)));
        assert_eq!(timeout.pending_request().next(seconds(24)), WaitStep::QueryState);
    }

    #[test]
    fn a_request_is_given_up_if_the_server_never_reports_its_state() {
        let mut wait = RequestTimeout::default().pending_request();
        let mut now = Duration::ZERO;
        let mut asked = 0;
        loop {
            match wait.next(now) {
                WaitStep::WaitUntil(time) => now = time,
                WaitStep::QueryState => {
                    asked += 1;
                    wait.reported(RequestState::Unknown, now, Duration::ZERO);
                }
                WaitStep::GiveUp(_) => break,
            }
            assert!(asked < 100);
        }
        assert_eq!(now, MAX_QUERY_DELAY);
        // A single report that took the whole time.
        let mut wait = RequestTimeout::default().pending_request();
        wait.reported(RequestState::Unknown, seconds(5) + wait.query_timeout(), wait.query_timeout());
        assert!(matches!(wait.next(seconds(85)), WaitStep::GiveUp(_)));
    }

    proptest! {
        /// The stream waits for the answer, however long the server works and however late its messages arrive.
        #[test]
        fn a_slow_server_is_never_given_up(works in 0..10_000_000u64, delay in 0..60_000u64, again in 1..5usize) {
            let (works, delay) = (Duration::from_millis(works), Duration::from_millis(delay));
            let server = Server { answer: Some(works + delay), works, delay };
            let mut timeout = RequestTimeout::default();
            for _ in 0..again {
                prop_assert_eq!(given_up(&mut timeout, &server), None);
            }
        }
    }
}
