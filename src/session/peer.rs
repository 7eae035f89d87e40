//! A session as the fan-out sees it.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use super::{
    CloseReason, Sessions,
    session::{Request, Session},
};
use crate::{
    fanout::{Peer, SendError},
    metrics::CutReason,
    wire::Message,
};

#[derive(Clone, Debug)]
pub struct SessionPeer {
    pub(super) session: Arc<Session>,
    pub(super) sessions: Weak<Sessions>,
}

impl Peer for SessionPeer {
    fn send(&self, message: Message) -> Result<bool, SendError> {
        self.session.connection.send(message)
    }

    fn flush(&self) {
        self.session.connection.flush();
    }

    fn cut(&self) {
        if let Some(sessions) = self.sessions.upgrade() {
            sessions.metrics.clients.cut.inc(CutReason::Behind);
        }
        self.session.connection.clone().close_now(CloseReason::Overloaded);
    }

    fn last_read(&self) -> Option<Instant> {
        self.session.connection.last_progress()
    }

    /// There is only one stream so far.
    fn refresh(&self, _: &'static str) {
        if let Some(sessions) = self.sessions.upgrade() {
            sessions.submit(&self.session, Request::Refresh);
        }
    }
}
