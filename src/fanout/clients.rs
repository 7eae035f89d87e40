//! The clients of this node: each gets its messages in order, without losing any, and no other client waits for a slow one.
//!
//! This module knows no rooms. It records which clients it has disconnected ([`Clients::take_cut`]), so that the fan-out
//! removes them from their rooms.

use std::time::Instant;

use super::{
    Limits, Peer, PeerId,
    outbox::{DeliveryState, Outbox, Sent},
    peer::PeerMap,
    slow_clients::SpaceReports,
};
use crate::{task::Viewer, wire::Message};

/// How many answers may wait for a client, in addition to the largest handoff.
const MAX_UNREAD_ANSWERS: usize = 1024;

#[derive(Debug)]
pub struct Clients<P> {
    limits: Limits,
    clients: PeerMap<Client<P>>,
    sending: DeliveryState<P>,
    /// The clients that were disconnected since the last call of [`Clients::take_cut`].
    cut: Vec<PeerId>,
}

#[derive(Debug)]
struct Client<P> {
    viewer: Viewer,
    outbox: Outbox<P>,
}

/// One client, to which messages are being sent.
pub(super) struct Recipient<'a, P> {
    id: PeerId,
    client: &'a mut Client<P>,
    sending: &'a mut DeliveryState<P>,
}

impl<P: Peer> Recipient<'_, P> {
    pub(super) fn viewer(&self) -> &Viewer {
        &self.client.viewer
    }

    pub fn deliver(&mut self, message: &Message) {
        self.client.outbox.deliver(self.id, message, self.sending);
    }

    /// Requests that the client enters its rooms of this stream again.
    pub fn refresh(&self, stream: &'static str) {
        self.client.outbox.peer.refresh(stream);
    }
}

impl<P: Peer> Clients<P> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, clients: PeerMap::default(), sending: DeliveryState::new(&limits), cut: Vec::new() }
    }

    pub(super) fn add(&mut self, id: PeerId, peer: P, viewer: Viewer) {
        self.clients.insert(id, Client { viewer, outbox: Outbox::new(peer) });
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        self.clients.remove(&id);
        self.sending.slow.remove(id);
        if self.sending.slow.is_empty() {
            // The list is not read again before another peer is slow.
            self.sending.space_reports.take();
        }
    }

    pub(super) fn viewer(&self, id: PeerId) -> Option<&Viewer> {
        self.clients.get(&id).map(|client| &client.viewer)
    }

    pub(super) fn set_viewer(&mut self, id: PeerId, viewer: Viewer) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.viewer = viewer;
        }
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<Recipient<'_, P>> {
        let client = self.clients.get_mut(&id)?;
        Some(Recipient { id, client, sending: &mut self.sending })
    }

    /// Sends one message to one client, such as an ack or a refusal. A client that keeps asking without reading the answers is
    /// disconnected at once, without waiting for the feed loop.
    pub(super) fn reply(&mut self, id: PeerId, message: &Message) {
        let handoff = self.limits.replay_events.saturating_mul(2);
        let most = MAX_UNREAD_ANSWERS.saturating_add(handoff).saturating_add(self.limits.behind_messages);
        let Some(mut client) = self.get_mut(id) else { return };
        client.deliver(message);
        if client.client.outbox.overflow.len() > most {
            self.cut(id);
        }
    }

    /// The list in which peers report that their queue has space again.
    pub fn space_reports(&self) -> SpaceReports {
        self.sending.space_reports.clone()
    }

    /// Moves waiting messages into the queues of the peers that have reported space. Returns whether no peer is slow any more.
    pub fn send_waiting(&mut self) -> bool {
        for id in self.sending.space_reports.take() {
            self.drain(id);
        }
        self.sending.slow.is_empty()
    }

    /// The messages that have been put into queues since the last call.
    pub fn take_sent(&mut self) -> Sent<P> {
        std::mem::take(&mut self.sending.sent)
    }

    pub fn is_slow(&self, id: PeerId) -> bool {
        self.sending.slow.contains(id)
    }

    pub fn any_is_slow(&self) -> bool {
        !self.sending.slow.is_empty()
    }

    /// Returns whether the feed loop has to wait for a full queue before it sends anything else. The wait slows a burst down to the
    /// speed of the clients that read it. A client that needs longer is behind and does not delay the others.
    pub fn must_wait(&self) -> bool {
        self.sending.slow.must_wait()
    }

    /// Disconnects clients that have accepted nothing for too long, or that are too far behind. They reconnect and ask for
    /// their state again. Returns the number of these clients.
    pub(super) fn cut_slow(&mut self) -> usize {
        let Limits { patience, behind_messages, .. } = self.limits;
        let mut cut = 0;
        for id in self.sending.slow.take_over_limit() {
            // The client may have caught up meanwhile.
            if self.clients.get(&id).is_some_and(|client| client.outbox.overflow.len() > behind_messages) {
                self.cut(id);
                cut += 1;
            }
        }
        let now = Instant::now();
        while let Some(id) = self.sending.slow.overdue(now) {
            self.drain(id);
            let Some(slow) = self.sending.slow.get_mut(id) else { continue };
            let accepted = slow.last_accepted;
            let read = self.clients.get(&id).and_then(|client| client.outbox.peer.last_read());
            match read.map_or(accepted, |read| read.max(accepted)) + patience {
                due if due <= now => {
                    self.cut(id);
                    cut += 1;
                }
                due => self.sending.slow.postpone(id, due),
            }
        }
        cut
    }

    /// The clients that were disconnected since the last call. They must get no more messages, so the caller removes them from
    /// their rooms in the same turn.
    pub(super) fn take_cut(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.cut)
    }

    /// The number of clients whose queue is full, and the number of messages that wait beside their queues. This visits only
    /// these clients, each once.
    pub fn behind(&self) -> (usize, usize) {
        let slow = &self.sending.slow;
        let overflow = |id| self.clients.get(&id).map_or(0, |client| client.outbox.overflow.len());
        (slow.len(), slow.ids().map(overflow).sum())
    }

    /// Moves the messages that wait for a slow peer into its queue, as far as they fit.
    fn drain(&mut self, id: PeerId) {
        let DeliveryState { slow, sent, .. } = &mut self.sending;
        let Some(slow_client) = slow.get_mut(id) else { return };
        let client = self.clients.get_mut(&id);
        if client.is_none_or(|client| client.outbox.drain(slow_client, sent)) {
            slow.remove(id);
        }
    }

    fn cut(&mut self, id: PeerId) {
        self.sending.slow.remove(id);
        if let Some(client) = self.clients.get_mut(&id) {
            client.outbox.overflow.clear();
            client.outbox.peer.cut();
            self.cut.push(id);
        }
    }
}

#[cfg(test)]
impl<P> Clients<P> {
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The length of each client's overflow.
    pub(super) fn overflows(&self) -> impl Iterator<Item = (PeerId, usize)> {
        self.clients.iter().map(|(id, client)| (*id, client.outbox.overflow.len()))
    }
}

#[cfg(test)]
mod tests;
