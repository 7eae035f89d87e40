//! Sends messages to each peer in order, without losing any and without waiting for slow peers.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    feed::Position,
    task::{Counts, TaskId},
    wire::{Message, emitted},
};

use super::{
    Fanout, Limits, Peer, PeerId, SendError,
    pressed::{Pressed, Pressure, Relief},
};

/// How many answers may wait for a client, in addition to the largest handoff.
const MAX_UNREAD_ANSWERS: usize = 1024;

/// The state that all deliveries share.
#[derive(Debug)]
pub(super) struct Sending<P> {
    /// Peers whose queue was full. Later messages for them wait in their overflow.
    pub pressed: Pressed,
    /// The list in which peers report that their queue has room again.
    pub relief: Relief,
    patience: Duration,
    behind_messages: usize,
    sent: Sent<P>,
}

/// The messages that have been put into queues. The numbers are plain, because they change with each message for each peer.
#[derive(Debug)]
pub struct Sent<P> {
    pub messages: u64,
    pub bytes: u64,
    /// The peers that have to be flushed, each once.
    pub waiting: Vec<P>,
}

impl<P> Sending<P> {
    pub fn new(limits: &Limits) -> Self {
        Self {
            pressed: Pressed::default(),
            relief: Relief::default(),
            patience: limits.patience,
            behind_messages: limits.behind_messages,
            sent: Sent::default(),
        }
    }
}

impl<P> Default for Sent<P> {
    fn default() -> Self {
        Self { messages: 0, bytes: 0, waiting: Vec::new() }
    }
}

impl<P: Peer> Sent<P> {
    fn count(&mut self, bytes: usize, peer: &P, flush: bool) {
        self.messages += 1;
        self.bytes += bytes as u64;
        if flush {
            self.waiting.push(peer.clone());
        }
    }
}

/// A peer, and the messages that did not fit into its queue. The pump waits for a full queue for a moment, and then continues
/// without that peer. The overflow has a limit.
#[derive(Debug)]
pub(super) struct Outbox<P> {
    pub peer: P,
    pub overflow: VecDeque<Message>,
}

impl<P: Peer> Outbox<P> {
    pub fn new(peer: P) -> Self {
        Self { peer, overflow: VecDeque::new() }
    }

    pub fn deliver(&mut self, id: PeerId, message: &Message, sending: &mut Sending<P>) {
        if !self.overflow.is_empty() {
            self.overflow.push_back(message.clone());
            // This is recorded once, when the overflow exceeds its limit.
            if self.overflow.len() == sending.behind_messages.saturating_add(1) {
                sending.pressed.is_too_far(id);
            }
            return;
        }
        match self.peer.send(message.clone()) {
            Ok(flush) => sending.sent.count(message.size(), &self.peer, flush),
            Err(SendError::Full(message)) => {
                self.overflow.push_back(message);
                sending.pressed.add(id, sending.patience);
                if sending.behind_messages == 0 {
                    sending.pressed.is_too_far(id);
                }
            }
            Err(SendError::Closed) => {}
        }
    }

    /// Moves the overflow into the queue, as far as it fits. Returns whether the overflow is empty.
    fn drain(&mut self, pressure: &mut Pressure, sent: &mut Sent<P>) -> bool {
        while let Some(message) = self.overflow.pop_front() {
            let bytes = message.size();
            match self.peer.send(message) {
                Ok(flush) => sent.count(bytes, &self.peer, flush),
                Err(SendError::Full(message)) => {
                    self.overflow.push_front(message);
                    return false;
                }
                Err(SendError::Closed) => {}
            }
            pressure.took = Instant::now();
        }
        true
    }
}

impl<P: Peer> Fanout<P> {
    /// Sends one message to one peer, such as an ack or a refusal. A client that keeps asking without reading the answers is
    /// disconnected at once, without waiting for the pump.
    pub fn reply(&mut self, id: PeerId, message: &Message) {
        let handoff = self.limits.replay_events.saturating_mul(2);
        let most = MAX_UNREAD_ANSWERS.saturating_add(handoff).saturating_add(self.limits.behind_messages);
        let Some(joined) = self.peers.get_mut(&id) else { return };
        joined.outbox.deliver(id, message, &mut self.sending);
        if joined.outbox.overflow.len() > most {
            self.cut(id);
        }
    }

    /// The list in which peers report that their queue has room again.
    pub fn relief(&self) -> Relief {
        self.sending.relief.clone()
    }

    /// Moves waiting messages into the queues of the peers that have reported room. Returns whether no peer is pressed any more.
    pub fn relieve(&mut self) -> bool {
        for id in self.sending.relief.take() {
            self.drain(id);
        }
        self.sending.pressed.is_empty()
    }

    /// The messages that have been put into queues since the last call.
    pub fn take_sent(&mut self) -> Sent<P> {
        std::mem::take(&mut self.sending.sent)
    }

    pub fn is_pressed(&self, id: PeerId) -> bool {
        self.sending.pressed.contains(id)
    }

    pub fn anyone_pressed(&self) -> bool {
        !self.sending.pressed.is_empty()
    }

    /// Returns whether the pump has to wait for a full queue before it sends anything else. The wait slows a burst down to the
    /// speed of the clients that read it. A client that needs longer is behind and does not delay the others.
    pub fn waits(&self) -> bool {
        self.sending.pressed.waits()
    }

    /// Disconnects clients that have accepted nothing for too long, or that are too far behind. They reconnect and ask for
    /// their state again. Returns the number of these clients.
    pub fn cut_pressed(&mut self) -> usize {
        let Limits { patience, behind_messages, .. } = self.limits;
        let mut cut = 0;
        for id in self.sending.pressed.take_too_far() {
            // The client may have caught up meanwhile.
            if self.peers.get(&id).is_some_and(|joined| joined.outbox.overflow.len() > behind_messages) {
                self.cut(id);
                cut += 1;
            }
        }
        let now = Instant::now();
        while let Some(id) = self.sending.pressed.overdue(now) {
            self.drain(id);
            let Some(pressure) = self.sending.pressed.get_mut(id) else { continue };
            let took = pressure.took;
            let moved = self.peers.get(&id).and_then(|joined| joined.outbox.peer.took());
            match moved.map_or(took, |moved| moved.max(took)) + patience {
                due if due <= now => {
                    self.cut(id);
                    cut += 1;
                }
                due => self.sending.pressed.put_off(id, due),
            }
        }
        cut
    }

    /// Moves the messages that wait for a pressed peer into its queue, as far as they fit.
    fn drain(&mut self, id: PeerId) {
        let Sending { pressed, sent, .. } = &mut self.sending;
        let Some(pressure) = pressed.get_mut(id) else { return };
        let joined = self.peers.get_mut(&id);
        if joined.is_none_or(|joined| joined.outbox.drain(pressure, sent)) {
            pressed.remove(id);
        }
    }

    /// Disconnects the peer. The peer gets no more messages, but keeps its list of rooms, so that [`Fanout::remove_peer`] still
    /// returns whether it had the dashboard.
    fn cut(&mut self, id: PeerId) {
        self.sending.pressed.remove(id);
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

pub(super) fn deleted_message(task: &TaskId, at: Position) -> Message {
    Message::event(emitted::TASK_DELETED, &Deleted { task_id: task, event_id: at.to_string() })
}

pub(super) fn counts_message(counts: Counts, position: Position) -> Message {
    let payload = CountsChanged { counts, event_id: position.to_string() };
    Message::event(emitted::DASHBOARD_TASK_COUNT_CHANGED, &payload)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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
        fn send(&self, message: Message) -> Result<bool, SendError> {
            Err(SendError::Full(message))
        }

        fn cut(&self) {
            self.0.store(true, Ordering::Relaxed);
        }

        fn refresh(&self) {}
    }

    /// A client whose queue accepts two messages, then none until it has been read. The second number counts all offers.
    #[derive(Clone, Default)]
    struct Narrow(Arc<AtomicUsize>, Arc<AtomicUsize>);

    impl Narrow {
        fn read(&self, id: PeerId, fanout: &Fanout<Self>) {
            self.0.store(0, Ordering::Relaxed);
            fanout.relief().has_room(id);
        }
    }

    impl Peer for Narrow {
        fn send(&self, message: Message) -> Result<bool, SendError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            if self.0.load(Ordering::Relaxed) == 2 {
                return Err(SendError::Full(message));
            }
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(true)
        }

        fn cut(&self) {}

        fn refresh(&self) {}
    }

    #[test]
    fn a_message_is_counted_once_when_it_is_in_the_queue() {
        let mut fanout = Fanout::new(Limits {
            ring_bytes: 1000,
            replay_events: 16,
            patience: Duration::from_secs(10),
            behind_messages: 16,
        });
        let (id, peer) = (PeerId(1), Narrow::default());
        fanout.add_peer(id, peer.clone(), Viewer { user: UserId::parse("u").unwrap(), org: None });
        for _ in 0..3 {
            fanout.reply(id, &Message::reply(0, &12345));
        }
        let sent = |fanout: &mut Fanout<Narrow>| {
            let Sent { messages, bytes, waiting } = fanout.take_sent();
            (messages, bytes, waiting.len())
        };
        assert_eq!(sent(&mut fanout), (2, 10, 2));
        assert_eq!((fanout.fill().behind, fanout.fill().messages_behind), (1, 1));
        peer.read(id, &fanout);
        assert!(fanout.relieve());
        assert_eq!(sent(&mut fanout), (1, 5, 1));
        assert_eq!((sent(&mut fanout), fanout.fill().behind), ((0, 0, 0), 0));
    }

    /// Many clients are slow at once, and read one after the other.
    #[test]
    fn a_peer_without_room_is_not_offered_messages() {
        const CLIENTS: usize = 500;
        const MESSAGES: usize = 6;
        let mut fanout = Fanout::new(Limits {
            ring_bytes: 1000,
            replay_events: 16,
            patience: Duration::from_secs(3600),
            behind_messages: 16,
        });
        let offered = Arc::new(AtomicUsize::new(0));
        let viewer = Viewer { user: UserId::parse("u").unwrap(), org: None };
        let peers: Vec<(PeerId, Narrow)> =
            (0..CLIENTS).map(|n| (PeerId(n as u64), Narrow(Arc::default(), offered.clone()))).collect();
        for (id, peer) in &peers {
            fanout.add_peer(*id, peer.clone(), viewer.clone());
            (0..MESSAGES).for_each(|_| fanout.reply(*id, &Message::reply(0, &12345)));
        }
        assert!(fanout.waits() && !fanout.relieve());
        let mut relieved = 0;
        while fanout.anyone_pressed() {
            for (id, peer) in &peers {
                peer.read(*id, &fanout);
                fanout.relieve();
                assert_eq!(fanout.cut_pressed(), 0);
                relieved += 1;
            }
        }
        assert!(!fanout.waits());
        let sent = fanout.take_sent();
        assert_eq!(sent.messages as usize, CLIENTS * MESSAGES);
        // Each message is offered once, and once more when there was no room for it.
        let offered = offered.load(Ordering::Relaxed);
        assert!(
            offered <= CLIENTS * MESSAGES + CLIENTS + relieved,
            "{offered} offers, {relieved} times relieved"
        );
    }

    /// A peer that does not report its room is checked once more before it would be disconnected.
    #[test]
    fn a_peer_with_room_is_not_disconnected() {
        let limits =
            Limits { ring_bytes: 1000, replay_events: 16, patience: Duration::ZERO, behind_messages: 16 };
        let mut fanout = Fanout::new(limits);
        let (id, peer) = (PeerId(1), Narrow::default());
        fanout.add_peer(id, peer.clone(), Viewer { user: UserId::parse("u").unwrap(), org: None });
        (0..3).for_each(|_| fanout.reply(id, &Message::reply(0, &12345)));
        peer.0.store(0, Ordering::Relaxed);
        assert!(!fanout.relieve());
        assert_eq!((fanout.cut_pressed(), fanout.anyone_pressed()), (0, false));
        assert_eq!(fanout.take_sent().messages, 3);
    }

    /// No pump runs here. Without a limit, a refusal for every seven bytes of invalid input would fill the memory.
    #[test]
    fn answers_that_a_client_does_not_read_are_limited() {
        let mut fanout = Fanout::new(Limits {
            ring_bytes: 1000,
            replay_events: 16,
            patience: Duration::ZERO,
            behind_messages: 0,
        });
        let (id, peer) = (PeerId(1), Deaf::default());
        let viewer = Viewer { user: UserId::parse("u").unwrap(), org: None };
        fanout.add_peer(id, peer.clone(), viewer);
        for _ in 0..MAX_UNREAD_ANSWERS {
            fanout.reply(id, &Message::reply(0, &"answer"));
        }
        assert!(fanout.is_pressed(id) && !peer.0.load(Ordering::Relaxed), "a burst is allowed");
        for _ in 0..MAX_UNREAD_ANSWERS {
            fanout.reply(id, &Message::reply(0, &"answer"));
        }
        assert!(peer.0.load(Ordering::Relaxed));
        assert!(fanout.peers[&id].outbox.overflow.len() <= MAX_UNREAD_ANSWERS + 32);
    }
}
