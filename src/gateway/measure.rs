//! The metrics of the Socket.IO edge.

use crate::protocol::Code;

use super::{
    Gateway,
    socket::{DisconnectReason, TransportType},
};

impl Gateway {
    /// Sets the gauges of the current connections. A scrape calls this first.
    pub fn measure(&self) {
        let metrics = &self.metrics.clients;
        let (sessions, users) = self.sessions.all();
        let (mut websocket, mut waiting) = (0, 0);
        for session in &sessions {
            websocket += u64::from(session.socket.transport_type() == TransportType::Websocket);
            waiting += session.waiting() as u64;
        }
        metrics.connections.of(["websocket"]).set(websocket);
        metrics.connections.of(["polling"]).set(sessions.len() as u64 - websocket);
        metrics.newcomers.set(self.newcomers.count() as u64);
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
        self.metrics.clients.refusals.inc([code.as_str()]);
        self.metrics.clients.errors.inc();
    }

    /// Counts a client that is rejected, or whose connection is closed, because of what it sent.
    pub(super) fn count_fault(&self) {
        self.metrics.clients.errors.inc();
    }

    pub(super) fn count_end(&self, reason: DisconnectReason) {
        self.metrics.clients.ended.inc([match reason {
            DisconnectReason::ClientClose | DisconnectReason::TransportClose => "transport_close",
            DisconnectReason::MultiplePolling => "multiple_polling",
            DisconnectReason::Malformed => "malformed",
            DisconnectReason::TransportError => "transport_error",
            DisconnectReason::HeartbeatTimeout => "heartbeat_timeout",
            DisconnectReason::ClosedHere => "closed_here",
        }]);
    }
}
