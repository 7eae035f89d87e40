//! The fan-out behind its lock, shared by the feed's pump and the sessions.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Notify, watch};

use crate::{feed::Position, metrics::Metrics, seldom::seldom, task::Timestamp};

use super::{Fanout, Limits, Peer, PeerId, Relief};

/// Some tenths of a millisecond of system calls.
const FLUSHED_AT_ONCE: usize = 64;

/// One per process. The lock is never held across an await; everything under it is memory work.
#[derive(Debug)]
pub struct Hub<P> {
    fanout: Mutex<Fanout<P>>,
    /// The fan-out's own.
    relief: Relief,
    /// Whether handoffs are possible.
    open: watch::Sender<bool>,
    /// Counts have become dirty, or a queue full, outside the pump.
    pub(super) touched: Notify,
    epoch: AtomicU64,
    lag_ms: AtomicU64,
    pub(super) metrics: Arc<Metrics>,
    /// What was committed earlier is not late when it is sent.
    pub(super) began: Timestamp,
}

/// For `/api/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubStatus {
    pub open: bool,
    pub position: Position,
    /// Counts the times that events may have been missed, and every room was sent anew.
    pub epoch: u64,
    /// From a change's commit to its events, of the last change; 0 when everything has been sent.
    pub lag_ms: u64,
}

impl<P: Peer> Hub<P> {
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let fanout = Fanout::new(limits);
        Self {
            relief: fanout.relief(),
            fanout: Mutex::new(fanout),
            open: watch::Sender::new(false),
            touched: Notify::new(),
            epoch: AtomicU64::new(0),
            lag_ms: AtomicU64::new(0),
            metrics,
            began: Timestamp::now(),
        }
    }

    /// One turn of the fan-out.
    pub fn turn<T>(&self, work: impl FnOnce(&mut Fanout<P>) -> T) -> T {
        let mut fanout = self.lock();
        let (was_dirty, was_pressed) = (fanout.counts_are_dirty(), fanout.anyone_pressed());
        let result = work(&mut fanout);
        let sent = fanout.take_sent();
        if !was_dirty && fanout.counts_are_dirty() || !was_pressed && fanout.anyone_pressed() {
            self.touched.notify_one();
        }
        drop(fanout);
        if sent.packets > 0 {
            self.metrics.clients.deliveries.inc_by(sent.packets);
            self.metrics.clients.delivered_bytes.inc_by(sent.bytes);
        }
        flush(sent.waiting);
        result
    }

    /// Until the feed is being followed.
    pub async fn opened(&self) {
        // The sender lives as long as `self`.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    pub fn status(&self) -> HubStatus {
        HubStatus {
            open: *self.open.borrow(),
            position: self.lock().position(),
            epoch: self.epoch.load(Ordering::Relaxed),
            lag_ms: self.lag_ms.load(Ordering::Relaxed),
        }
    }

    /// Sets what a scrape shows of what is held right now.
    pub fn measure(&self) {
        let (status, fill) = (self.status(), self.lock().fill());
        let metrics = &self.metrics.relay;
        metrics.open.set(status.open.into());
        metrics.rooms.of(["task"]).set(fill.task_rooms as u64);
        metrics.rooms.of(["dashboard"]).set(fill.dashboards as u64);
        metrics.members.of(["task"]).set(fill.task_members as u64);
        metrics.members.of(["dashboard"]).set(fill.dashboard_members as u64);
        metrics.clients_behind.set(fill.behind as u64);
        metrics.packets_behind.set(fill.packets_behind as u64);
        metrics.ring_bytes.set(fill.ring.bytes as u64);
        metrics.ring_max_bytes.set(fill.ring.max_bytes as u64);
        metrics.ring_steps.set(fill.ring.steps as u64);
        metrics.ring_span_seconds.set(fill.ring.span.as_secs_f64());
    }

    pub(super) fn open_at(&self, position: Position) {
        self.turn(|fanout| fanout.open(position));
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.open.send_replace(true);
    }

    pub(super) fn gap(&self) {
        self.open.send_replace(false);
        self.turn(Fanout::gap);
    }

    pub(super) fn set_lag(&self, millis: u64) {
        self.lag_ms.store(millis, Ordering::Relaxed);
    }

    /// A peer whose queue was full has room again. The pump gives it what waits; nobody waits for the fan-out here.
    pub fn has_room(&self, id: PeerId) {
        self.relief.has_room(id);
    }

    /// Gives the clients whose queues were full what fits, and cuts those for whom nothing can be done. Whether
    /// nobody has to be waited for.
    pub fn relieve(&self) -> bool {
        let (waits, cut) = self.turn(|fanout| {
            if fanout.relieve() {
                return (false, 0);
            }
            (fanout.waits(), fanout.cut_pressed())
        });
        if cut > 0 {
            seldom!(
                warn,
                clients = cut,
                "cut clients whose send queue stayed full; they reconnect and resync"
            );
        }
        !waits
    }

    fn lock(&self) -> MutexGuard<'_, Fanout<P>> {
        // A panic under the lock is a bug; serving on with what is there beats refusing everybody.
        self.fanout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outside the lock, for each flush is a system call. Many are shared among the workers.
fn flush<P: Peer>(mut waiting: Vec<P>) {
    while waiting.len() > FLUSHED_AT_ONCE {
        let some = waiting.split_off(waiting.len() - FLUSHED_AT_ONCE);
        tokio::spawn(async move { some.iter().for_each(P::flush) });
    }
    waiting.iter().for_each(P::flush);
}
