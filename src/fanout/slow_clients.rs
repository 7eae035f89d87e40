//! The slow peers: those whose queue was full and for which messages wait. Nothing here scans all of them. A peer reports
//! when its queue has space again, and each peer is checked once per period of patience. The cost is therefore proportional
//! to the number of slow peers.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::PeerId;
use crate::shrinking_map::ShrinkingMap;

/// How long the fan-out waits for a queue that has become full.
const WAITED_FOR: Duration = Duration::from_millis(200);

/// The list in which peers report that their queue has space again, after it was full. All clones share the list.
#[derive(Clone, Debug, Default)]
pub struct SpaceReports(Arc<Mutex<Vec<PeerId>>>);

impl SpaceReports {
    /// Reports that this peer's queue has space again. The caller may hold the fan-out's lock or not.
    pub fn report_space(&self, id: PeerId) {
        self.0.lock().push(id);
    }

    pub(super) fn take(&self) -> Vec<PeerId> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[derive(Debug)]
pub(super) struct SlowClient {
    since: Instant,
    /// When the queue last accepted a message. A client that reads frees its queue in large steps: a polling client with each
    /// of its requests, a WebSocket client whenever a third of its kernel buffer is empty.
    pub last_accepted: Instant,
    /// When the peer has to be checked again, see [`SlowClients::overdue`].
    due: Instant,
}

#[derive(Debug, Default)]
pub(super) struct SlowClients {
    by_id: ShrinkingMap<PeerId, SlowClient>,
    /// Peers in the order in which their queues became full. The last entry always belongs to a peer that is still slow.
    order: VecDeque<(Instant, PeerId)>,
    /// Peers by the time at which they have to be checked.
    due: BTreeSet<(Instant, PeerId)>,
    /// Peers for which too many messages wait.
    over_limit: Vec<PeerId>,
}

impl SlowClients {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn contains(&self, id: PeerId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn ids(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.by_id.keys().copied()
    }

    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut SlowClient> {
        self.by_id.get_mut(&id)
    }

    /// Records that the peer's queue is full.
    pub fn add(&mut self, id: PeerId, patience: Duration) {
        if self.by_id.contains_key(&id) {
            return;
        }
        let now = Instant::now();
        let due = now + patience;
        self.by_id.insert(id, SlowClient { since: now, last_accepted: now, due });
        self.due.insert((due, id));
        while self.order.front().is_some_and(|(since, _)| since.elapsed() >= WAITED_FOR) {
            self.order.pop_front();
        }
        self.order.push_back((now, id));
    }

    /// Removes a peer for which no message waits any more, or which has disconnected.
    pub fn remove(&mut self, id: PeerId) {
        let Some(slow) = self.by_id.remove(&id) else { return };
        self.due.remove(&(slow.due, id));
        while let Some((since, last)) = self.order.back()
            && self.by_id.get(last).is_none_or(|slow| slow.since != *since)
        {
            self.order.pop_back();
        }
        if self.by_id.is_empty() {
            self.order = VecDeque::new();
            self.over_limit = Vec::new();
        }
    }

    /// Records that more messages wait for the peer than allowed.
    pub fn mark_over_limit(&mut self, id: PeerId) {
        self.over_limit.push(id);
    }

    pub fn take_over_limit(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.over_limit)
    }

    /// Returns whether a queue has become full so recently that the fan-out waits for it.
    pub fn must_wait(&self) -> bool {
        self.order.back().is_some_and(|(since, _)| since.elapsed() < WAITED_FOR)
    }

    /// The next peer that has to be checked. The caller then has to put it off or remove it.
    pub fn overdue(&self, now: Instant) -> Option<PeerId> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, id)| *id)
    }

    /// Postpones the next check of the peer until `due`.
    pub fn postpone(&mut self, id: PeerId, due: Instant) {
        if let Some(slow) = self.by_id.get_mut(&id) {
            self.due.remove(&(slow.due, id));
            slow.due = due;
            self.due.insert((due, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_the_order_belongs_to_a_slow_peer() {
        let mut slow = SlowClients::default();
        for id in 0..5 {
            slow.add(PeerId(id), Duration::ZERO);
        }
        assert!(slow.must_wait());
        for id in [3, 4, 1] {
            slow.remove(PeerId(id));
        }
        assert_eq!(slow.order.back().map(|(_, id)| *id), Some(PeerId(2)));
        slow.remove(PeerId(2));
        slow.remove(PeerId(0));
        assert!(!slow.must_wait() && slow.is_empty() && slow.due.is_empty());
    }

    #[test]
    fn a_peer_is_overdue_when_its_patience_has_passed() {
        let mut slow = SlowClients::default();
        let patience = Duration::from_secs(3600);
        slow.add(PeerId(1), patience);
        slow.add(PeerId(2), patience);
        let later = Instant::now() + patience;
        assert_eq!(slow.overdue(Instant::now()), None);
        assert_eq!(slow.overdue(later), Some(PeerId(1)));
        slow.postpone(PeerId(1), later + patience);
        assert_eq!(slow.overdue(later), Some(PeerId(2)));
        slow.remove(PeerId(2));
        assert_eq!(slow.overdue(later), None);
        assert_eq!(slow.overdue(later + patience), Some(PeerId(1)));
    }
}
