//! How long the change stream waits for an answer.
//!
//! A server that works for a long time is not dead, and asking it again would only begin the same work again. A server or a network
//! that is gone is noticed by the driver: it asks every server for a heartbeat once a second, and when that stays away for
//! the connect timeout, it ends all requests that wait for that server. What remains is an answer that was lost alone, for example
//! because a firewall forgot that connection. So, after some silence, another connection asks the server whether it still
//! works on the request.

use std::time::Duration;

/// So long an answer may take before somebody asks what became of it.
const SILENCE: Duration = Duration::from_secs(5);
const LONGEST_SILENCE: Duration = Duration::from_secs(80);

/// What the change stream has learned about the server's speed. It keeps this over a restart of the stream.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The longest time that an answer was worth waiting for.
    needed: Duration,
    /// How many requests in a row were given up, without any progress between them.
    given_up: u32,
}

/// What the server said about a request that it has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    UnderWay,
    /// It knows no such request: the answer is on the way, or lost.
    Finished,
    /// It gave no answer, or it refused one.
    Nothing,
}

/// One request that has not been answered yet. All times are counted from the request on.
#[derive(Debug)]
pub(super) struct Wait {
    silence: Duration,
    /// The last word, when it came, and how long it took to get it.
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

    /// The stream has read on: giving up was of use.
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
    /// What to do when nothing has come for `waited`.
    pub(super) fn next(&self, waited: Duration) -> Next {
        let until = |time: Duration, then: Next| if waited < time { Next::WaitUntil(time) } else { then };
        match self.said {
            None => until(self.silence, Next::Ask),
            Some((Said::UnderWay, at, took)) => until(at + self.silence.max(took), Next::Ask),
            // An answer that is on the way takes as long as the word that it was sent, or is a large one.
            Some((Said::Finished, at, took)) => {
                until(at + self.silence.max(took), Next::GiveUp("the server's answer did not arrive"))
            }
            Some((Said::Nothing, at, _)) if at < LONGEST_SILENCE => until(at + self.silence, Next::Ask),
            Some((Said::Nothing, ..)) => Next::GiveUp("no answer in time"),
        }
    }

    /// The server said so after `waited`, and it took so long to get this word.
    pub(super) fn said(&mut self, said: Said, waited: Duration, took: Duration) {
        self.said = Some((said, waited, took));
    }

    /// For how long the server may be silent about a question of ours.
    pub(super) fn longest(&self) -> Duration {
        LONGEST_SILENCE
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server that answers the request after `answer`, and says about it what is true, `delay` late.
    struct Server {
        answer: Option<Duration>,
        works: Duration,
        delay: Duration,
    }

    /// When the request was given up; None: it was answered.
    fn given_up(patience: &mut Patience, server: &Server) -> Option<Duration> {
        let mut wait = patience.wait();
        let mut now = Duration::ZERO;
        let answered = |now: Duration| server.answer.is_some_and(|at| at <= now);
        loop {
            match wait.next(now) {
                Next::WaitUntil(time) => {
                    assert!(time > now, "it goes on");
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
        assert!(second > first, "the next one gets more time");
        for _ in 0..20 {
            assert!(given_up(&mut patience, &lost).expect("given up") <= seconds(165));
        }
        patience.progressed();
        assert_eq!(given_up(&mut patience, &lost), Some(first));
    }

    #[test]
    fn a_long_answer_is_remembered() {
        let mut patience = Patience::default();
        patience.answered(seconds(12));
        patience.progressed();
        patience.answered(Duration::from_millis(1));
        assert_eq!(patience.wait().next(seconds(23)), Next::WaitUntil(seconds(24)));
        assert_eq!(patience.wait().next(seconds(24)), Next::Ask);
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up_in_the_end() {
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
        // One word that took all the time.
        let mut wait = Patience::default().wait();
        wait.said(Said::Nothing, seconds(5) + wait.longest(), wait.longest());
        assert!(matches!(wait.next(seconds(85)), Next::GiveUp(_)));
    }

    proptest! {
        /// However long the server works, and however late everything arrives that it sends: its answer is waited for.
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
