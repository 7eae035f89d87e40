//! The pressed peers: those whose queue was full and for which messages wait. Nothing here scans all of them. A peer reports
//! when its queue has room again, and each peer is checked once per period of patience. The cost is therefore proportional
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

/// The list in which peers report that their queue has room again, after it was full. All clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Relief(Arc<Mutex<Vec<PeerId>>>);

impl Relief {
    /// Reports that this peer's queue has room again. The caller may hold the fan-out's lock or not.
    pub fn has_room(&self, id: PeerId) {
        self.0.lock().push(id);
    }

    pub(super) fn take(&self) -> Vec<PeerId> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[derive(Debug)]
pub(super) struct Pressure {
    since: Instant,
    /// When the queue last accepted a message. A client that reads frees its queue in large steps: a polling client with each
    /// of its requests, a WebSocket client whenever a third of its kernel buffer is empty.
    pub took: Instant,
    /// When the peer has to be checked again, see [`Pressed::overdue`].
    due: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Pressed {
    of: ShrinkingMap<PeerId, Pressure>,
    /// Peers in the order in which their queues became full. The last entry always belongs to a peer that is still pressed.
    order: VecDeque<(Instant, PeerId)>,
    /// Peers by the time at which they have to be checked.
    due: BTreeSet<(Instant, PeerId)>,
    /// Peers for which too many messages wait.
    too_far: Vec<PeerId>,
}

impl Pressed {
    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub fn contains(&self, id: PeerId) -> bool {
        self.of.contains_key(&id)
    }

    pub fn ids(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.of.keys().copied()
    }

    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut Pressure> {
        self.of.get_mut(&id)
    }

    /// Records that the peer's queue is full.
    pub fn add(&mut self, id: PeerId, patience: Duration) {
        if self.of.contains_key(&id) {
            return;
        }
        let now = Instant::now();
        let due = now + patience;
        self.of.insert(id, Pressure { since: now, took: now, due });
        self.due.insert((due, id));
        while self.order.front().is_some_and(|(since, _)| since.elapsed() >= WAITED_FOR) {
            self.order.pop_front();
        }
        self.order.push_back((now, id));
    }

    /// Removes a peer for which no message waits any more, or which has disconnected.
    pub fn remove(&mut self, id: PeerId) {
        let Some(pressure) = self.of.remove(&id) else { return };
        self.due.remove(&(pressure.due, id));
        while let Some((since, last)) = self.order.back()
            && self.of.get(last).is_none_or(|pressure| pressure.since != *since)
        {
            self.order.pop_back();
        }
        if self.of.is_empty() {
            self.order = VecDeque::new();
            self.too_far = Vec::new();
        }
    }

    /// Records that more messages wait for the peer than allowed.
    pub fn is_too_far(&mut self, id: PeerId) {
        self.too_far.push(id);
    }

    pub fn take_too_far(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.too_far)
    }

    /// Returns whether a queue has become full so recently that the fan-out waits for it.
    pub fn waits(&self) -> bool {
        self.order.back().is_some_and(|(since, _)| since.elapsed() < WAITED_FOR)
    }

    /// The next peer that has to be checked. The caller then has to put it off or remove it.
    pub fn overdue(&self, now: Instant) -> Option<PeerId> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, id)| *id)
    }

    /// Postpones the next check of the peer until `due`.
    pub fn put_off(&mut self, id: PeerId, due: Instant) {
        if let Some(pressure) = self.of.get_mut(&id) {
            self.due.remove(&(pressure.due, id));
            pressure.due = due;
            self.due.insert((due, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_the_order_belongs_to_a_pressed_peer() {
        let mut pressed = Pressed::default();
        for id in 0..5 {
            pressed.add(PeerId(id), Duration::ZERO);
        }
        assert!(pressed.waits());
        for id in [3, 4, 1] {
            pressed.remove(PeerId(id));
        }
        assert_eq!(pressed.order.back().map(|(_, id)| *id), Some(PeerId(2)));
        pressed.remove(PeerId(2));
        pressed.remove(PeerId(0));
        assert!(!pressed.waits() && pressed.is_empty() && pressed.due.is_empty());
    }

    #[test]
    fn a_peer_is_overdue_when_its_patience_has_passed() {
        let mut pressed = Pressed::default();
        let patience = Duration::from_secs(3600);
        pressed.add(PeerId(1), patience);
        pressed.add(PeerId(2), patience);
        let later = Instant::now() + patience;
        assert_eq!(pressed.overdue(Instant::now()), None);
        assert_eq!(pressed.overdue(later), Some(PeerId(1)));
        pressed.put_off(PeerId(1), later + patience);
        assert_eq!(pressed.overdue(later), Some(PeerId(2)));
        pressed.remove(PeerId(2));
        assert_eq!(pressed.overdue(later), None);
        assert_eq!(pressed.overdue(later + patience), Some(PeerId(1)));
    }
}
