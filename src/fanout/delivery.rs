//! Getting packets to one peer in order, without losing one and without waiting for it.

use std::collections::{HashSet, VecDeque};

use serde::Serialize;

use crate::{
    feed::Position,
    protocol::{Packet, emitted, event},
    task::{Counts, TaskId},
};

use super::{Fanout, Peer, PeerId, SendError};

/// So many answers wait beside the largest handoff.
const MAX_UNREAD_ANSWERS: usize = 1024;

/// Peers whose queue was full; what came later waits for them.
pub(super) type Pressed = HashSet<PeerId>;

/// A peer's queue, and what did not fit into it. The pump waits for peers that are pressed, so the overflow is
/// bounded by what one turn sends.
#[derive(Debug)]
pub(super) struct Outbox<P> {
    pub peer: P,
    overflow: VecDeque<Packet>,
}

impl<P: Peer> Outbox<P> {
    pub fn new(peer: P) -> Self {
        Self { peer, overflow: VecDeque::new() }
    }

    pub fn deliver(&mut self, id: PeerId, packet: &Packet, pressed: &mut Pressed) {
        if !self.overflow.is_empty() {
            self.overflow.push_back(packet.clone());
        } else if let Err(SendError::Full(packet)) = self.peer.send(packet.clone()) {
            self.overflow.push_back(packet);
            pressed.insert(id);
        }
    }

    /// Whether nothing waits any more.
    fn drain(&mut self) -> bool {
        while let Some(packet) = self.overflow.pop_front() {
            if let Err(SendError::Full(packet)) = self.peer.send(packet) {
                self.overflow.push_front(packet);
                return false;
            }
        }
        true
    }
}

impl<P: Peer> Fanout<P> {
    /// Sends one packet to one peer: an ack, a refusal. A client that asks on and on without reading the answers
    /// is cut: on a quiet node no change comes that would make the pump look after it.
    pub fn reply(&mut self, id: PeerId, packet: &Packet) {
        let most = MAX_UNREAD_ANSWERS.saturating_add(self.limits.replay_events.saturating_mul(2));
        let Some(joined) = self.peers.get_mut(&id) else { return };
        joined.outbox.deliver(id, packet, &mut self.pressed);
        if joined.outbox.overflow.len() > most {
            self.pressed.remove(&id);
            self.cut(id);
        }
    }

    /// Moves what waits into queues that have room again. Whether nobody is pressed any more.
    pub fn relieve(&mut self) -> bool {
        let peers = &mut self.peers;
        self.pressed.retain(|id| peers.get_mut(id).is_some_and(|joined| !joined.outbox.drain()));
        self.pressed.is_empty()
    }

    pub fn is_pressed(&self, id: PeerId) -> bool {
        self.pressed.contains(&id)
    }

    /// Cuts whoever is still pressed: it reconnects and asks for its state again. How many there were.
    pub fn cut_pressed(&mut self) -> usize {
        let pressed: Vec<PeerId> = self.pressed.drain().collect();
        for id in &pressed {
            self.cut(*id);
        }
        pressed.len()
    }

    /// It gets nothing more, but has left nothing: [`Fanout::remove_peer`] still tells that it had the dashboard.
    fn cut(&mut self, id: PeerId) {
        self.suspend(id);
        if let Some(joined) = self.peers.get_mut(&id) {
            joined.outbox.overflow.clear();
            joined.outbox.peer.cut();
        }
    }
}

#[derive(Serialize)]
struct CountsChanged {
    #[serde(flatten)]
    counts: Counts,
    #[serde(rename = "eventId")]
    event_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Deleted<'a> {
    task_id: &'a TaskId,
    event_id: String,
}

pub(super) fn deleted_packet(task: &TaskId, at: Position) -> Packet {
    event(emitted::TASK_DELETED, &Deleted { task_id: task, event_id: at.to_string() })
}

pub(super) fn counts_packet(counts: Counts, position: Position) -> Packet {
    let payload = CountsChanged { counts, event_id: position.to_string() };
    event(emitted::DASHBOARD_TASK_COUNT_CHANGED, &payload)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{
        fanout::Limits,
        task::{UserId, Viewer},
    };

    /// A client that reads nothing.
    #[derive(Clone, Default)]
    struct Deaf(Arc<AtomicBool>);

    impl Peer for Deaf {
        fn send(&self, packet: Packet) -> Result<(), SendError> {
            Err(SendError::Full(packet))
        }

        fn cut(&self) {
            self.0.store(true, Ordering::Relaxed);
        }

        fn refresh(&self) {}
    }

    /// On a quiet node nothing makes the pump look after full queues, and a refusal for every seven bytes of
    /// nonsense would fill the memory.
    #[test]
    fn answers_that_nobody_reads_are_bounded() {
        let mut fanout = Fanout::new(Limits { ring_bytes: 1000, replay_events: 16 });
        let (id, peer) = (PeerId(1), Deaf::default());
        let viewer = Viewer { user: UserId::parse("u").unwrap(), org: None };
        fanout.add_peer(id, peer.clone(), viewer);
        for _ in 0..MAX_UNREAD_ANSWERS {
            fanout.reply(id, &Packet::from("answer"));
        }
        assert!(fanout.is_pressed(id) && !peer.0.load(Ordering::Relaxed), "a burst is no fault");
        for _ in 0..MAX_UNREAD_ANSWERS {
            fanout.reply(id, &Packet::from("answer"));
        }
        assert!(peer.0.load(Ordering::Relaxed));
        assert!(fanout.peers[&id].outbox.overflow.len() <= MAX_UNREAD_ANSWERS + 32);
    }
}
