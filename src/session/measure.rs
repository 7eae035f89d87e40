//! The metrics of the sessions.

use strum::VariantArray;

use super::Sessions;
use crate::{metrics::Transport, wire::Code};

impl Sessions {
    /// The number of sessions, and the number of users that have one.
    pub fn connected(&self) -> (usize, usize) {
        self.registry.count()
    }

    /// Sets the gauges of the current sessions. A scrape calls this first.
    pub fn measure(&self) {
        let metrics = &self.metrics.clients;
        let (sessions, users) = self.registry.all();
        // A session may change its transport meanwhile, so each is counted in one pass.
        let (mut connected, mut waiting) = ([0; Transport::VARIANTS.len()], 0);
        for session in &sessions {
            connected[session.connection.transport() as usize] += 1;
            waiting += session.waiting() as u64;
        }
        for (transport, count) in Transport::VARIANTS.iter().zip(connected) {
            metrics.connections.of(*transport).set(count);
        }
        metrics.users.set(users as u64);
        metrics.requests_waiting.set(waiting);
    }

    pub fn messages_per_second(&self) -> f64 {
        self.throughput.per_second()
    }

    pub fn total_errors(&self) -> u64 {
        self.metrics.clients.errors.get()
    }

    pub(super) fn count_refusal(&self, code: Code) {
        self.metrics.clients.refusals.inc(code);
        self.metrics.clients.errors.inc();
    }
}
