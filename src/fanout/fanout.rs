//! The fan-out of one node: its clients, and one stream for each kind of thing that they follow.

use std::time::Duration;

use super::{
    Peer, PeerId,
    clients::Clients,
    stream::{EveryKind, Stream},
    tasks::Tasks,
};
use crate::{task::Viewer, wire::Message};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The size of the ring of each stream.
    pub ring_bytes: usize,
    /// A client gets a state instead of a replay that has more events.
    pub replay_events: usize,
    /// A client is disconnected if its queue is full and it has accepted nothing for this long.
    pub patience: Duration,
    /// A client is also disconnected if more messages than this wait beside its queue.
    pub behind_messages: usize,
}

/// The fan-out of one node. Every method is one turn: nothing else is sent during the call. The file of each kind adds methods
/// for its stream.
#[derive(Debug)]
pub struct Fanout<P> {
    pub clients: Clients<P>,
    pub tasks: Stream<Tasks>,
    /// The second kind of the tests.
    #[cfg(test)]
    pub(super) posts: Stream<super::model::Posts>,
}

impl<P: Peer> Fanout<P> {
    pub fn new(limits: Limits) -> Self {
        Self {
            clients: Clients::new(limits),
            tasks: Stream::new(Tasks::default(), limits),
            #[cfg(test)]
            posts: Stream::new(super::model::Posts, limits),
        }
    }

    pub fn add_peer(&mut self, id: PeerId, peer: P, viewer: Viewer) {
        self.clients.add(id, peer, viewer);
    }

    /// Removes the client from everything. Returns whether it had the dashboard.
    pub fn remove_peer(&mut self, id: PeerId) -> bool {
        let had_dashboard = self.has_joined_dashboard(id);
        for stream in self.streams() {
            stream.leave_all(id);
        }
        self.clients.remove(id);
        had_dashboard
    }

    /// Gives the client another viewer. The client then has to enter its rooms again.
    pub fn change_viewer(&mut self, id: PeerId, viewer: Viewer) {
        let streams = self.suspend(id);
        self.clients.set_viewer(id, viewer);
        if let Some(client) = self.clients.get_mut(id) {
            streams.into_iter().for_each(|stream| client.refresh(stream));
        }
    }

    /// Sends one message to one client, such as an ack or a refusal. A client that does not read its answers is disconnected.
    pub fn reply(&mut self, id: PeerId, message: &Message) {
        self.clients.reply(id, message);
        self.suspend_cut();
    }

    /// Disconnects clients that have accepted nothing for too long, or that are too far behind. They reconnect and ask for
    /// their state again. Returns the number of these clients.
    pub fn cut_slow(&mut self) -> usize {
        let cut = self.clients.cut_slow();
        self.suspend_cut();
        cut
    }

    fn suspend_cut(&mut self) {
        for id in self.clients.take_cut() {
            self.suspend(id);
        }
    }

    /// Removes the client from all rooms, but keeps the list of rooms that it has joined, so that [`Fanout::remove_peer`] still
    /// returns whether it had the dashboard. Returns the names of the streams.
    fn suspend(&mut self, id: PeerId) -> Vec<&'static str> {
        let suspended = self.streams().map(|stream| {
            stream.suspend(id);
            stream.name()
        });
        suspended.collect()
    }

    fn streams(&mut self) -> impl Iterator<Item = &mut dyn EveryKind> {
        let tasks: &mut dyn EveryKind = &mut self.tasks;
        #[cfg(test)]
        let all = [tasks, &mut self.posts];
        #[cfg(not(test))]
        let all = [tasks];
        all.into_iter()
    }
}
