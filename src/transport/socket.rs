//! One client's connection: its queue of outgoing packets, and the WebSocket that the queue goes to. Each protocol adds what only it
//! has.

use std::{convert::Infallible, fmt, sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use super::{
    Tcp,
    client::Client,
    disconnect_reason::DisconnectReason,
    outbox::{Outbox, Packet},
};
use crate::{fanout::SendError, wire::Message};

/// One flush makes at most this many system calls. The connection's task does the rest, because the caller has other connections
/// to flush.
pub(super) const MAX_WRITES_PER_FLUSH: usize = 4;

/// What a protocol adds to a connection. A value of the type is what it keeps about one connection.
pub trait Protocol: fmt::Debug + Sized + Send + Sync + 'static {
    type Packet: Packet;
    /// How a client is connected while it has no WebSocket.
    type Alternative: Alternative;

    /// Encodes a message of the server for all clients that get it.
    fn encode(message: &Message) -> Self::Packet;

    /// The last frame of a WebSocket that the server closes.
    fn close_frame(&self) -> Vec<u8>;
}

/// A transport that is not a WebSocket.
pub trait Alternative: fmt::Debug + Send {
    /// A ping was queued.
    fn record_ping(&mut self, now: Instant);
}

/// A protocol whose clients always have a WebSocket.
impl Alternative for Infallible {
    fn record_ping(&mut self, _: Instant) {
        match *self {}
    }
}

#[derive(Debug)]
pub struct Socket<P: Protocol> {
    pub own: P,
    pub client: Client,
    /// The fan-out may queue packets up to this number. Heartbeats come on top.
    pub(super) capacity: usize,
    pub(super) core: Mutex<Core<P>>,
    /// Wakes the connection's tasks: for packets for a client without a WebSocket, for a change of `stalled`, for a new session, or for
    /// the end.
    pub(super) changed: Notify,
}

#[derive(Debug)]
pub(super) struct Core<P: Protocol> {
    pub outbox: Outbox<P::Packet>,
    pub transport: Transport<P::Alternative>,
    pub closed: Option<DisconnectReason>,
}

#[derive(Debug)]
pub(super) enum Transport<A> {
    Alternative(A),
    Websocket(Arc<Tcp>),
    /// The task of the WebSocket has ended.
    Ended,
}

impl<P: Protocol> Socket<P> {
    pub fn websocket(own: P, capacity: usize, client: Client, tcp: Arc<Tcp>) -> Arc<Self> {
        Self::new(own, capacity, client, Transport::Websocket(tcp))
    }

    pub(super) fn new(
        own: P,
        capacity: usize,
        client: Client,
        transport: Transport<P::Alternative>,
    ) -> Arc<Self> {
        let core = Mutex::new(Core { outbox: Outbox::default(), transport, closed: None });
        Arc::new(Self { own, client, capacity, core, changed: Notify::new() })
    }

    /// Queues a message. Returns whether the caller has to call [`Socket::flush`]. If not, earlier packets are in the queue: another caller
    /// is about to flush them, a Tokio task waits for space in the kernel's buffer, or they wait for the client's next polling request.
    pub fn send(&self, message: Message) -> Result<bool, SendError> {
        let mut core = self.core.lock();
        if core.closed.is_some() {
            return Err(SendError::Closed);
        }
        let outbox = &mut core.outbox;
        if outbox.queue.len() >= self.capacity {
            outbox.space_requested = true;
            return Err(SendError::Full(message));
        }
        outbox.queue.push_back(P::encode(&message));
        Ok(outbox.queue.len() == 1)
    }

    /// Queues a packet even if the queue is full, for example an answer to a `CONNECT` or the reason for the end.
    pub fn send_now(&self, packet: P::Packet) {
        let mut core = self.core.lock();
        if core.closed.is_none() {
            core.outbox.queue.push_back(packet);
            drop(core);
            self.flush();
        }
    }

    /// Queues a ping ahead of all messages, unless a ping already waits there. The order of pings and messages has no meaning, and
    /// behind the messages a ping would reach a slow client too late. Returns where the ping ends, counted as in `Traffic::written`.
    pub fn ping(&self) -> u64 {
        let mut core = self.core.lock();
        let is_closed = core.closed.is_some();
        let (end, is_queued) = core.outbox.ping(is_closed);
        if is_queued {
            if let Transport::Alternative(alternative) = &mut core.transport {
                alternative.record_ping(Instant::now());
            }
            drop(core);
            self.flush();
        }
        end
    }

    /// Queues answers that the WebSocket protocol requires, ahead of all messages. A client that reads nothing gets only the first
    /// answers. After the connection is closed nothing is queued, so nothing follows a packet that was cut off in the middle.
    pub fn queue_control_frames(&self, frames: Vec<u8>) {
        self.send_before_messages(P::Packet::control(frames));
    }

    /// Queues a packet ahead of all messages. A client that reads nothing gets only the first ones.
    pub fn send_before_messages(&self, packet: P::Packet) {
        let mut core = self.core.lock();
        if core.closed.is_none() && core.outbox.insert_before_messages(packet) {
            drop(core);
            self.flush();
        }
    }

    /// Queues the answer to the close frame of a WebSocket. Nothing may follow it.
    pub fn queue_close_frame(&self, frames: Vec<u8>) {
        self.send_now(P::Packet::control(frames));
    }

    /// Writes queued packets until the kernel's buffer is full, with at most [`MAX_WRITES_PER_FLUSH`] system calls. If the client has no
    /// WebSocket, this wakes its waiting request instead.
    pub fn flush(&self) {
        for writes_left in (0..MAX_WRITES_PER_FLUSH).rev() {
            let mut core = self.core.lock();
            let stalled = core.outbox.stalled;
            let Transport::Websocket(tcp) = &core.transport else {
                drop(core);
                return self.changed.notify_waiters();
            };
            let tcp = tcp.clone();
            core.outbox.write(|slices| tcp.try_write(slices), &tcp);
            let is_done = core.outbox.stalled || core.outbox.queue.is_empty();
            core.outbox.stalled |= !is_done && writes_left == 0;
            let has_changed = core.outbox.stalled != stalled;
            let has_space = core.take_space_request(self.capacity);
            drop(core);
            if has_changed {
                self.changed.notify_waiters();
            }
            if has_space {
                self.report_space();
            }
            if is_done {
                return;
            }
        }
    }

    /// Continues to write. The connection's task calls this.
    pub fn resume(&self) {
        self.core.lock().outbox.stalled = false;
        self.flush();
    }

    /// Tries to write although the kernel's buffer was full. The runtime reports room only when a third of that buffer is empty. A
    /// slow client may need longer for this than `SLOW_CLIENT_TIMEOUT`.
    pub fn retry_write(&self) {
        let mut core = self.core.lock();
        let Transport::Websocket(tcp) = &core.transport else { return };
        let tcp = tcp.clone();
        core.outbox.stalled = false;
        core.outbox.write(|slices| tcp.write_directly(slices), &tcp);
        // The rest waits until the runtime reports room, as before.
        core.outbox.stalled = !core.outbox.queue.is_empty();
        let has_space = core.take_space_request(self.capacity);
        drop(core);
        if has_space {
            self.report_space();
        }
    }

    pub fn is_stalled(&self) -> bool {
        self.core.lock().outbox.stalled
    }

    /// How many bytes were written to the kernel, and whether more wait.
    pub fn write_progress(&self) -> (u64, bool) {
        let core = self.core.lock();
        (core.outbox.total_written(), core.outbox.stalled)
    }

    pub fn has_sent_all(&self) -> bool {
        self.core.lock().outbox.queue.is_empty()
    }

    /// Tells the fan-out, which has been waiting for it, that the queue has space.
    pub(super) fn report_space(&self) {
        if let Some(session) = self.client.session() {
            session.report_space();
        }
    }

    /// Closes the connection. If the reason is an orderly one, the client still gets the queued packets. From now on no packet is
    /// queued. The connection's task does the rest. Returns whether this call closed the connection.
    pub fn close(&self, reason: DisconnectReason) -> bool {
        let mut core = self.core.lock();
        if core.closed.is_some() {
            return false;
        }
        core.closed = Some(reason);
        if !reason.is_orderly() {
            core.outbox.clear();
        }
        let has_space = core.take_space_request(self.capacity);
        drop(core);
        self.changed.notify_waiters();
        if has_space {
            self.report_space();
        }
        true
    }

    /// Drops the packets that have not begun to leave.
    pub fn drop_unbegun(&self) {
        self.core.lock().outbox.drop_unbegun();
    }

    pub fn closed_for(&self) -> Option<DisconnectReason> {
        self.core.lock().closed
    }

    pub fn is_closed(&self) -> bool {
        self.closed_for().is_some()
    }

    /// Waits until the connection is closed.
    pub async fn closed(&self) {
        self.until(|core| core.closed.map(|_| ())).await;
    }

    /// The caller has to enable this before it checks what may have changed.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Wakes the connection's tasks.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Drops the transport and the queue. The TCP connection closes when its last holder has dropped it.
    pub fn end_transport(&self) {
        let mut core = self.core.lock();
        core.transport = Transport::Ended;
        core.outbox.queue = Default::default();
    }

    pub(super) async fn until<T>(&self, check: impl Fn(&mut Core<P>) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = check(&mut self.core.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

impl<P: Protocol> Core<P> {
    /// See [`Outbox::take_space_request`].
    pub fn take_space_request(&mut self, capacity: usize) -> bool {
        let is_closed = self.closed.is_some();
        self.outbox.take_space_request(capacity, is_closed)
    }
}
