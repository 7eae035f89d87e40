//! The messages for one client, in order. Those that do not fit into its queue wait beside it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    Limits, Peer, PeerId, SendError,
    slow_clients::{SlowClient, SlowClients, SpaceReports},
};
use crate::wire::Message;

/// The state that all deliveries share.
#[derive(Debug)]
pub(super) struct DeliveryState<P> {
    /// Peers whose queue was full. Later messages for them wait in their overflow.
    pub slow: SlowClients,
    /// The list in which peers report that their queue has space again.
    pub space_reports: SpaceReports,
    patience: Duration,
    behind_messages: usize,
    pub sent: Sent<P>,
}

/// The messages that have been put into queues. The numbers are plain, because they change with each message for each peer.
#[derive(Debug)]
pub struct Sent<P> {
    pub messages: u64,
    pub bytes: u64,
    /// The peers that have to be flushed, each once.
    pub to_flush: Vec<P>,
}

impl<P> DeliveryState<P> {
    pub fn new(limits: &Limits) -> Self {
        Self {
            slow: SlowClients::default(),
            space_reports: SpaceReports::default(),
            patience: limits.patience,
            behind_messages: limits.behind_messages,
            sent: Sent::default(),
        }
    }
}

impl<P> Default for Sent<P> {
    fn default() -> Self {
        Self { messages: 0, bytes: 0, to_flush: Vec::new() }
    }
}

impl<P: Peer> Sent<P> {
    fn count(&mut self, bytes: usize, peer: &P, flush: bool) {
        self.messages += 1;
        self.bytes += bytes as u64;
        if flush {
            self.to_flush.push(peer.clone());
        }
    }
}

/// A peer, and the messages that did not fit into its queue. The feed loop waits for a full queue for a moment, and then continues
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

    pub fn deliver(&mut self, id: PeerId, message: &Message, sending: &mut DeliveryState<P>) {
        if !self.overflow.is_empty() {
            self.overflow.push_back(message.clone());
            // This is recorded once, when the overflow exceeds its limit.
            if self.overflow.len() == sending.behind_messages.saturating_add(1) {
                sending.slow.mark_over_limit(id);
            }
            return;
        }
        match self.peer.send(message.clone()) {
            Ok(flush) => sending.sent.count(message.size(), &self.peer, flush),
            Err(SendError::Full(message)) => {
                self.overflow.push_back(message);
                sending.slow.add(id, sending.patience);
                if sending.behind_messages == 0 {
                    sending.slow.mark_over_limit(id);
                }
            }
            Err(SendError::Closed) => {}
        }
    }

    /// Moves the overflow into the queue, as far as it fits. Returns whether the overflow is empty.
    pub fn drain(&mut self, slow: &mut SlowClient, sent: &mut Sent<P>) -> bool {
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
            slow.last_accepted = Instant::now();
        }
        true
    }
}
