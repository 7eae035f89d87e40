//! The task rooms in a namespace of a socketioxide server.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::Value;
use socketioxide::{
    SocketError, SocketIo,
    adapter::LocalAdapter,
    extract::{SocketRef, TryData},
    handler::ConnectHandler,
    socket::{DisconnectReason, Socket},
};
use socketioxide_core::Sid;
use strum::VariantArray;
use tracing::field;

use super::{
    admission::{Admitted, admit},
    client::{Client, EndTransport, FULL_QUEUE_BACKOFF},
    request::{OwnedSocket, RawMessage},
};
use crate::{
    metrics::{CutReason, EndReason, Metrics},
    rate_limited_log::rate_limited_log,
    session::{Connection, Incoming, Session, Sessions},
    shrinking_map::ShrinkingMap,
    transport::{Server, admission::CONNECT_TIMEOUT, read_limits::ReadLimits},
    wire::{ClientEventName, RequestId},
};

/// Finds the way to end a socket's transport.
pub(super) type EndTransportFactory =
    dyn Fn(&Arc<Socket<LocalAdapter>>) -> Box<dyn EndTransport> + Send + Sync;

/// The clients in the namespace.
pub struct Attached {
    pub(super) sessions: Arc<Sessions>,
    pub(super) metrics: Arc<Metrics>,
    events: Events,
    end_transport_factory: Box<EndTransportFactory>,
    clients: Mutex<ShrinkingMap<Sid, Arc<Client>>>,
    next_connection: AtomicU64,
}

/// Adds the task rooms to a namespace, for example `/`. Clients send their token as `auth.token` or in the header `Authorization`, as
/// they do with a gateway. The application may have other namespaces.
///
/// `on_connect` is called for each client that has shown a valid token. The application may register handlers for events of its own there,
/// with [`SocketRef::on`]. It must not register a disconnect handler, because a socket has only one, and the session needs it.
///
/// A client that would miss an event is disconnected from the namespace. A JavaScript client does not reconnect by itself after
/// that: `docs/transports.md` shows what to do.
pub fn attach(
    io: &SocketIo,
    namespace: &'static str,
    sessions: Arc<Sessions>,
    on_connect: impl Fn(SocketRef) + Send + Sync + 'static,
) -> Arc<Attached> {
    let end_transport = Box::new(|socket: &Arc<Socket<LocalAdapter>>| -> Box<dyn EndTransport> {
        Box::new(EndNamespace(Arc::downgrade(socket)))
    });
    attach_with(
        io,
        namespace,
        sessions,
        Events { refuse_unknown: false, on_connect: Box::new(on_connect) },
        end_transport,
    )
}

/// The events of a namespace beside those of tasks.
pub(super) struct Events {
    pub refuse_unknown: bool,
    pub on_connect: Box<dyn Fn(SocketRef) + Send + Sync>,
}

pub(super) fn attach_with(
    io: &SocketIo,
    namespace: &'static str,
    sessions: Arc<Sessions>,
    events: Events,
    end_transport_factory: Box<EndTransportFactory>,
) -> Arc<Attached> {
    let attached = Arc::new(Attached {
        metrics: sessions.metrics().clone(),
        sessions,
        events,
        end_transport_factory,
        clients: Mutex::default(),
        next_connection: AtomicU64::new(1),
    });
    let (admitting, accepting) = (attached.clone(), attached.clone());
    let accept = move |OwnedSocket(socket): OwnedSocket<LocalAdapter>| {
        accepting.accept(socket);
        std::future::ready(())
    };
    let authenticate = move |OwnedSocket(socket): OwnedSocket<LocalAdapter>,
                             TryData(auth): TryData<Value>| {
        admit(admitting.clone(), socket, auth.ok())
    };
    io.ns(namespace, accept.with(authenticate));
    attached
}

impl Attached {
    /// Creates the client of a socket whose token is valid, and registers the handlers. The library sends the answer to `CONNECT`
    /// before it calls the connect handler, so this is done before.
    pub(super) fn register(self: &Arc<Self>, socket: &Arc<Socket<LocalAdapter>>) -> Arc<Client> {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!("connection", id, user = field::Empty);
        let client = Arc::new(Client::new(self, socket, span, (self.end_transport_factory)(socket)));
        for name in ClientEventName::VARIANTS {
            socket.on(<&str>::from(name), self.handler(&client));
        }
        if self.events.refuse_unknown {
            socket.on_fallback(self.handler(&client));
        }
        let (attached, ended_client) = (self.clone(), client.clone());
        socket.on_disconnect(move |reason: DisconnectReason| {
            let has_left = reason == DisconnectReason::ClientNSDisconnect;
            attached.metrics.clients.ended.inc(end_reason(reason));
            let session = ended_client.mark_closed();
            // The caller may hold the fan-out's lock, so the session ends in the future.
            async move {
                attached.finish(&ended_client, session, !has_left);
                if has_left {
                    // The library removes the socket only when this future ends, so another task waits.
                    tokio::spawn(async move { attached.end_without_session(&ended_client).await });
                }
            }
        });
        client
    }

    fn handler(
        self: &Arc<Self>,
        client: &Arc<Client>,
    ) -> impl Fn(RawMessage) -> std::future::Ready<()> + Clone + Send + Sync + 'static {
        let (attached, client) = (self.clone(), client.clone());
        move |message: RawMessage| {
            let _span = client.span().entered();
            let handle =
                |session: &Arc<Session>, message| attached.handle_message(&client, session, &message);
            if !client.receive(message, handle) {
                attached.metrics.clients.cut.inc(CutReason::Flooding);
                rate_limited_log!(
                    warn,
                    "closed a connection: it sent too many messages before its session began"
                );
                client.clone().close_now();
            }
            std::future::ready(())
        }
    }

    /// Begins the session of a socket that was admitted.
    fn accept(self: &Arc<Self>, socket: Arc<Socket<LocalAdapter>>) {
        let Some(Admitted { client, identity }) = socket.extensions.remove::<Admitted>() else { return };
        let _span = client.span().entered();
        let session = self.sessions.open(client.clone(), identity);
        self.clients.lock().insert(socket.id, client.clone());
        self.sessions.begin(&session);
        (self.events.on_connect)(socket.clone().into());
        client.begin(&session, |session, message| self.handle_message(&client, session, &message));
        if client.is_closed() {
            // The disconnect handler may have run before the session was set.
            self.finish(&client, Some(session), true);
        }
        tokio::spawn(client.write(socket));
    }

    fn handle_message(&self, client: &Arc<Client>, session: &Arc<Session>, message: &RawMessage) {
        let limits = ReadLimits::of(&self.sessions);
        let event = message.event().filter(|(name, _)| {
            let max = match name.parse() {
                Ok(ClientEventName::AuthRefresh) => limits.message(),
                _ => limits.plain_message,
            };
            message.len() <= max
        });
        let Some((name, arguments)) = event else {
            self.metrics.clients.errors.inc();
            rate_limited_log!(
                info,
                "closed a connection: it sent a malformed message, or one that is too long"
            );
            return client.clone().close_now();
        };
        let id = message.ack.and_then(|id| u64::try_from(id).ok()).map(RequestId::Number);
        let incoming = Incoming { name: &name, arguments: &arguments, id, is_binary: message.is_binary };
        if self.sessions.may_send(session, Some(&incoming)) {
            self.sessions.receive(session, incoming);
        }
    }

    /// Removes a client, and ends its session.
    pub(super) fn finish(&self, client: &Arc<Client>, session: Option<Arc<Session>>, lost: bool) {
        let mut clients = self.clients.lock();
        // Another client may have connected on the same transport.
        if clients.get(&client.id).is_some_and(|current| Arc::ptr_eq(current, client)) {
            clients.remove(&client.id);
        }
        drop(clients);
        if let Some(session) = session {
            self.sessions.end(&session, lost);
        }
    }

    /// A client that has left the namespace may connect again. If it does not, its transport ends: the library's own timeout runs only
    /// until the first connect.
    async fn end_without_session(&self, client: &Arc<Client>) {
        tokio::time::sleep(CONNECT_TIMEOUT).await;
        if !self.clients.lock().contains_key(&client.id) {
            client.end_transport();
        }
    }

    fn all(&self) -> Vec<Arc<Client>> {
        self.clients.lock().values().cloned().collect()
    }
}

impl Server for Attached {
    fn close_all(&self) {
        for client in self.all() {
            client.close_in_order();
        }
    }

    fn shut_all(&self) {
        for client in self.all() {
            client.close_now();
        }
    }

    fn is_empty(&self) -> bool {
        self.clients.lock().is_empty()
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("refuse_unknown", &self.events.refuse_unknown)
            .finish_non_exhaustive()
    }
}

/// Ends the namespace only, because the application's server owns the transport.
struct EndNamespace(Weak<Socket<LocalAdapter>>);

impl EndTransport for EndNamespace {
    fn end(&self) {
        let socket = self.0.clone();
        tokio::spawn(async move {
            let mut failures = 0;
            // The library refuses to disconnect a client while its queue is full, so this is repeated.
            while let Some(socket) = socket.upgrade()
                && let Err(SocketError::InternalChannelFull) = socket.disconnect()
            {
                tokio::time::sleep(FULL_QUEUE_BACKOFF.pause(failures)).await;
                failures += 1;
            }
        });
    }
}

impl fmt::Debug for EndNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndNamespace")
    }
}

/// How the end of a connection counts in the metrics.
fn end_reason(reason: DisconnectReason) -> EndReason {
    match reason {
        DisconnectReason::TransportClose | DisconnectReason::ClientNSDisconnect => EndReason::TransportClose,
        DisconnectReason::MultipleHttpPollingError => EndReason::MultiplePolling,
        DisconnectReason::PacketParsingError => EndReason::Malformed,
        DisconnectReason::TransportError => EndReason::TransportError,
        DisconnectReason::HeartbeatTimeout => EndReason::HeartbeatTimeout,
        DisconnectReason::ServerNSDisconnect | DisconnectReason::ClosingServer => EndReason::ClosedHere,
    }
}
