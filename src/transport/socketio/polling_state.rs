//! The state of a polling client: whether one of its requests waits, and what it has read. This module does no I/O.
//!
//! The server sees how fast a client reads an answer while the first bytes leave. The last bytes are in the kernel's buffer, or a
//! proxy has accepted all bytes at once. A slow client therefore gets the time that it needs for them.

use std::time::{Duration, Instant};

use super::heartbeat::time_to_take;

#[derive(Debug)]
pub(super) struct PollingState {
    /// A request waits for packets.
    pub asking: bool,
    /// The client has probed a WebSocket.
    pub upgrading: bool,
    /// When the client was last pinged, or when the connection began.
    pub pinged: Instant,
    ping: Ping,
    /// The last time when bytes of the last answer left.
    took: Instant,
    /// How many bytes of the last answer have left.
    taken: u64,
}

/// Where the last ping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    Queued,
    /// It is in the answer that the client reads at the moment.
    Left,
    /// The client has read it: at this time, the client sent its next request.
    Read(Instant),
}

impl PollingState {
    pub fn new(now: Instant) -> Self {
        Self { asking: false, upgrading: false, pinged: now, ping: Ping::Read(now), took: now, taken: 0 }
    }

    /// A ping was queued.
    pub fn ping(&mut self, now: Instant) {
        (self.pinged, self.ping) = (now, Ping::Queued);
    }

    /// The client asks for packets. Returns whether it may: only one request at a time may wait.
    pub fn ask(&mut self, now: Instant) -> bool {
        if self.ping == Ping::Left {
            self.ping = Ping::Read(now);
        }
        !std::mem::replace(&mut self.asking, true)
    }

    /// The first packets of the queue have become an answer.
    pub fn answer(&mut self, now: Instant) {
        if self.ping == Ping::Queued {
            self.ping = Ping::Left;
        }
        (self.took, self.taken) = (now, 0);
    }

    /// Bytes of the answer have left.
    pub fn took(&mut self, now: Instant, bytes: usize) {
        self.took = now;
        self.taken += bytes as u64;
    }

    /// Until this time, the client may still be reading the last answer.
    pub fn busy_until(&self) -> Instant {
        self.took + time_to_take(self.taken)
    }

    /// The deadline for the client's answer to the last ping.
    pub fn answer_due(&self, timeout: Duration) -> Instant {
        let could = match self.ping {
            Ping::Read(at) => at,
            Ping::Queued | Ping::Left => self.pinged.max(self.busy_until()),
        };
        could + timeout
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
        assert!(polling.ask(at(0)) && !polling.ask(at(0)), "once at a time");
        polling.answer(at(1));
        polling.asking = false;
        polling.ping(at(25));
        assert_eq!(polling.answer_due(TIMEOUT), at(45));
        // The answer before the ping is still on its way.
        polling.took(at(30), 64 * 1024);
        assert_eq!(polling.answer_due(TIMEOUT), at(30 + 2 + 20));
        polling.took(at(40), 64 * 1024);
        assert_eq!(polling.answer_due(TIMEOUT), at(40 + 4 + 20));
        // The next answer contains the ping.
        assert!(polling.ask(at(50)));
        polling.answer(at(50));
        polling.asking = false;
        polling.took(at(55), 32 * 1024);
        assert_eq!(polling.answer_due(TIMEOUT), at(55 + 1 + 20));
        // A client that asks again has read the ping. From then on, nothing moves the deadline.
        assert!(polling.ask(at(60)));
        polling.answer(at(70));
        polling.took(at(75), 1 << 20);
        polling.asking = false;
        assert!(polling.ask(at(76)));
        assert_eq!(polling.answer_due(TIMEOUT), at(60 + 20));
    }

    #[test]
    fn a_client_that_does_not_ask_gets_no_extra_time() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut polling = PollingState::new(begin);
        polling.ping(at(25));
        assert_eq!(polling.answer_due(TIMEOUT), at(45));
    }
}
