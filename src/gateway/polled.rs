//! What is known of a polling client: whether it asks, and what it has taken. Pure.
//!
//! How fast a client reads an answer is seen while its first bytes leave. The last ones are in the kernel, or a proxy has taken
//! all of them at once: a slow client gets the time that it needs for them.

use std::time::{Duration, Instant};

use super::heartbeat::time_to_take;

#[derive(Debug)]
pub(super) struct Polling {
    /// A request waits for packets.
    pub asking: bool,
    /// A WebSocket has been probed.
    pub upgrading: bool,
    /// The last ping, or the begin of the connection.
    pub pinged: Instant,
    ping: Ping,
    /// When bytes of the last answer left last.
    took: Instant,
    /// How many have left.
    taken: u64,
}

/// Where the last ping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    Queued,
    /// In the answer that the client reads.
    Left,
    /// The client had read that answer when it asked for the next one.
    Read(Instant),
}

impl Polling {
    pub fn new(now: Instant) -> Self {
        Self { asking: false, upgrading: false, pinged: now, ping: Ping::Read(now), took: now, taken: 0 }
    }

    /// A ping was queued.
    pub fn ping(&mut self, now: Instant) {
        (self.pinged, self.ping) = (now, Ping::Queued);
    }

    /// Whether the client may ask; it asks once at a time.
    pub fn ask(&mut self, now: Instant) -> bool {
        if self.ping == Ping::Left {
            self.ping = Ping::Read(now);
        }
        !std::mem::replace(&mut self.asking, true)
    }

    /// The packets in front of the queue are an answer.
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

    /// Until then the client may be reading the last answer.
    pub fn busy_until(&self) -> Instant {
        self.took + time_to_take(self.taken)
    }

    /// By when the client has to have answered the last ping.
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
    fn who_reads_an_answer_has_time_for_it() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut polling = Polling::new(begin);
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
        // The next one has the ping in it.
        assert!(polling.ask(at(50)));
        polling.answer(at(50));
        polling.asking = false;
        polling.took(at(55), 32 * 1024);
        assert_eq!(polling.answer_due(TIMEOUT), at(55 + 1 + 20));
        // Who asks again has read it: from then on nothing puts it off.
        assert!(polling.ask(at(60)));
        polling.answer(at(70));
        polling.took(at(75), 1 << 20);
        polling.asking = false;
        assert!(polling.ask(at(76)));
        assert_eq!(polling.answer_due(TIMEOUT), at(60 + 20));
    }

    #[test]
    fn who_does_not_ask_is_not_waited_for() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut polling = Polling::new(begin);
        polling.ping(at(25));
        assert_eq!(polling.answer_due(TIMEOUT), at(45));
    }
}
