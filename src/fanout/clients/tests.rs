//! Clients that do not read, or read slowly.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::{fanout::SendError, task::UserId};

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

    fn refresh(&self, _: &'static str) {}
}

/// A client whose queue accepts two messages, then none until it has been read. The second number counts all offers.
#[derive(Clone, Default)]
struct Narrow(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Narrow {
    fn read(&self, id: PeerId, clients: &Clients<Self>) {
        self.0.store(0, Ordering::Relaxed);
        clients.space_reports().report_space(id);
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

    fn refresh(&self, _: &'static str) {}
}

#[test]
fn a_message_is_counted_once_when_it_is_in_the_queue() {
    let mut clients = Clients::new(Limits {
        ring_bytes: 1000,
        replay_events: 16,
        patience: Duration::from_secs(10),
        behind_messages: 16,
    });
    let (id, peer) = (PeerId(1), Narrow::default());
    clients.add(id, peer.clone(), Viewer { user: UserId::parse("u").unwrap(), org: None });
    for _ in 0..3 {
        clients.reply(id, &Message::reply(0, &12345));
    }
    let sent = |clients: &mut Clients<Narrow>| {
        let Sent { messages, bytes, to_flush } = clients.take_sent();
        (messages, bytes, to_flush.len())
    };
    assert_eq!(sent(&mut clients), (2, 10, 2));
    assert_eq!(clients.behind(), (1, 1));
    peer.read(id, &clients);
    assert!(clients.send_waiting());
    assert_eq!(sent(&mut clients), (1, 5, 1));
    assert_eq!((sent(&mut clients), clients.behind()), ((0, 0, 0), (0, 0)));
}

/// Many clients are slow at once, and read one after the other.
#[test]
fn a_peer_without_room_is_not_offered_messages() {
    const CLIENTS: usize = 500;
    const MESSAGES: usize = 6;
    let mut clients = Clients::new(Limits {
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
        clients.add(*id, peer.clone(), viewer.clone());
        (0..MESSAGES).for_each(|_| clients.reply(*id, &Message::reply(0, &12345)));
    }
    assert!(clients.must_wait() && !clients.send_waiting());
    let mut rounds = 0;
    while clients.any_is_slow() {
        for (id, peer) in &peers {
            peer.read(*id, &clients);
            clients.send_waiting();
            assert_eq!(clients.cut_slow(), 0);
            rounds += 1;
        }
    }
    assert!(!clients.must_wait());
    let sent = clients.take_sent();
    assert_eq!(sent.messages as usize, CLIENTS * MESSAGES);
    // Each message is offered once, and once more when there was no room for it.
    let offered = offered.load(Ordering::Relaxed);
    assert!(offered <= CLIENTS * MESSAGES + CLIENTS + rounds, "{offered} offers, {rounds} rounds");
}

/// A peer that does not report its room is checked once more before it would be disconnected.
#[test]
fn a_peer_with_room_is_not_disconnected() {
    let limits =
        Limits { ring_bytes: 1000, replay_events: 16, patience: Duration::ZERO, behind_messages: 16 };
    let mut clients = Clients::new(limits);
    let (id, peer) = (PeerId(1), Narrow::default());
    clients.add(id, peer.clone(), Viewer { user: UserId::parse("u").unwrap(), org: None });
    (0..3).for_each(|_| clients.reply(id, &Message::reply(0, &12345)));
    peer.0.store(0, Ordering::Relaxed);
    assert!(!clients.send_waiting());
    assert_eq!((clients.cut_slow(), clients.any_is_slow()), (0, false));
    assert_eq!(clients.take_sent().messages, 3);
}

/// No feed loop runs here. Without a limit, a refusal for every seven bytes of invalid input would fill the memory.
#[test]
fn answers_that_a_client_does_not_read_are_limited() {
    let mut clients = Clients::new(Limits {
        ring_bytes: 1000,
        replay_events: 16,
        patience: Duration::ZERO,
        behind_messages: 0,
    });
    let (id, peer) = (PeerId(1), Deaf::default());
    let viewer = Viewer { user: UserId::parse("u").unwrap(), org: None };
    clients.add(id, peer.clone(), viewer);
    for _ in 0..MAX_UNREAD_ANSWERS {
        clients.reply(id, &Message::reply(0, &"answer"));
    }
    assert!(clients.is_slow(id) && !peer.0.load(Ordering::Relaxed), "a burst is allowed");
    for _ in 0..MAX_UNREAD_ANSWERS {
        clients.reply(id, &Message::reply(0, &"answer"));
    }
    assert!(peer.0.load(Ordering::Relaxed));
    assert_eq!(clients.take_cut(), [id]);
    assert!(clients.overflows().all(|(_, waiting)| waiting <= MAX_UNREAD_ANSWERS + 32));
}
