//! The fan-out behind its lock, shared by the feed loop and the sessions.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    feed::Position,
    metrics::{Metrics, RoomKind},
    rate_limited_log::rate_limited_log,
    task::Timestamp,
};

use super::{Fanout, Limits, Peer, SpaceReports};

/// One task flushes at most this many peers, which takes some tenths of a millisecond of system calls.
const FLUSHED_AT_ONCE: usize = 64;

/// One per process. The lock is never held across an await, and the work under it only uses memory.
#[derive(Debug)]
pub struct Hub<P> {
    fanout: Mutex<Fanout<P>>,
    /// A clone of the fan-out's list, which needs no lock of the fan-out.
    space_reports: SpaceReports,
    /// The feed of tasks.
    pub task_feed: FeedState,
    /// Wakes the feed loop when counts have become dirty, or a queue full, outside the feed loop.
    pub(super) wake: Notify,
    pub(super) metrics: Arc<Metrics>,
    /// When this process started. Changes that were committed earlier do not count in the latency metric.
    pub(super) began: Timestamp,
}

/// How the node follows the feed of one stream.
#[derive(Debug)]
pub struct FeedState {
    /// True while handoffs are possible.
    open: watch::Sender<bool>,
    epoch: AtomicU64,
    lag_ms: AtomicU64,
}

/// The status of a stream for `/api/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedStatus {
    pub open: bool,
    pub position: Position,
    /// How often the feed was opened: once at the start, and again after each gap, when every room is sent again.
    pub epoch: u64,
    /// The time from the commit of the last change to its events, in milliseconds. 0 when everything has been sent.
    pub lag_ms: u64,
}

impl<P: Peer> Hub<P> {
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let fanout = Fanout::new(limits);
        Self {
            space_reports: fanout.clients.space_reports(),
            fanout: Mutex::new(fanout),
            task_feed: FeedState::new(),
            wake: Notify::new(),
            metrics,
            began: Timestamp::now(),
        }
    }

    /// One turn of the fan-out.
    pub fn turn<T>(&self, work: impl FnOnce(&mut Fanout<P>) -> T) -> T {
        let mut fanout = self.fanout.lock();
        let (was_dirty, were_slow) = (fanout.counts_are_dirty(), fanout.clients.any_is_slow());
        let result = work(&mut fanout);
        let sent = fanout.clients.take_sent();
        if !was_dirty && fanout.counts_are_dirty() || !were_slow && fanout.clients.any_is_slow() {
            self.wake.notify_one();
        }
        drop(fanout);
        if sent.messages > 0 {
            self.metrics.clients.deliveries.inc_by(sent.messages);
            self.metrics.clients.delivered_bytes.inc_by(sent.bytes);
        }
        flush(sent.to_flush);
        result
    }

    /// The status of the stream of tasks.
    pub fn status(&self) -> FeedStatus {
        self.task_feed.status(self.fanout.lock().tasks.position())
    }

    /// Sets the metrics of what the fan-out holds right now, before a scrape.
    pub fn measure(&self) {
        let (status, sizes) = (self.status(), self.fanout.lock().sizes());
        let metrics = &self.metrics.relay;
        metrics.open.set(status.open.into());
        metrics.rooms.of(RoomKind::Task).set(sizes.task_rooms as u64);
        metrics.rooms.of(RoomKind::Dashboard).set(sizes.dashboards as u64);
        metrics.members.of(RoomKind::Task).set(sizes.task_members as u64);
        metrics.members.of(RoomKind::Dashboard).set(sizes.dashboard_members as u64);
        metrics.clients_behind.set(sizes.behind as u64);
        metrics.packets_behind.set(sizes.messages_behind as u64);
        metrics.ring_bytes.set(sizes.ring.bytes as u64);
        metrics.ring_max_bytes.set(sizes.ring.max_bytes as u64);
        metrics.ring_steps.set(sizes.ring.steps as u64);
        metrics.ring_span_seconds.set(sizes.ring.span.as_secs_f64());
    }

    /// The list in which peers report that their queue has space again. The feed loop then sends what waits. A report does not wait for the
    /// lock of the fan-out.
    pub fn space_reports(&self) -> SpaceReports {
        self.space_reports.clone()
    }

    /// Moves waiting messages into the queues that have room again, and disconnects clients that are too far behind or have
    /// accepted nothing for too long. Returns whether the feed loop can continue without waiting.
    pub fn send_waiting(&self) -> bool {
        let (waits, cut) = self.turn(|fanout| {
            if fanout.clients.send_waiting() {
                return (false, 0);
            }
            (fanout.clients.must_wait(), fanout.cut_slow())
        });
        if cut > 0 {
            rate_limited_log!(
                warn,
                clients = cut,
                "disconnected clients whose send queue stayed full; they reconnect and resync"
            );
        }
        !waits
    }
}

impl FeedState {
    fn new() -> Self {
        Self { open: watch::Sender::new(false), epoch: AtomicU64::new(0), lag_ms: AtomicU64::new(0) }
    }

    /// Waits until the feed is being followed.
    pub async fn opened(&self) {
        // The sender lives as long as `self`.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// The stream has been opened, so handoffs are possible.
    pub(super) fn mark_open(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.open.send_replace(true);
    }

    pub(super) fn mark_closed(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn set_lag(&self, millis: u64) {
        self.lag_ms.store(millis, Ordering::Relaxed);
    }

    fn status(&self, position: Position) -> FeedStatus {
        FeedStatus {
            open: *self.open.borrow(),
            position,
            epoch: self.epoch.load(Ordering::Relaxed),
            lag_ms: self.lag_ms.load(Ordering::Relaxed),
        }
    }
}

/// Flushes peers outside the lock, because each flush is a system call. Many peers are split between several tasks.
fn flush<P: Peer>(mut peers: Vec<P>) {
    while peers.len() > FLUSHED_AT_ONCE {
        let some = peers.split_off(peers.len() - FLUSHED_AT_ONCE);
        tokio::spawn(async move { some.iter().for_each(P::flush) });
    }
    peers.iter().for_each(P::flush);
}
