//! The exact handoff from a snapshot to live events. In one turn, a join sends a state with its position, replays the
//! events after that position, and enters the rooms.
//!
//! The snapshot may be behind the fan-out; then the ring has the events in between. The snapshot may also be ahead of the
//! fan-out; then the mark of the member suppresses the events that the state contains.

use super::{
    Peer, PeerId,
    clients::Clients,
    kind::{Effect, Key, Kind, Mark},
    members::Members,
    stream::{Room, Stream},
};
use crate::{feed::Position, metrics::HandoffKind, task::Viewer, wire::Message};

/// The result of a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnterOutcome {
    /// The client is a member, or it has disconnected meanwhile and nothing is left to do.
    Entered,
    /// There is nothing here for this viewer. A client that was a member has got an event that says so, and is no longer a
    /// member. If the caller tries again, it must not use the old `since`.
    Gone,
    /// The snapshot is too old, or the visibility has changed since. The caller has to read again.
    Reread,
}

impl From<EnterOutcome> for HandoffKind {
    fn from(outcome: EnterOutcome) -> Self {
        match outcome {
            EnterOutcome::Entered => Self::State,
            EnterOutcome::Gone => Self::Gone,
            EnterOutcome::Reread => Self::Reread,
        }
    }
}

/// Rooms that a client enters together, because they have the same events. It gets each event once.
#[derive(Debug)]
pub(super) struct Offer<'a, K: Kind> {
    pub keys: &'a [Key<K>],
    /// The rooms as the snapshot shows them.
    pub subject: &'a K::Subject,
    /// The position of the snapshot.
    pub at: Position,
}

impl<K: Kind> Stream<K> {
    /// Sends the state and the events after it, and enters the rooms.
    pub(super) fn enter<P: Peer>(
        &mut self,
        id: PeerId,
        offer: &Offer<'_, K>,
        state: &Message,
        clients: &mut Clients<P>,
    ) -> EnterOutcome {
        let Some(viewer) = clients.viewer(id) else { return EnterOutcome::Entered };
        if !self.ring.holds(offer.at) {
            return EnterOutcome::Reread;
        }
        let Some(events) = self.replay(offer, viewer, offer.at) else { return EnterOutcome::Reread };
        let messages = std::iter::once(state.clone()).chain(events);
        self.enter_rooms(id, offer, Mark::of_state(offer.at), messages, clients);
        EnterOutcome::Entered
    }

    /// Enters the rooms with only the events after `since`, if the ring holds all of them and this viewer could see them.
    /// Returns false if the client needs a state instead.
    pub(super) fn recover<P: Peer>(
        &mut self,
        id: PeerId,
        offer: &Offer<'_, K>,
        since: Position,
        clients: &mut Clients<P>,
    ) -> bool {
        let Some(viewer) = clients.viewer(id) else { return true };
        if since > offer.at || !self.ring.holds(since) {
            return false;
        }
        if self.ring.of_any(offer.keys, since).any(|step| !K::concerns(offer.subject, step)) {
            // The client may have a state of something else.
            return false;
        }
        if offer.keys.iter().all(|key| self.is_member(id, key, offer.subject)) {
            // The join that made this connection a member has already sent the events that it missed.
            return true;
        }
        let Some(events) = self.replay(offer, viewer, since) else { return false };
        let mark = Mark { at: since, unproven: offer.at };
        self.enter_rooms(id, offer, mark, events.into_iter(), clients);
        true
    }

    fn is_member(&self, id: PeerId, key: &Key<K>, subject: &K::Subject) -> bool {
        let room = self.rooms.get(key);
        room.is_some_and(|room| K::is_same(&room.subject, subject) && room.members.get(id).is_some())
    }

    /// The events of the rooms after `after`. Returns `None` if there are too many, or if the viewer would not have stayed a
    /// member all the time. The events of that time must not leak, and only a new snapshot shows the current state.
    fn replay(&self, offer: &Offer<'_, K>, viewer: &Viewer, after: Position) -> Option<Vec<Message>> {
        let mut messages = Vec::new();
        let Some(key) = offer.keys.first() else { return Some(messages) };
        let mark = Mark::replay_after(after);
        for step in self.ring.of_any(offer.keys, after).filter(|step| K::concerns(offer.subject, step)) {
            let Effect::Deliver(events) = K::effects(step, key)(viewer, &mark) else { return None };
            let later = events.iter().filter(|event| event.position > after);
            messages.extend(later.map(|event| event.message.clone()));
            if messages.len() > self.replay_events {
                return None;
            }
        }
        Some(messages)
    }

    fn enter_rooms<P: Peer>(
        &mut self,
        id: PeerId,
        offer: &Offer<'_, K>,
        mark: Mark,
        messages: impl Iterator<Item = Message>,
        clients: &mut Clients<P>,
    ) {
        let Some(mut client) = clients.get_mut(id) else { return };
        for message in messages {
            client.deliver(&message);
        }
        for key in offer.keys {
            self.join(id, key);
            self.end_other(key, offer.subject, clients);
            let room = self.rooms.entry(key.clone()).or_insert_with(|| {
                let mut subject = offer.subject.clone();
                if let Some(last) = self.ring.of(key, offer.at).rfind(|step| K::concerns(&subject, step)) {
                    K::update(&mut subject, last);
                }
                Room { subject, members: Members::default() }
            });
            if room.members.insert(id, mark) {
                self.kind.entered(id, key);
            }
        }
    }

    /// The store now returns something else for this key. Members that followed the previous thing enter their rooms again.
    fn end_other<P: Peer>(&mut self, key: &Key<K>, subject: &K::Subject, clients: &mut Clients<P>) {
        if self.rooms.get(key).is_some_and(|room| !K::is_same(&room.subject, subject))
            && let Some(room) = self.rooms.remove(key)
        {
            for id in room.members.ids() {
                if let Some(client) = clients.get_mut(id) {
                    client.refresh(K::NAME);
                }
                self.kind.left(id, key);
            }
        }
    }
}
