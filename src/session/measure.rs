//! The metrics of the sessions.

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
        let (mut websocket, mut waiting) = (0, 0);
        for session in &sessions {
            websocket += u64::from(session.connection.transport() == "websocket");
            waiting += session.waiting() as u64;
        }
        metrics.connections.of(Transport::Websocket).set(websocket);
        metrics.connections.of(Transport::Polling).set(sessions.len() as u64 - websocket);
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
