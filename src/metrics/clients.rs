//! Metrics of the clients: connections, requests, deliveries and refusals.

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use strum::VariantArray;

use crate::wire::{ClientEventName, Code};

use super::{
    labelled::{Counters, Gauges, Level, all, counter, gauge},
    labels::{CutReason, EndReason, HandshakeOutcome, RejectReason, Transport, WaitCause},
};

const UNKNOWN_EVENT: &str = "unknown";

#[derive(Debug)]
pub struct ClientMetrics {
    pub connections: Gauges<Transport>,
    pub users: Level,
    pub unauthenticated: Level,
    /// Every accepted TCP connection takes a slot, HTTP connections too.
    pub connection_slots_used: Level,
    pub connection_slots: Level,
    pub rejected: Counters<RejectReason>,
    pub handshakes: Counters<HandshakeOutcome>,
    pub ended: Counters<EndReason>,
    requests: Counters<&'static str>,
    pub refusals: Counters<Code>,
    /// `totalErrors` of `/api/health` shows it, too.
    pub errors: Counter,
    pub cut: Counters<CutReason>,
    /// `messagesPerSecond` of `/api/health` is its growth per second.
    pub deliveries: Counter,
    pub delivered_bytes: Counter,
    pub requests_waiting: Level,
    joins_waiting: Gauges<WaitCause>,
}

/// A join or resync counts as waiting until this is dropped.
#[derive(Debug)]
pub struct WaitingJoin(Level);

impl Drop for WaitingJoin {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ClientMetrics {
    /// Counts an event of a client. `None` means that taskcast does not know its name.
    pub fn requested(&self, name: Option<ClientEventName>) {
        self.requests.inc(name.map_or(UNKNOWN_EVENT, Into::into));
    }

    pub fn join_waits(&self, cause: WaitCause) -> WaitingJoin {
        let level = self.joins_waiting.of(cause);
        level.inc();
        WaitingJoin(level)
    }

    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            connections: Gauges::register(
                registry,
                "connections",
                "Authenticated connections, by Socket.IO (websocket, polling) or /ws (plain_websocket)",
                ["transport"],
            ).with(all()),
            users: gauge(registry, "users", "Users that have at least one connection"),
            unauthenticated: gauge(
                registry,
                "unauthenticated_connections",
                "Connections of Socket.IO and /ws that have not sent a token yet",
            ),
            connection_slots_used: gauge(registry, "tcp_connections", "Open TCP connections"),
            connection_slots: gauge(
                registry,
                "tcp_connections_max",
                "Maximum number of TCP connections; the last eighth is reserved for existing clients",
            ),
            rejected: Counters::register(
                registry,
                "connections_refused",
                "Connections, and requests of Socket.IO and /ws, that were refused before a handshake",
                ["reason"],
            )
            .with(all()),
            handshakes: Counters::register(
                registry,
                "handshakes",
                "Tokens of Socket.IO and /ws clients by outcome: accepted, the code that the client receives, or unavailable (closed, \
                 because the key of its token is not known yet)",
                ["outcome"],
            )
            .with(all()),
            ended: Counters::register(
                registry,
                "connections_ended",
                "Connections of Socket.IO and /ws that ended, by the reason that the transport gave",
                ["reason"],
            )
            .with(all()),
            requests: Counters::register(
                registry,
                "client_events",
                "Events from clients by name; other names count as unknown",
                ["event"],
            )
            .with(ClientEventName::VARIANTS.iter().map(Into::into).chain([UNKNOWN_EVENT])),
            refusals: Counters::register(
                registry,
                "refusals",
                "Refusals sent to connected clients, in acknowledgements and as the event error or refused, by code",
                ["code"],
            )
            .with(all()),
            errors: counter(
                registry,
                "client_errors",
                "Refused requests and handshakes, and connections that were closed because of what the client sent",
            ),
            cut: Counters::register(
                registry,
                "clients_cut",
                "Connections that the server cut so that the client reconnects and resyncs: behind (its queue stayed full), \
                 stalled (it read nothing), not_refreshed (its rooms could not be sent again), too_many (of one user), \
                 flooding (it kept sending in spite of refusals)",
                ["reason"],
            )
            .with(all()),
            deliveries: counter(
                registry,
                "deliveries",
                "Packets queued for clients: an event counts once for each client that it goes to",
            ),
            delivered_bytes: counter(
                registry,
                "delivered_bytes",
                "Size of the packets queued for clients, before the transport's framing",
            ),
            requests_waiting: gauge(
                registry,
                "client_requests_waiting",
                "Requests in the queues of all sessions; each holds up to 256",
            ),
            joins_waiting: Gauges::register(
                registry,
                "joins_waiting",
                "Joins and resyncs that wait: for their turn by JOIN_RATE_PER_SECOND (rate), for the store or the feed \
                 (store), for a slow client to read what it has requested (client)",
                ["cause"],
            )
            .with(all()),
        }
    }
}
