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
        for transport in Transport::VARIANTS {
            let connected = sessions.iter().filter(|session| session.connection.transport() == *transport);
            metrics.connections.of(*transport).set(connected.count() as u64);
        }
        let waiting = sessions.iter().map(|session| session.waiting() as u64).sum();
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
