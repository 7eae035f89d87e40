//! The live sessions, by peer and by user.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::{fanout::PeerId, shrinking_map::ShrinkingMap, task::UserId};

use super::Session;

#[derive(Debug, Default)]
pub struct Registry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_peer: ShrinkingMap<PeerId, Arc<Session>>,
    /// Oldest first: ids are given in ascending order.
    by_user: ShrinkingMap<UserId, VecDeque<PeerId>>,
}

impl Registry {
    /// Adds a session. If its user then has more than `max`, this returns the oldest one for the caller to close.
    pub fn add(&self, session: &Arc<Session>, user: UserId, max: usize) -> Option<Arc<Session>> {
        let mut inner = self.0.lock();
        inner.by_peer.insert(session.id, session.clone());
        let user_peers = inner.by_user.entry(user).or_default();
        // Two sessions that begin at the same moment may be added in the other order.
        user_peers.insert(user_peers.partition_point(|id| *id < session.id), session.id);
        // The oldest session leaves the queue at once, so that two concurrent calls do not return the same one.
        let oldest = (user_peers.len() > max).then(|| user_peers.pop_front()).flatten()?;
        inner.by_peer.get(&oldest).cloned()
    }

    pub fn remove(&self, peer: PeerId, user: &UserId) {
        let mut inner = self.0.lock();
        inner.by_peer.remove(&peer);
        if let Some(user_peers) = inner.by_user.get_mut(user) {
            if let Ok(index) = user_peers.binary_search(&peer) {
                user_peers.remove(index);
            }
            if user_peers.is_empty() {
                inner.by_user.remove(user);
            }
        }
    }

    pub fn get(&self, peer: PeerId) -> Option<Arc<Session>> {
        self.0.lock().by_peer.get(&peer).cloned()
    }

    pub fn of(&self, user: &UserId) -> Vec<Arc<Session>> {
        let inner = self.0.lock();
        let ids = inner.by_user.get(user).into_iter().flatten();
        ids.filter_map(|id| inner.by_peer.get(id).cloned()).collect()
    }

    /// The sessions, and the number of users that have one.
    pub fn all(&self) -> (Vec<Arc<Session>>, usize) {
        let inner = self.0.lock();
        (inner.by_peer.values().cloned().collect(), inner.by_user.len())
    }

    /// The number of sessions, and the number of users that have one.
    pub fn count(&self) -> (usize, usize) {
        let inner = self.0.lock();
        (inner.by_peer.len(), inner.by_user.len())
    }
}
