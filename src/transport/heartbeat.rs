//! Decides when a WebSocket is pinged, and when it counts as dead. This module does no I/O and reads no clock.
//!
//! A ping goes ahead of all queued messages, but behind the bytes that the kernels of both sides hold already. The client reads
//! these bytes first, and its answer may wait behind a message that it is sending. Bytes that move are therefore a sign of life:
//!
//! - While the ping has not been written to the kernel, the client is dead if it reads nothing for `SLOW_CLIENT_TIMEOUT`; see
//!   [`crate::transport::Tcp`].
//! - After that, the client has `PING_TIMEOUT`, and the time that a slow client needs for the bytes before the ping and for the bytes
//!   that it has sent since then.

use std::time::{Duration, Instant};

use crate::config::HeartbeatConfig;

/// A client that reads at least this many bytes in a second is slow, not dead. A phone with a bad connection reads more.
const MIN_BYTES_PER_SECOND: u64 = 32 * 1024;
/// At most this many bytes are assumed to be on their way to a client, in the kernels of both sides. The receive buffer of a client
/// that has just read fast is large.
const MAX_IN_FLIGHT: u64 = 2 * 1024 * 1024;
/// At most this many bytes from the client are assumed to come before its answer.
const MAX_BEFORE_PONG: u64 = 512 * 1024;

/// How long a slow client needs for this many bytes.
fn slow_client_time(bytes: u64) -> Duration {
    Duration::from_millis(bytes * 1000 / MIN_BYTES_PER_SECOND)
}

/// How long a slow client needs for bytes that are on their way to it, limited to the time for [`MAX_IN_FLIGHT`].
pub(super) fn in_flight_time(bytes: u64) -> Duration {
    slow_client_time(bytes.min(MAX_IN_FLIGHT))
}

/// How many bytes a connection has carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// Bytes written to the kernel since the WebSocket began.
    pub written: u64,
    /// More bytes wait for the kernel.
    pub stalled: bool,
    /// Bytes received from the client.
    pub received: u64,
}

/// The next action of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeartbeatAction {
    Ping,
    /// There is nothing to do before this time.
    Wait(Instant),
    Dead,
}

#[derive(Debug)]
pub(super) struct Heartbeat {
    /// When the client was last pinged, or when the connection began.
    last_ping: Instant,
    pending: Option<PendingPings>,
    /// The client has read everything up to this point of [`Traffic::written`], because it has answered a ping that ended there.
    acknowledged: u64,
}

/// The pings that the client has not answered yet.
#[derive(Debug)]
struct PendingPings {
    count: u32,
    /// Where the first of them ends, in [`Traffic::written`].
    first_end: u64,
    /// Where the last of them ends.
    last_end: u64,
    /// From this time on the client could have answered.
    since: Instant,
    /// [`Traffic::received`] when the first ping was queued, or when the client answered an earlier one.
    received: u64,
}

impl Heartbeat {
    /// `last_ping` is when the client was last pinged on another transport, or when its connection began.
    pub fn new(last_ping: Instant) -> Self {
        Self { last_ping, pending: None, acknowledged: 0 }
    }

    pub fn next(&mut self, now: Instant, config: &HeartbeatConfig, traffic: Traffic) -> HeartbeatAction {
        let due = self.last_ping + config.interval;
        let Some(pending) = &mut self.pending else {
            return if due <= now { HeartbeatAction::Ping } else { HeartbeatAction::Wait(due) };
        };
        let is_before_ping = traffic.written < pending.first_end;
        let may_be_before_ping = traffic.stalled && traffic.written < pending.first_end + MAX_IN_FLIGHT;
        if is_before_ping || may_be_before_ping {
            pending.since = now;
        }
        let time_before_ping = in_flight_time(pending.first_end.saturating_sub(self.acknowledged));
        let time_before_pong =
            slow_client_time(traffic.received.saturating_sub(pending.received).min(MAX_BEFORE_PONG));
        let end = pending.since + config.timeout + time_before_ping + time_before_pong;
        if end <= now {
            return HeartbeatAction::Dead;
        }
        // The JavaScript client closes a connection that brings no ping for a while, even if other data arrives. Pings therefore
        // continue, but at most one of them waits in the queue.
        match traffic.written >= pending.last_end {
            true if due <= now => HeartbeatAction::Ping,
            true => HeartbeatAction::Wait(due.min(end)),
            false => HeartbeatAction::Wait(end),
        }
    }

    /// The caller has queued a ping, which ends at `end` in [`Traffic::written`].
    pub fn record_ping(&mut self, now: Instant, end: u64, traffic: Traffic) {
        self.last_ping = now;
        match &mut self.pending {
            Some(pending) => {
                pending.count += 1;
                pending.last_end = end;
            }
            None => {
                let received = traffic.received;
                self.pending =
                    Some(PendingPings { count: 1, first_end: end, last_end: end, since: now, received });
            }
        }
    }

    /// The client has sent an answer. If no ping waits for one, it is ignored.
    pub fn record_pong(&mut self, now: Instant, traffic: Traffic) {
        let Some(pending) = self.pending.take() else { return };
        self.acknowledged = pending.first_end;
        if pending.count > 1 {
            // The ends of the pings between the first and the last are not stored, so the client gets a little too much time.
            self.pending = Some(PendingPings {
                count: pending.count - 1,
                first_end: pending.last_end,
                since: now,
                received: traffic.received,
                ..pending
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

        fn next(&mut self) -> HeartbeatAction {
            self.heartbeat.next(self.now, &CONFIG, self.traffic)
        }

        /// The ping ends behind `before` bytes that have not been written to the kernel yet.
        fn ping(&mut self, before: u64) {
            assert_eq!(self.next(), HeartbeatAction::Ping);
            let end = self.traffic.written + before + 3;
            self.heartbeat.record_ping(self.now, end, self.traffic);
        }

        fn sends_pong(&mut self) {
            self.heartbeat.record_pong(self.now, self.traffic);
        }

        fn at(&mut self, seconds: u64) -> &mut Self {
            self.now = self.began + Duration::from_secs(seconds);
            self
        }

        /// Waits until there is something to do. Returns what, and after how many seconds.
        fn wait_for_action(&mut self) -> (HeartbeatAction, u64) {
            loop {
                match self.next() {
                    HeartbeatAction::Wait(until) => self.now = until,
                    other => return (other, (self.now - self.began).as_secs()),
                }
            }
        }
    }

    #[test]
    fn an_idle_client_is_pinged_and_is_dead_after_the_ping_timeout() {
        let mut client = Client::new();
        assert_eq!(client.wait_for_action(), (HeartbeatAction::Ping, 25));
        client.ping(0);
        client.traffic.written += 3;
        client.at(26).sends_pong();
        assert_eq!(
            client.wait_for_action(),
            (HeartbeatAction::Ping, 50),
            "from ping to ping, however late the answer is"
        );
        client.ping(0);
        client.traffic.written += 3;
        assert_eq!(client.wait_for_action(), (HeartbeatAction::Dead, 70));
    }

    #[test]
    fn an_answer_without_a_ping_does_not_delay_the_next_ping() {
        let mut client = Client::new();
        for seconds in 0..25 {
            client.at(seconds).sends_pong();
            assert!(matches!(client.next(), HeartbeatAction::Wait(_)));
        }
        assert_eq!(client.wait_for_action(), (HeartbeatAction::Ping, 25));
    }

    #[test]
    fn a_client_is_not_dead_while_its_ping_has_not_left() {
        let mut client = Client::new();
        client.at(25).ping(10_000_000);
        client.traffic.stalled = true;
        for seconds in (25..2000).step_by(10) {
            client.traffic.written += 30_000;
            assert!(matches!(client.at(seconds).next(), HeartbeatAction::Wait(_)), "after {seconds} s");
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
            client.traffic.written += 100_000;
            match client.next() {
                HeartbeatAction::Wait(_) => {}
                HeartbeatAction::Ping => {
                    client.ping(0);
                    pings += 1;
                }
                HeartbeatAction::Dead => break (client.now - client.began).as_secs(),
            }
        };
        assert_eq!((dead, pings), (25 + 20 + 20, 2), "20 s for 2 MiB behind the ping, and 20 s to answer");
    }

    #[test]
    fn bytes_on_their_way_before_a_ping_extend_its_deadline() {
        let mut client = Client::new();
        client.traffic.written = 256 * 1024;
        client.at(25).ping(0);
        client.traffic.written += 3;
        let first = (client.heartbeat.pending.as_ref()).map(|pending| pending.first_end);
        assert_eq!(first, Some(256 * 1024 + 3));
        client.at(45);
        assert!(matches!(client.next(), HeartbeatAction::Wait(_)));
        client.at(50).ping(0);
        client.traffic.written += 3;
        client.at(52).sends_pong();
        // The pong shows that the client has read everything up to the end of the first ping. Only few bytes are between the two pings, so
        // they do not extend the second deadline.
        assert_eq!(client.wait_for_action(), (HeartbeatAction::Dead, 72));
    }

    #[test]
    fn the_extension_for_bytes_on_their_way_is_limited() {
        let mut client = Client::new();
        client.traffic.written = 1 << 40;
        client.at(25).ping(0);
        client.traffic.written += 3;
        loop {
            match client.wait_for_action() {
                (HeartbeatAction::Dead, seconds) => break assert_eq!(seconds, 25 + 20 + 64),
                _ => client.ping(0),
            }
            client.traffic.written += 3;
        }
    }

    #[test]
    fn an_answer_may_wait_behind_a_message_that_the_client_sends() {
        let mut client = Client::new();
        client.at(25).ping(0);
        client.traffic.written += 3;
        client.traffic.received += 128 * 1024;
        assert_eq!(client.at(47).next(), HeartbeatAction::Wait(client.began + Duration::from_secs(49)));
        client.at(48).sends_pong();
        assert_eq!(client.wait_for_action(), (HeartbeatAction::Ping, 50));
    }
}
