//! One stream of events of one kind: its rooms with their members, and the events that each step sends to them. Streams are
//! independent: each has its own position, and a gap in one leaves the rooms of the others as they are.

use std::time::{Duration, Instant};

use super::{
    Limits, Peer, PeerId,
    clients::Clients,
    kind::{Effect, FanoutStep, Key, Kind},
    members::Members,
    peer::PeerMap,
    ring::Ring,
};
use crate::{
    feed::Position,
    shrinking_map::{ShrinkingMap, ShrinkingSet},
};

/// A feed that has reported nothing for this long may be behind the store.
const CURRENT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Stream<K: Kind> {
    pub(super) kind: K,
    /// Everything up to this position has been sent to the members of the rooms.
    position: Position,
    /// When the feed last reported a position.
    heard: Option<Instant>,
    pub(super) ring: Ring<K::Step>,
    pub(super) rooms: ShrinkingMap<Key<K>, Room<K>>,
    /// The rooms that each client has joined. The client is a member of the room, or has to enter it again because it may have
    /// missed events since its last state.
    joined: PeerMap<ShrinkingSet<Key<K>>>,
    /// A client gets a state instead of a replay that has more events.
    pub(super) replay_events: usize,
}

/// A room with members. Empty rooms are removed.
#[derive(Debug)]
pub(super) struct Room<K: Kind> {
    pub subject: K::Subject,
    pub members: Members,
}

impl<K: Kind> Stream<K> {
    pub(super) fn new(kind: K, limits: Limits) -> Self {
        Self {
            kind,
            position: Position::ZERO,
            heard: None,
            ring: Ring::new(limits.ring_bytes),
            rooms: ShrinkingMap::default(),
            joined: PeerMap::default(),
            replay_events: limits.replay_events,
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns whether the feed has reported a position a moment ago.
    pub(super) fn is_current(&self) -> bool {
        self.heard.is_some_and(|heard| heard.elapsed() < CURRENT)
    }

    /// Every change after `position` follows.
    pub fn open(&mut self, position: Position) {
        self.ring.open(position);
        self.position = position;
    }

    /// Changes may have been missed. No client gets another event of this stream before it has a new state.
    pub fn gap<P: Peer>(&mut self, clients: &mut Clients<P>) {
        self.ring.close();
        self.rooms = ShrinkingMap::default();
        self.kind.gap();
        for id in self.joined.keys() {
            if let Some(client) = clients.get_mut(*id) {
                client.refresh(K::NAME);
            }
        }
    }

    /// No other change happened up to `position`.
    pub fn advance(&mut self, position: Position) {
        self.position = self.position.max(position);
        self.heard = Some(Instant::now());
    }

    /// Sends the events of a step to the members of its rooms.
    pub fn apply<P: Peer>(&mut self, step: K::Step, clients: &mut Clients<P>) {
        let keys: Vec<Key<K>> = step.keys().collect();
        for (n, key) in keys.iter().enumerate() {
            self.send_to_room(&step, key, &keys[..n], clients);
        }
        self.kind.applied(&step);
        self.position = self.position.max(step.position());
        self.ring.push(step, keys);
    }

    /// `earlier` are the rooms that have got the step already.
    fn send_to_room<P: Peer>(
        &mut self,
        step: &K::Step,
        key: &Key<K>,
        earlier: &[Key<K>],
        clients: &mut Clients<P>,
    ) {
        match self.rooms.get_mut(key) {
            Some(room) if K::concerns(&room.subject, step) => K::update(&mut room.subject, step),
            _ => return,
        }
        let same = |other: &&Key<K>| K::have_same_events(other, key);
        let same: Vec<&Room<K>> =
            earlier.iter().filter(same).filter_map(|other| self.rooms.get(other)).collect();
        let Some(room) = self.rooms.get(key) else { return };
        let effect_on = K::effects(step, key);
        let (mut ended, mut suspended) = (Vec::new(), Vec::new());
        for (id, mark) in room.members.iter() {
            let Some(mut client) = clients.get_mut(id) else { continue };
            match effect_on(client.viewer(), mark) {
                Effect::Deliver(events) => {
                    let delivered_after = delivered_after(id, &same);
                    for event in events {
                        if event.position > mark.at
                            && delivered_after.is_none_or(|after| event.position <= after)
                        {
                            client.deliver(&event.message);
                        }
                    }
                }
                Effect::End(event) => {
                    client.deliver(&event.message);
                    ended.push(id);
                }
                Effect::EnterAgain => {
                    client.refresh(K::NAME);
                    suspended.push(id);
                }
            }
        }
        for id in ended {
            self.leave(id, key);
        }
        for id in suspended {
            self.remove_member(id, key);
        }
    }

    /// The rooms that a client has joined.
    pub(super) fn joined(&self, id: PeerId) -> impl Iterator<Item = &Key<K>> {
        self.joined.get(&id).into_iter().flatten()
    }

    pub(super) fn has_joined(&self, id: PeerId, key: &Key<K>) -> bool {
        self.joined.get(&id).is_some_and(|keys| keys.contains(key))
    }

    /// Records that a client has joined a room.
    pub(super) fn join(&mut self, id: PeerId, key: &Key<K>) {
        self.joined.entry(id).or_default().insert(key.clone());
    }

    pub(super) fn leave(&mut self, id: PeerId, key: &Key<K>) {
        if let Some(keys) = self.joined.get_mut(&id) {
            keys.remove(key);
            if keys.is_empty() {
                self.joined.remove(&id);
            }
        }
        self.remove_member(id, key);
    }

    fn remove_member(&mut self, id: PeerId, key: &Key<K>) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        if room.members.remove(id) {
            if room.members.is_empty() {
                self.rooms.remove(key);
            }
            self.kind.left(id, key);
        }
    }
}

/// The position after which one of these rooms has already delivered the events of the step to this client.
fn delivered_after<K: Kind>(id: PeerId, rooms: &[&Room<K>]) -> Option<Position> {
    rooms.iter().filter_map(|room| room.members.get(id)).map(|mark| mark.at).min()
}

/// What the fan-out does with a client in the streams of every kind.
pub(super) trait EveryKind {
    fn name(&self) -> &'static str;

    /// Removes the client from all rooms, but keeps the list of rooms that it has joined.
    fn suspend(&mut self, id: PeerId);

    /// Removes the client from all rooms.
    fn leave_all(&mut self, id: PeerId);
}

impl<K: Kind> EveryKind for Stream<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn suspend(&mut self, id: PeerId) {
        let keys: Vec<Key<K>> = self.joined(id).cloned().collect();
        for key in keys {
            self.remove_member(id, &key);
        }
    }

    fn leave_all(&mut self, id: PeerId) {
        for key in self.joined.remove(&id).iter().flatten() {
            self.remove_member(id, key);
        }
    }
}

#[cfg(test)]
impl<K: Kind> Stream<K> {
    pub(super) fn has_nobody(&self) -> bool {
        self.rooms.is_empty() && self.joined.is_empty()
    }
}
