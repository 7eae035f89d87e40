//! The state of a polling client: whether one of its requests waits, and what it has read. This module does no I/O.
//!
//! The server sees how fast a client reads an answer while the first bytes leave. The last bytes are in the kernel's buffer, or a
//! proxy has accepted all bytes at once. A slow client therefore gets the time that it needs for them.

use std::time::{Duration, Instant};

use crate::transport::heartbeat::in_flight_time;

#[derive(Debug)]
pub struct PollingState {
    /// A request waits for packets.
    pub poll_pending: bool,
    /// The client has probed a WebSocket.
    pub upgrading: bool,
    /// The client has answered the last ping.
    pub has_pong: bool,
    /// When the client was last pinged, or when the connection began.
    pub last_ping: Instant,
    ping: Ping,
    /// The last time when bytes of the last answer left.
    last_sent: Instant,
    /// How many bytes of the last answer have left.
    sent_bytes: u64,
}

/// Where the last ping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    Queued,
    /// It is in the answer that the client reads at the moment.
    Sent,
    /// The client has read it: at this time, the client sent its next request.
    Read(Instant),
}

impl PollingState {
    pub fn new(now: Instant) -> Self {
        Self {
            poll_pending: false,
            upgrading: false,
            has_pong: false,
            last_ping: now,
            ping: Ping::Read(now),
            last_sent: now,
            sent_bytes: 0,
        }
    }

    /// A ping was queued.
    pub fn record_ping(&mut self, now: Instant) {
        (self.last_ping, self.ping) = (now, Ping::Queued);
    }

    /// Begins a request for packets. Returns false if another request already waits: only one may wait at a time.
    pub fn begin_poll(&mut self, now: Instant) -> bool {
        if self.ping == Ping::Sent {
            self.ping = Ping::Read(now);
        }
        !std::mem::replace(&mut self.poll_pending, true)
    }

    /// The first packets of the queue have become an answer.
    pub fn begin_answer(&mut self, now: Instant) {
        if self.ping == Ping::Queued {
            self.ping = Ping::Sent;
        }
        (self.last_sent, self.sent_bytes) = (now, 0);
    }

    /// Bytes of the answer have left.
    pub fn record_sent(&mut self, now: Instant, bytes: usize) {
        self.last_sent = now;
        self.sent_bytes += bytes as u64;
    }

    /// Until this time, the client may still be reading the last answer.
    pub fn busy_until(&self) -> Instant {
        self.last_sent + in_flight_time(self.sent_bytes)
    }

    /// The deadline for the client's answer to the last ping.
    pub fn pong_deadline(&self, timeout: Duration) -> Instant {
        let answerable_from = match self.ping {
            Ping::Read(at) => at,
            Ping::Queued | Ping::Sent => self.last_ping.max(self.busy_until()),
        };
        answerable_from + timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn a_client_that_reads_an_answer_has_time_for_it() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut polling = PollingState::new(begin);
        assert!(polling.begin_poll(at(0)) && !polling.begin_poll(at(0)), "once at a time");
        polling.begin_answer(at(1));
        polling.poll_pending = false;
        polling.record_ping(at(25));
        assert_eq!(polling.pong_deadline(TIMEOUT), at(45));
        // The answer before the ping is still on its way.
        polling.record_sent(at(30), 64 * 1024);
        assert_eq!(polling.pong_deadline(TIMEOUT), at(30 + 2 + 20));
        polling.record_sent(at(40), 64 * 1024);
        assert_eq!(polling.pong_deadline(TIMEOUT), at(40 + 4 + 20));
        // The next answer contains the ping.
        assert!(polling.begin_poll(at(50)));
        polling.begin_answer(at(50));
        polling.poll_pending = false;
        polling.record_sent(at(55), 32 * 1024);
        assert_eq!(polling.pong_deadline(TIMEOUT), at(55 + 1 + 20));
        // A client that sends its next request has read the ping. From then on, nothing moves the deadline.
        assert!(polling.begin_poll(at(60)));
        polling.begin_answer(at(70));
        polling.record_sent(at(75), 1 << 20);
        polling.poll_pending = false;
        assert!(polling.begin_poll(at(76)));
        assert_eq!(polling.pong_deadline(TIMEOUT), at(60 + 20));
    }

    #[test]
    fn a_client_that_does_not_ask_gets_no_extra_time() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut polling = PollingState::new(begin);
        polling.record_ping(at(25));
        assert_eq!(polling.pong_deadline(TIMEOUT), at(45));
    }
}
