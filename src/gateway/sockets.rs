//! The Engine.IO connections of this node, by id.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::shrinking_map::ShrinkingMap;

use super::{
    session::{Posting, TooManyPosts},
    sid::Sid,
    socket::Socket,
};

#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<ShrinkingMap<Sid, Arc<Socket>>>);

impl Sockets {
    pub fn insert(&self, socket: &Arc<Socket>) {
        self.0.lock().insert(socket.id, socket.clone());
    }

    pub fn remove(&self, sid: Sid) {
        self.0.lock().remove(&sid);
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// The caller holds the result while it reads a body of this connection. `None` means that there is no such connection.
    pub fn begin_post(&self, sid: Sid) -> Result<Option<Posting>, TooManyPosts> {
        self.get(sid).map(|socket| socket.data.begin_post()).transpose()
    }

    /// Returns whether the client has shown a token.
    pub fn is_authenticated(&self, sid: Sid) -> bool {
        self.get(sid).is_some_and(|socket| socket.data.session().is_some())
    }

    pub fn get(&self, sid: Sid) -> Option<Arc<Socket>> {
        self.0.lock().get(&sid).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Socket>> {
        self.0.lock().values().cloned().collect()
    }
}
