//! The Engine.IO connections of this node, by id.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::shrinking_map::ShrinkingMap;

use super::{
    sid::Sid,
    socket::{DisconnectReason, Socket},
};

#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<ShrinkingMap<Sid, Arc<Socket>>>);

impl Sockets {
    pub fn insert(&self, socket: &Arc<Socket>) {
        self.0.lock().insert(socket.own.id, socket.clone());
    }

    pub fn remove(&self, sid: Sid) {
        self.0.lock().remove(&sid);
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Returns whether the client has a session.
    pub fn is_authenticated(&self, sid: Sid) -> bool {
        self.get(sid).is_some_and(|socket| socket.client.session().is_some())
    }

    /// The connection with this id. A connection that its client has ended no longer counts, even before its task has removed it.
    pub fn get(&self, sid: Sid) -> Option<Arc<Socket>> {
        let socket = self.0.lock().get(&sid).cloned()?;
        (!socket.closed_for().is_some_and(DisconnectReason::is_by_client)).then_some(socket)
    }

    pub fn all(&self) -> Vec<Arc<Socket>> {
        self.0.lock().values().cloned().collect()
    }
}
