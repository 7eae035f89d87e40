//! The Engine.IO connections of this node, by id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::tables::GiveBack;

use super::{
    session::{Posting, TooManyPosts},
    sid::Sid,
    socket::Socket,
};

#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<HashMap<Sid, Arc<Socket>>>);

impl Sockets {
    pub fn insert(&self, socket: &Arc<Socket>) {
        self.lock().insert(socket.id, socket.clone());
    }

    pub fn remove(&self, sid: Sid) {
        let mut sockets = self.lock();
        sockets.remove(&sid);
        sockets.give_back();
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
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
        self.lock().get(&sid).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Socket>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Sid, Arc<Socket>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
