//! One client on a socketioxide server: its queue of messages, and the task that writes them.
//!
//! The library's own queue drops what does not fit. This queue keeps it: the task offers one message after the other until the library
//! accepts it, and the fan-out sees a full queue as it does for every other transport.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::value::RawValue;
use socketioxide::{
    SendError as EmitError, SocketError, TransportType,
    adapter::{Adapter, LocalAdapter},
    extract::AckSender,
    handler::FromMessageParts,
    socket::Socket,
};
use socketioxide_core::{Sid, Str, Value};
use tokio::sync::Notify;
use tracing::Span;

use super::{Attached, request::RawMessage};
use crate::{
    backoff::Backoff,
    fanout::SendError,
    metrics::Transport,
    session::{CloseReason, Connection, Session},
    wire::{Content, Message, RequestId, emitted},
};

/// The pause before a message that did not fit into the library's queue is offered again. The library does not report when its queue
/// has space.
pub(super) const FULL_QUEUE_BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(2), Duration::from_millis(50));
/// The time that the library is given to write its queue. It does not report when it has written everything.
const FINAL_WRITE_TIME: Duration = Duration::from_millis(900);

/// A client may send this many messages before its session has begun. Beginning a session takes as long as one call
/// of the fan-out.
const MAX_EARLY_MESSAGES: usize = 1024;

/// Ends the transport of a client. The library can only end the namespace, and a JavaScript client does not reconnect after that.
pub trait EndTransport: std::fmt::Debug + Send + Sync {
    fn end(&self);

    /// When the client last accepted bytes.
    fn last_progress(&self) -> Option<Instant> {
        None
    }
}

#[derive(Debug)]
pub(super) struct Client {
    capacity: usize,
    span: Span,
    transport: Box<dyn EndTransport>,
    attached: Weak<Attached>,
    pub(super) id: Sid,
    /// The library's socket, which holds this client in its handlers.
    socket: Weak<Socket<LocalAdapter>>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Message>,
    session: Option<Weak<Session>>,
    /// The fan-out found no room in the queue.
    space_requested: bool,
    /// No new message enters the queue. The queued ones are still written.
    is_closing: bool,
    /// Nothing is written any more.
    is_closed: bool,
    /// When the library last accepted a message.
    accepted: Option<Instant>,
    /// Messages that came before the session has begun.
    early: Vec<RawMessage>,
}

impl Client {
    pub fn new(
        attached: &Arc<Attached>,
        socket: &Arc<Socket<LocalAdapter>>,
        span: Span,
        transport: Box<dyn EndTransport>,
    ) -> Self {
        Self {
            capacity: attached.sessions.limits().send_queue,
            span,
            transport,
            attached: Arc::downgrade(attached),
            id: socket.id,
            socket: Arc::downgrade(socket),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Handles a message of the client, or keeps it until the session begins: the library answers a `CONNECT` before its handler runs.
    ///
    /// Returns false if too many messages wait for the session. The caller then closes the client, because no message may be dropped.
    pub fn receive(&self, message: RawMessage, handle: impl FnOnce(&Arc<Session>, RawMessage)) -> bool {
        let session = {
            let mut state = self.state.lock();
            match &state.session {
                Some(session) => session.upgrade(),
                None if state.is_closed => None,
                None if state.early.len() == MAX_EARLY_MESSAGES => return false,
                None => {
                    state.early.push(message);
                    return true;
                }
            }
        };
        if let Some(session) = session {
            handle(&session, message);
        }
        true
    }

    /// The session has begun. Its first requests may have come before.
    pub fn begin(&self, session: &Arc<Session>, handle: impl Fn(&Arc<Session>, RawMessage)) {
        loop {
            let early = {
                let mut state = self.state.lock();
                let early = std::mem::take(&mut state.early);
                if early.is_empty() {
                    state.session = Some(Arc::downgrade(session));
                    return;
                }
                early
            };
            early.into_iter().for_each(|message| handle(session, message));
        }
    }

    /// Marks the client as closed: nothing can be written any more. Returns its session, if there is one.
    pub fn mark_closed(&self) -> Option<Arc<Session>> {
        let session = {
            let mut state = self.state.lock();
            (state.is_closing, state.is_closed) = (true, true);
            (state.queue, state.early) = (VecDeque::new(), Vec::new());
            state.session.take().and_then(|session| session.upgrade())
        };
        self.changed.notify_waiters();
        session
    }

    pub fn end_transport(&self) {
        self.transport.end();
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Writes messages until the client is closed.
    pub async fn write<A: Adapter>(self: Arc<Self>, socket: Arc<Socket<A>>) {
        let mut failures = 0;
        while let Some(message) = self.next().await {
            match emit(&socket, &message) {
                Ok(()) => {
                    failures = 0;
                    self.pop_accepted();
                }
                Err(EmitError::Socket(SocketError::InternalChannelFull)) => {
                    tokio::select! {
                        () = tokio::time::sleep(FULL_QUEUE_BACKOFF.pause(failures)) => failures += 1,
                        () = self.wait_until_closed() => return,
                    }
                }
                Err(_) => return self.close_now(),
            }
        }
        // The messages are in the library's queue. The transport ends after the library had time to write them.
        tokio::select! {
            () = tokio::time::sleep(FINAL_WRITE_TIME) => self.close_now(),
            () = self.wait_until_closed() => {}
        }
    }

    /// Waits for the first message of the queue. `None` means that the queue is empty and the client is closing, or that it is closed.
    async fn next(&self) -> Option<Message> {
        self.until(|state| match (state.queue.front(), state.is_closed) {
            (Some(message), false) => Some(Some(message.clone())),
            _ => state.is_closing.then_some(None),
        })
        .await
    }

    async fn wait_until_closed(&self) {
        self.until(|state| state.is_closed.then_some(())).await;
    }

    async fn until<T>(&self, find: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = find(&self.state.lock()) {
                return found;
            }
            changed.await;
        }
    }

    /// Closes the client after the queued messages.
    pub fn close_in_order(self: Arc<Self>) {
        self.state.lock().is_closing = true;
        self.changed.notify_waiters();
    }

    /// Closes the client now, and drops the queued messages.
    pub fn close_now(self: Arc<Self>) {
        // A client that has left the namespace may have another session on the same transport.
        if self.is_closed() {
            return;
        }
        let session = self.mark_closed();
        self.transport.end();
        // The caller may hold the fan-out's lock, so another task ends the session.
        if let Some(attached) = self.attached.upgrade() {
            tokio::spawn(async move { attached.finish(&self, session, true) });
        }
    }

    /// Removes the first message, which the library has accepted.
    fn pop_accepted(&self) {
        let mut state = self.state.lock();
        state.queue.pop_front();
        state.accepted = Some(Instant::now());
        let has_space = std::mem::take(&mut state.space_requested);
        let session = if has_space { state.session.clone() } else { None };
        drop(state);
        if let Some(session) = session.and_then(|session| session.upgrade()) {
            session.report_space();
        }
    }
}

impl Connection for Client {
    fn send(&self, message: Message) -> Result<bool, SendError> {
        let mut state = self.state.lock();
        if state.is_closing {
            return Err(SendError::Closed);
        }
        if state.queue.len() >= self.capacity {
            state.space_requested = true;
            return Err(SendError::Full(message));
        }
        state.queue.push_back(message);
        Ok(state.queue.len() == 1)
    }

    fn send_now(&self, message: Message) {
        let mut state = self.state.lock();
        if !state.is_closing {
            state.queue.push_back(message);
            drop(state);
            self.flush();
        }
    }

    fn flush(&self) {
        self.changed.notify_waiters();
    }

    fn close_in_order(self: Arc<Self>, _: CloseReason) {
        Client::close_in_order(self);
    }

    fn close_now(self: Arc<Self>, _: CloseReason) {
        Client::close_now(self);
    }

    fn last_progress(&self) -> Option<Instant> {
        self.transport.last_progress().max(self.state.lock().accepted)
    }

    fn transport(&self) -> Transport {
        match self.socket.upgrade().map(|socket| socket.transport_type()) {
            Some(TransportType::Polling) => Transport::Polling,
            Some(TransportType::Websocket) | None => Transport::Websocket,
        }
    }

    fn span(&self) -> Span {
        self.span.clone()
    }
}

/// Gives one message to the library.
fn emit<A: Adapter>(socket: &Arc<Socket<A>>, message: &Message) -> Result<(), EmitError> {
    match message.content() {
        // The library has answered the `CONNECT` itself.
        Content::Connected { .. } => Ok(()),
        Content::Event { name, payload, list: None, .. } => socket.emit(*name, raw(payload)?),
        Content::Event { name, payload, list: Some(list), .. } => {
            socket.emit(*name, &(raw(payload)?, raw(&list.fields)?))
        }
        Content::Refused { payload } => socket.emit(emitted::ERROR, raw(payload)?),
        Content::Reply { id, payload } => {
            let id = match id {
                RequestId::Number(id) => i64::try_from(*id).ok(),
                RequestId::Json(_) => None,
            };
            let mut none = Value::Str(Str::from(""), None);
            let Ok(ack) = AckSender::from_message_parts(socket, &mut none, &id);
            ack.send(raw(payload)?)
        }
    }
}

fn raw(json: &str) -> Result<&RawValue, EmitError> {
    serde_json::from_str(json).map_err(|_| EmitError::Socket(SocketError::Closed))
}
