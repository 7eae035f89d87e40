//! Dashboards: who has one, and the counts that each is sent.

use std::collections::{HashMap, HashSet};

use super::{Key, Tasks, messages::counts_changed};
use crate::{
    fanout::{Fanout, Peer, PeerId},
    feed::Position,
    task::{Counts, Viewer},
};

/// The dashboard of a client.
#[derive(Debug)]
pub(in crate::fanout) struct Dashboard {
    /// The viewer for whom the dashboard was entered.
    pub viewer: Viewer,
    /// The position of the state that the client got, or of its `since`.
    pub at: Position,
    /// The counts that the client has. `None` means that they are not known.
    pub known: Option<Counts>,
}

impl<P: Peer> Fanout<P> {
    pub(in crate::fanout) fn has_joined_dashboard(&self, id: PeerId) -> bool {
        self.tasks.joined(id).any(Key::is_dashboard)
    }

    /// Returns whether the client had the dashboard.
    pub fn leave_dashboard(&mut self, id: PeerId) -> bool {
        self.leave_dashboards(id, |_| true) > 0
    }

    /// Removes the client from these rooms of dashboards. Returns their number.
    pub(super) fn leave_dashboards(&mut self, id: PeerId, which: impl Fn(&Key) -> bool) -> usize {
        let keys: Vec<Key> =
            self.tasks.joined(id).filter(|key| key.is_dashboard() && which(key)).cloned().collect();
        for key in &keys {
            self.tasks.leave(id, key);
        }
        keys.len()
    }

    /// Sends counts to the dashboards whose counts have changed. Returns the number of dashboards.
    pub fn flush_counts(&mut self) -> usize {
        let rooms = &self.tasks.rooms;
        let position = self.tasks.position();
        let Tasks { counts, dashboards, .. } = &mut self.tasks.kind;
        let mut ids: HashSet<PeerId> = HashSet::new();
        let orgs = std::mem::take(&mut counts.dirty_orgs).into_iter().map(Key::Org);
        let users = std::mem::take(&mut counts.dirty_users).into_iter().map(Key::User);
        for key in orgs.chain(users) {
            ids.extend(rooms.get(&key).into_iter().flat_map(|room| room.members.ids()));
        }
        let mut encoded = HashMap::new();
        let mut sent = 0;
        for id in ids {
            let Some((dashboard, mut client)) = dashboards.get_mut(&id).zip(self.clients.get_mut(id)) else {
                continue;
            };
            match counts.of(&dashboard.viewer, position) {
                Some(counts) if position >= dashboard.at => {
                    if dashboard.known != Some(counts) {
                        dashboard.known = Some(counts);
                        client.deliver(
                            encoded.entry(counts).or_insert_with(|| counts_changed(counts, position)),
                        );
                        sent += 1;
                    }
                }
                // The counts or the state are ahead of the fan-out. This is repeated until the fan-out has caught up.
                _ => {
                    counts.dirty_users.insert(dashboard.viewer.user.clone());
                }
            }
        }
        sent
    }

    pub fn counts_are_dirty(&self) -> bool {
        self.tasks.kind.counts.is_dirty()
    }
}
