//! One connected and authenticated client: its identity, and its requests in the order in which they came.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{CloseReason, Connection};
use crate::{
    auth::Identity,
    fanout::{PeerId, SpaceReports},
    task::UserId,
    wire::{ClientEvent, ClientEventName, Message, RequestId},
};

/// The server refuses further requests of a client with this many unanswered ones. A page may join all rooms that it may have at
/// once.
const MAX_QUEUED_REQUESTS: usize = 256;
/// After access is revoked, a slow client has this long to read the queued messages. After that, unsent messages are dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(950);

/// A request that a session has to handle.
#[derive(Debug)]
pub(super) enum Request {
    Client {
        event: ClientEvent,
        name: ClientEventName,
        id: Option<RequestId>,
        arrived: Instant,
    },
    /// Enter again every room that the client has joined.
    Refresh,
}

#[derive(Debug)]
pub struct Session {
    pub(super) id: PeerId,
    pub(super) connection: Arc<dyn Connection>,
    identity: Mutex<Identity>,
    queue: Mutex<Queue>,
    ended: AtomicBool,
    space_reports: SpaceReports,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// A task handles this queue.
    running: bool,
    resyncs: u32,
}

impl Session {
    pub(super) fn new(
        id: PeerId,
        connection: Arc<dyn Connection>,
        identity: Identity,
        space_reports: SpaceReports,
    ) -> Self {
        Self {
            id,
            connection,
            identity: Mutex::new(identity),
            queue: Mutex::default(),
            ended: AtomicBool::new(false),
            space_reports,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// The session's user. It never changes, but the rest of the identity may.
    pub fn user(&self) -> UserId {
        self.identity.lock().viewer.user.clone()
    }

    pub(super) fn set_identity(&self, identity: Identity) {
        *self.identity.lock() = identity;
    }

    /// Reports that the connection's queue, which was full, has space again or has ended.
    pub fn report_space(&self) {
        self.space_reports.report_space(self.id);
    }

    /// Queues a request. Returns whether the caller has to start a task for the queue. If too many requests wait, this returns the
    /// request as an error.
    pub(super) fn push(&self, request: Request) -> Result<bool, Request> {
        let mut queue = self.queue.lock();
        let is_refresh = matches!(request, Request::Refresh);
        if queue.waiting.len() >= MAX_QUEUED_REQUESTS && !is_refresh {
            return Err(request);
        }
        // A refresh that already waits will enter all rooms that the client has joined by then.
        if is_refresh && queue.waiting.iter().any(|waiting| matches!(waiting, Request::Refresh)) {
            return Ok(false);
        }
        queue.waiting.push_back(request);
        Ok(!std::mem::replace(&mut queue.running, true))
    }

    /// The next request. `None` means that the task for the queue ends.
    pub(super) fn pop(&self) -> Option<Request> {
        let mut queue = self.queue.lock();
        let next = queue.waiting.pop_front().filter(|_| !self.has_ended());
        queue.running = next.is_some();
        if !queue.running {
            // This frees the memory: most clients send requests once, and then listen for hours.
            queue.waiting = VecDeque::new();
        }
        next
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Counts a resync of this session. Returns the count, from 1.
    pub(super) fn count_resync(&self) -> u32 {
        let mut queue = self.queue.lock();
        queue.resyncs = queue.resyncs.saturating_add(1);
        queue.resyncs
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Marks the session as ended. Returns whether this call ended it.
    pub(super) fn end(&self) -> bool {
        self.queue.lock().waiting.clear();
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Closes the connection of a client that must receive nothing more, whether it reads or not. The reason is queued behind the
    /// messages that already wait.
    pub(super) fn close_with_reason(&self, reason: Message) {
        let connection = self.connection.clone();
        connection.send_now(reason);
        tokio::spawn(async move {
            connection.clone().close_in_order(CloseReason::TokenEnded);
            tokio::time::sleep(CLOSE_TIMEOUT).await;
            connection.close_now(CloseReason::TokenEnded);
        });
    }
}
