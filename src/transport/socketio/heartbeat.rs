//! Decides when a WebSocket is pinged, and when it counts as dead. This module does no I/O and reads no clock.
//!
//! A ping goes ahead of all queued messages, but behind the bytes that the kernels of both sides hold already. The client reads
//! these bytes first, and its answer may wait behind a message that it is sending. Bytes that move are therefore a sign of life:
//!
//! - While the ping has not been given to the kernel, the client is dead if it reads nothing for `SLOW_CLIENT_TIMEOUT`; see
//!   [`crate::transport::Tcp`].
//! - After that, the client has `PING_TIMEOUT`, and the time that a slow client needs for the bytes before the ping.

use std::time::{Duration, Instant};

use crate::config::HeartbeatConfig;

/// A client that reads this many bytes in a second is slow, not dead. A phone with a bad connection reads more.
const SLOWEST_PER_SECOND: u64 = 32 * 1024;
/// At most this many bytes are assumed to be on their way to a client, in the kernels of both sides. The receive buffer of a client
/// that has just read fast is large.
const UNDER_WAY: u64 = 2 * 1024 * 1024;
/// At most this many bytes from the client are assumed to come before its answer.
const BEFORE_ANSWER: u64 = 512 * 1024;

/// How long a slow client needs for this many bytes.
fn time_for(bytes: u64) -> Duration {
    Duration::from_millis(bytes * 1000 / SLOWEST_PER_SECOND)
}

/// How long a slow client needs for bytes that are on their way to it, limited to the time for [`UNDER_WAY`].
pub(super) fn time_to_take(bytes: u64) -> Duration {
    time_for(bytes.min(UNDER_WAY))
}

/// How many bytes a connection has carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// Bytes given to the kernel since the WebSocket began.
    pub given: u64,
    /// More bytes wait for the kernel.
    pub stalled: bool,
    /// Bytes received from the client.
    pub received: u64,
}

/// The next action of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Ping,
    /// There is nothing to do before this time.
    Wait(Instant),
    Dead,
}

#[derive(Debug)]
pub(super) struct Heartbeat {
    /// When the client was last pinged, or when the connection began.
    pinged: Instant,
    waiting: Option<Waiting>,
    /// The client has read everything up to this point of [`Traffic::given`], because it has answered a ping that ended there.
    read: u64,
}

/// The pings that the client has not answered yet.
#[derive(Debug)]
struct Waiting {
    pings: u32,
    /// Where the first of them ends, in [`Traffic::given`].
    first: u64,
    /// Where the last of them ends.
    last: u64,
    /// From this time on the client could have answered.
    since: Instant,
    /// [`Traffic::received`] when the first ping was queued, or when the client answered an earlier one.
    received: u64,
}

impl Heartbeat {
    /// `pinged` is when the client was last pinged on another transport, or when its connection began.
    pub fn new(pinged: Instant) -> Self {
        Self { pinged, waiting: None, read: 0 }
    }

    pub fn next(&mut self, now: Instant, config: &HeartbeatConfig, traffic: Traffic) -> Beat {
        let due = self.pinged + config.interval;
        let Some(waiting) = &mut self.waiting else {
            return if due <= now { Beat::Ping } else { Beat::Wait(due) };
        };
        let before_it = traffic.given < waiting.first;
        let perhaps_before_it = traffic.stalled && traffic.given < waiting.first + UNDER_WAY;
        if before_it || perhaps_before_it {
            waiting.since = now;
        }
        let ahead = time_to_take(waiting.first.saturating_sub(self.read));
        let behind = time_for(traffic.received.saturating_sub(waiting.received).min(BEFORE_ANSWER));
        let end = waiting.since + config.timeout + ahead + behind;
        if end <= now {
            return Beat::Dead;
        }
        // The JavaScript client closes a connection that brings no ping for a while, even if other data arrives. Pings therefore
        // continue, but at most one of them waits in the queue.
        match traffic.given >= waiting.last {
            true if due <= now => Beat::Ping,
            true => Beat::Wait(due.min(end)),
            false => Beat::Wait(end),
        }
    }

    /// The caller has queued a ping, which ends at `end` in [`Traffic::given`].
    pub fn pinged(&mut self, now: Instant, end: u64, traffic: Traffic) {
        self.pinged = now;
        match &mut self.waiting {
            Some(waiting) => {
                waiting.pings += 1;
                waiting.last = end;
            }
            None => {
                let received = traffic.received;
                self.waiting = Some(Waiting { pings: 1, first: end, last: end, since: now, received });
            }
        }
    }

    /// The client has sent an answer. If no ping waits for one, it is ignored.
    pub fn answered(&mut self, now: Instant, traffic: Traffic) {
        let Some(waiting) = self.waiting.take() else { return };
        self.read = waiting.first;
        if waiting.pings > 1 {
            // The ends of the pings between the first and the last are not stored, so the client gets a little too much time.
            self.waiting = Some(Waiting {
                pings: waiting.pings - 1,
                first: waiting.last,
                since: now,
                received: traffic.received,
                ..waiting
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: HeartbeatConfig =
        HeartbeatConfig { interval: Duration::from_secs(25), timeout: Duration::from_secs(20) };

    /// A connection, and a clock that the test moves.
    struct Client {
        heartbeat: Heartbeat,
        began: Instant,
        now: Instant,
        traffic: Traffic,
    }

    impl Client {
        fn new() -> Self {
            let now = Instant::now();
            Self { heartbeat: Heartbeat::new(now), began: now, now, traffic: Traffic::default() }
        }

        fn next(&mut self) -> Beat {
            self.heartbeat.next(self.now, &CONFIG, self.traffic)
        }

        /// The ping ends behind `before` bytes that have not been given to the kernel yet.
        fn ping(&mut self, before: u64) {
            assert_eq!(self.next(), Beat::Ping);
            let end = self.traffic.given + before + 3;
            self.heartbeat.pinged(self.now, end, self.traffic);
        }

        fn answers(&mut self) {
            self.heartbeat.answered(self.now, self.traffic);
        }

        fn at(&mut self, seconds: u64) -> &mut Self {
            self.now = self.began + Duration::from_secs(seconds);
            self
        }

        /// Waits until there is something to do. Returns what, and after how many seconds.
        fn waits(&mut self) -> (Beat, u64) {
            loop {
                match self.next() {
                    Beat::Wait(until) => self.now = until,
                    other => return (other, (self.now - self.began).as_secs()),
                }
            }
        }
    }

    #[test]
    fn an_idle_client_is_pinged_and_is_dead_after_the_ping_timeout() {
        let mut client = Client::new();
        assert_eq!(client.waits(), (Beat::Ping, 25));
        client.ping(0);
        client.traffic.given += 3;
        client.at(26).answers();
        assert_eq!(client.waits(), (Beat::Ping, 50), "from ping to ping, however late the answer is");
        client.ping(0);
        client.traffic.given += 3;
        assert_eq!(client.waits(), (Beat::Dead, 70));
    }

    #[test]
    fn an_answer_without_a_ping_does_not_delay_the_next_ping() {
        let mut client = Client::new();
        for seconds in 0..25 {
            client.at(seconds).answers();
            assert!(matches!(client.next(), Beat::Wait(_)));
        }
        assert_eq!(client.waits(), (Beat::Ping, 25));
    }

    #[test]
    fn a_client_is_not_dead_while_its_ping_has_not_left() {
        let mut client = Client::new();
        client.at(25).ping(10_000_000);
        client.traffic.stalled = true;
        for seconds in (25..2000).step_by(10) {
            client.traffic.given += 30_000;
            assert!(matches!(client.at(seconds).next(), Beat::Wait(_)), "after {seconds} s");
        }
    }

    #[test]
    fn a_client_that_never_answers_is_dead_however_much_it_reads() {
        let mut client = Client::new();
        client.at(25).ping(0);
        client.traffic.stalled = true;
        let mut pings = 1;
        let dead = loop {
            client.now += Duration::from_secs(1);
            client.traffic.given += 100_000;
            match client.next() {
                Beat::Wait(_) => {}
                Beat::Ping => {
                    client.ping(0);
                    pings += 1;
                }
                Beat::Dead => break (client.now - client.began).as_secs(),
            }
        };
        assert_eq!((dead, pings), (25 + 20 + 20, 2), "20 s for 2 MiB behind the ping, and 20 s to answer");
    }

    #[test]
    fn bytes_on_their_way_before_a_ping_extend_its_deadline() {
        let mut client = Client::new();
        client.traffic.given = 256 * 1024;
        client.at(25).ping(0);
        client.traffic.given += 3;
        let first = (client.heartbeat.waiting.as_ref()).map(|waiting| waiting.first);
        assert_eq!(first, Some(256 * 1024 + 3));
        client.at(45);
        assert!(matches!(client.next(), Beat::Wait(_)));
        client.at(50).ping(0);
        client.traffic.given += 3;
        client.at(52).answers();
        // Only the first ping is before the second one, so the deadline of the second is not extended.
        assert_eq!(client.waits(), (Beat::Dead, 72));
    }

    #[test]
    fn the_extension_for_bytes_on_their_way_is_limited() {
        let mut client = Client::new();
        client.traffic.given = 1 << 40;
        client.at(25).ping(0);
        client.traffic.given += 3;
        loop {
            match client.waits() {
                (Beat::Dead, seconds) => break assert_eq!(seconds, 25 + 20 + 64),
                _ => client.ping(0),
            }
            client.traffic.given += 3;
        }
    }

    #[test]
    fn an_answer_may_wait_behind_a_message_that_the_client_sends() {
        let mut client = Client::new();
        client.at(25).ping(0);
        client.traffic.given += 3;
        client.traffic.received += 128 * 1024;
        assert_eq!(client.at(47).next(), Beat::Wait(client.began + Duration::from_secs(49)));
        client.at(48).answers();
        assert_eq!(client.waits(), (Beat::Ping, 50));
    }
}
