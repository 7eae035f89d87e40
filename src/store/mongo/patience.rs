//! Decides how long the change stream waits for an answer of MongoDB.
//!
//! A server that works for a long time is not dead, and a second request would only start the same work again. The driver detects a dead
//! server or network: it sends a heartbeat to every server once a second. If no heartbeat is answered within the connect timeout, the
//! driver ends all requests to that server. One case remains: a single answer is lost, for example because a firewall dropped that
//! connection. After some silence, this node therefore asks the server over another connection whether it still works on the request.

use std::time::Duration;

/// An answer may take this long before this node asks about the state of the request.
const SILENCE: Duration = Duration::from_secs(5);
const LONGEST_SILENCE: Duration = Duration::from_secs(80);

/// The measured speed of the server. The follower keeps this value when it reopens the stream.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The longest time after which an answer came.
    needed: Duration,
    /// The number of requests that were given up in a row, without any progress between them.
    given_up: u32,
}

/// The state of an unanswered request, as the server reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    UnderWay,
    /// The server does not work on such a request. The answer is on its way, or it is lost.
    Finished,
    /// The server did not report the state, or it refused to.
    Nothing,
}

/// One request that has not been answered yet. All times are measured from the start of the request.
#[derive(Debug)]
pub(super) struct Wait {
    silence: Duration,
    /// The last state that the server reported, when the report came, and how long it took.
    said: Option<(Said, Duration, Duration)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    WaitUntil(Duration),
    Ask,
    GiveUp(&'static str),
}

impl Patience {
    /// An answer came after `took`.
    pub(super) fn answered(&mut self, took: Duration) {
        self.needed = self.needed.max(took);
    }

    /// The stream has made progress, so giving up the request has helped.
    pub(super) fn progressed(&mut self) {
        self.given_up = 0;
    }

    pub(super) fn gave_up(&mut self) {
        self.given_up = self.given_up.saturating_add(1);
    }

    pub(super) fn wait(&self) -> Wait {
        let silence = SILENCE.max(self.needed.saturating_mul(2)).saturating_mul(1 << self.given_up.min(10));
        Wait { silence: silence.min(LONGEST_SILENCE), said: None }
    }
}

impl Wait {
    /// Returns the next step when no answer has come for `waited`.
    pub(super) fn next(&self, waited: Duration) -> Next {
        let until = |time: Duration, then: Next| if waited < time { Next::WaitUntil(time) } else { then };
        match self.said {
            None => until(self.silence, Next::Ask),
            Some((Said::UnderWay, at, took)) => until(at + self.silence.max(took), Next::Ask),
            // An answer that is on its way takes as long as the report took, or longer if it is large.
            Some((Said::Finished, at, took)) => {
                until(at + self.silence.max(took), Next::GiveUp("the server's answer did not arrive"))
            }
            Some((Said::Nothing, at, _)) if at < LONGEST_SILENCE => until(at + self.silence, Next::Ask),
            Some((Said::Nothing, ..)) => Next::GiveUp("no answer in time"),
        }
    }

    /// Stores a report of the server. The report came after `waited` and took `took`.
    pub(super) fn said(&mut self, said: Said, waited: Duration, took: Duration) {
        self.said = Some((said, waited, took));
    }

    /// How long the server may take to report the state of the request.
    pub(super) fn longest(&self) -> Duration {
        LONGEST_SILENCE
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
    fn given_up(patience: &mut Patience, server: &Server) -> Option<Duration> {
        let mut wait = patience.wait();
        let mut now = Duration::ZERO;
        let answered = |now: Duration| server.answer.is_some_and(|at| at <= now);
        loop {
            match wait.next(now) {
                Next::WaitUntil(time) => {
                    assert!(time > now, "the time advances");
                    now = time;
                }
                Next::Ask => {
                    let asked = now;
                    now += server.delay;
                    let said =
                        if asked + server.delay / 2 < server.works { Said::UnderWay } else { Said::Finished };
                    if !answered(now) {
                        wait.said(said, now, server.delay);
                    }
                }
                Next::GiveUp(_) => {
                    patience.gave_up();
                    return Some(now);
                }
            }
            if answered(now) {
                patience.answered(server.answer.unwrap_or_default());
                patience.progressed();
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
        let mut patience = Patience::default();
        let first = given_up(&mut patience, &lost).expect("given up");
        assert!(first <= seconds(11), "{first:?}");
        let second = given_up(&mut patience, &lost).expect("given up");
        assert!(second > first, "the next request gets more time");
        for _ in 0..20 {
            assert!(given_up(&mut patience, &lost).expect("given up") <= seconds(165));
        }
        patience.progressed();
        assert_eq!(given_up(&mut patience, &lost), Some(first));
    }

    #[test]
    fn the_longest_answer_time_is_remembered() {
        let mut patience = Patience::default();
        patience.answered(seconds(12));
        patience.progressed();
        patience.answered(Duration::from_millis(1));
        assert_eq!(patience.wait().next(seconds(23)), Next::WaitUntil(seconds(24)));
        assert_eq!(patience.wait().next(seconds(24)), Next::Ask);
    }

    #[test]
    fn a_request_is_given_up_if_the_server_never_reports_its_state() {
        let mut wait = Patience::default().wait();
        let mut now = Duration::ZERO;
        let mut asked = 0;
        loop {
            match wait.next(now) {
                Next::WaitUntil(time) => now = time,
                Next::Ask => {
                    asked += 1;
                    wait.said(Said::Nothing, now, Duration::ZERO);
                }
                Next::GiveUp(_) => break,
            }
            assert!(asked < 100);
        }
        assert_eq!(now, LONGEST_SILENCE);
        // A single report that took the whole time.
        let mut wait = Patience::default().wait();
        wait.said(Said::Nothing, seconds(5) + wait.longest(), wait.longest());
        assert!(matches!(wait.next(seconds(85)), Next::GiveUp(_)));
    }

    proptest! {
        /// The stream waits for the answer, however long the server works and however late its messages arrive.
        #[test]
        fn a_slow_server_is_never_given_up(works in 0..10_000_000u64, delay in 0..60_000u64, again in 1..5usize) {
            let (works, delay) = (Duration::from_millis(works), Duration::from_millis(delay));
            let server = Server { answer: Some(works + delay), works, delay };
            let mut patience = Patience::default();
            for _ in 0..again {
                prop_assert_eq!(given_up(&mut patience, &server), None);
            }
        }
    }
}
