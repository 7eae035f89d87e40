//! Metrics of the relay, from a committed change to the rooms.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use strum::VariantArray;

use super::{
    labelled::{Counters, Gauges, Level, PairCounters, all, counter, gauge, histogram, pairs},
    labels::{HandoffKind, RoomKind, SnapshotRead},
};
use crate::{feed::GapReason, wire::emitted};

#[derive(Debug)]
pub struct RelayMetrics {
    pub changes: Counter,
    /// The counter of each event, by name.
    events: Vec<(&'static str, Counter)>,
    pub encode_seconds: Histogram,
    pub fanout_seconds: Histogram,
    pub commit_to_emit_seconds: Histogram,
    pub lag_seconds: Gauge<f64, AtomicU64>,
    pub open: Level,
    pub history_lost: Counters<GapReason>,
    pub handoffs: PairCounters<RoomKind, HandoffKind>,
    pub snapshots: PairCounters<RoomKind, SnapshotRead>,
    pub rooms: Gauges<RoomKind>,
    pub members: Gauges<RoomKind>,
    pub feed_queue: Level,
    pub feed_queue_max: Level,
    pub ring_bytes: Level,
    pub ring_max_bytes: Level,
    pub ring_steps: Level,
    pub ring_span_seconds: Gauge<f64, AtomicU64>,
    pub clients_behind: Level,
    pub packets_behind: Level,
}

impl RelayMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let events = Counters::register(
            registry,
            "events",
            "Events made from changes, by name; each counts once, however many clients receive it; \
             dashboard:task_count_changed once for each viewer",
            ["event"],
        );
        let lag_seconds = Gauge::default();
        registry.register(
            "relay_lag_seconds",
            "How far clients are behind the store: from the commit of the last change to its events, or stream_lag_seconds where \
             that is more; 0 when everything has been sent",
            lag_seconds.clone(),
        );
        let ring_span_seconds = Gauge::default();
        registry.register(
            "ring_span_seconds",
            "From the oldest change in the ring of recent events to the newest: how long a client may be away and \
             still recover with since",
            ring_span_seconds.clone(),
        );
        Self {
            changes: counter(registry, "changes", "Committed changes that were relayed"),
            events: emitted::FROM_CHANGES.iter().map(|&name| (name, events.of(name))).collect(),
            encode_seconds: histogram(
                registry,
                "encode_seconds",
                "Time to make and encode the events of one change",
                [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1],
            ),
            fanout_seconds: histogram(
                registry,
                "fanout_seconds",
                "Time to put the events of one change into the queues of all receivers, without waiting for full \
                 queues",
                [0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1],
            ),
            commit_to_emit_seconds: histogram(
                registry,
                "commit_to_emit_seconds",
                "From the store's time of a change to its last event in the clients' queues; changes that were \
                 committed before the process began are left out",
                [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
            ),
            lag_seconds,
            open: gauge(registry, "relay_open", "1 while the store is followed and joins are possible"),
            history_lost: Counters::register(
                registry,
                "history_lost",
                "Times that changes may have been missed and every room was sent again in a new epoch, by reason",
                ["reason"],
            )
            .with(all()),
            handoffs: PairCounters::register(
                registry,
                "handoffs",
                "Handoffs to joins and resyncs: state sent, recovered by a replay alone, gone (the task does \
                 not exist or is not visible), reread (the snapshot was too old)",
                ["room", "kind"],
            )
            .with(pairs(RoomKind::VARIANTS, HandoffKind::VARIANTS)),
            snapshots: PairCounters::register(
                registry,
                "snapshot_reads",
                "Snapshots for joins: own ones, and those shared with another join that needed the same at the same moment",
                ["room", "read"],
            )
            .with(pairs(RoomKind::VARIANTS, SnapshotRead::VARIANTS)),
            rooms: Gauges::register(
                registry,
                "rooms",
                "Rooms with members: tasks that a client has joined, organisations with an open dashboard",
                ["room"],
            )
            .with(all()),
            members: Gauges::register(
                registry,
                "room_members",
                "Memberships of connections in rooms",
                ["room"],
            )
            .with(all()),
            feed_queue: gauge(registry, "feed_queue", "Changes queued between the store's feed and the fan-out"),
            feed_queue_max: gauge(registry, "feed_queue_max", "Maximum of feed_queue; more wait in the store"),
            ring_bytes: gauge(registry, "ring_bytes", "Size of the ring of recent events"),
            ring_max_bytes: gauge(registry, "ring_max_bytes", "Maximum of ring_bytes"),
            ring_steps: gauge(registry, "ring_steps", "Steps in the ring: the events of a change that go out together"),
            ring_span_seconds,
            clients_behind: gauge(registry, "clients_behind", "Clients whose send queue is full"),
            packets_behind: gauge(registry, "packets_behind", "Packets that wait beside full send queues"),
        }
    }

    pub fn emitted(&self, event: &str, times: u64) {
        if let Some((_, counter)) = self.events.iter().find(|(name, _)| *name == event) {
            counter.inc_by(times);
        }
    }
}
