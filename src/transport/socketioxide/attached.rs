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
    SocketIo,
    adapter::LocalAdapter,
    extract::TryData,
    handler::ConnectHandler,
    socket::{DisconnectReason, Socket},
};
use socketioxide_core::Sid;
use strum::VariantArray;
use tracing::field;

use super::{
    admission::{Admitted, admit},
    client::{Client, EndTransport},
    request::{OwnedSocket, RawMessage},
};
use crate::{
    edge::max_token_message_bytes,
    metrics::Metrics,
    rate_limited_log::rate_limited_log,
    session::{Connection, Incoming, Session, Sessions},
    shrinking_map::ShrinkingMap,
    transport::Server,
    wire::ClientEventName,
};

/// Finds the way to end a socket's transport.
pub(super) type EndTransportFactory =
    dyn Fn(&Arc<Socket<LocalAdapter>>) -> Box<dyn EndTransport> + Send + Sync;

/// The clients in the namespace.
pub struct Attached {
    pub(super) sessions: Arc<Sessions>,
    pub(super) metrics: Arc<Metrics>,
    /// An event with another name is refused. This is `false` if the application has events of its own in this namespace.
    refuse_unknown: bool,
    end_transport_factory: Box<EndTransportFactory>,
    clients: Mutex<ShrinkingMap<Sid, Arc<Client>>>,
    next_connection: AtomicU64,
}

/// Adds the task rooms to a namespace, for example `/`. Clients send their token as `auth.token` or in the header `Authorization`, as
/// they do with a gateway. The application may have events of its own in this namespace, and other namespaces.
///
/// A client that would miss an event is disconnected from the namespace. A JavaScript client does not reconnect by itself after
/// that: `docs/transports.md` shows what to do.
pub fn attach(io: &SocketIo, namespace: &'static str, sessions: Arc<Sessions>) -> Arc<Attached> {
    attach_with(
        io,
        namespace,
        sessions,
        false,
        Box::new(|socket| Box::new(EndNamespace(Arc::downgrade(socket)))),
    )
}

pub(super) fn attach_with(
    io: &SocketIo,
    namespace: &'static str,
    sessions: Arc<Sessions>,
    refuse_unknown: bool,
    end_transport_factory: Box<EndTransportFactory>,
) -> Arc<Attached> {
    let attached = Arc::new(Attached {
        metrics: sessions.metrics().clone(),
        sessions,
        refuse_unknown,
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
        let client = Arc::new(Client::new(self, socket.id, span, (self.end_transport_factory)(socket)));
        for name in ClientEventName::VARIANTS {
            socket.on(<&str>::from(name), self.handler(&client));
        }
        if self.refuse_unknown {
            socket.on_fallback(self.handler(&client));
        }
        let (attached, ended_client, id) = (self.clone(), client.clone(), socket.id);
        socket.on_disconnect(move |reason: DisconnectReason| {
            let has_left = reason == DisconnectReason::ClientNSDisconnect;
            attached.finish(id, ended_client.disconnected(), !has_left);
            attached.metrics.clients.ended.inc([end_reason_label(reason)]);
            std::future::ready(())
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
            client.receive(message, |session, message| attached.handle_message(&client, session, &message));
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
        client.begin(&session, |session, message| self.handle_message(&client, session, &message));
        if client.is_closed() {
            // The disconnect handler may have run before the session was set.
            self.finish(socket.id, Some(session), true);
        }
        tokio::spawn(client.write(socket));
    }

    fn handle_message(&self, client: &Arc<Client>, session: &Arc<Session>, message: &RawMessage) {
        let max = self.sessions.limits().max_message_bytes;
        let event = message.event().filter(|(name, _)| {
            let max = match name.parse() {
                Ok(ClientEventName::AuthRefresh) => {
                    max.max(max_token_message_bytes(self.sessions.max_token_bytes()))
                }
                _ => max,
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
        let id = message.ack.and_then(|id| u64::try_from(id).ok());
        let incoming = Incoming { name: &name, arguments: &arguments, id, is_binary: message.is_binary };
        if self.sessions.may_send(session, Some(incoming)) {
            self.sessions.receive(session, incoming);
        }
    }

    /// Removes a client, and ends its session.
    pub(super) fn finish(&self, id: Sid, session: Option<Arc<Session>>, lost: bool) {
        self.clients.lock().remove(&id);
        if let Some(session) = session {
            self.sessions.end(&session, lost);
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
        f.debug_struct("Attached").field("refuse_unknown", &self.refuse_unknown).finish_non_exhaustive()
    }
}

/// Ends the namespace only, because the application's server owns the transport.
struct EndNamespace(Weak<Socket<LocalAdapter>>);

impl EndTransport for EndNamespace {
    fn end(&self) {
        // If the library's queue is full, the client does not read, and the library's heartbeat ends the transport.
        let _ = self.0.upgrade().map(Socket::disconnect);
    }
}

impl fmt::Debug for EndNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndNamespace")
    }
}

/// The label of the metric.
fn end_reason_label(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose | DisconnectReason::ClientNSDisconnect => "transport_close",
        DisconnectReason::MultipleHttpPollingError => "multiple_polling",
        DisconnectReason::PacketParsingError => "malformed",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::HeartbeatTimeout => "heartbeat_timeout",
        DisconnectReason::ServerNSDisconnect | DisconnectReason::ClosingServer => "closed_here",
    }
}
