//! Tracks idle HTTP connections: a request was answered, and the next one has not come. Clients and load balancers keep such
//! connections open, and each holds a slot, a file descriptor and a read buffer. If there is no room for a new connection, the one
//! that has been idle for longest is closed, unless it has been idle for less time than a slow request head may take.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    address::{ClientAddress, Share},
    transport::TcpHandle,
};

/// At most this many connections without a token may be idle, over all addresses. If there are more, the one that has been idle for
/// longest is closed, as among Socket.IO connections without a token.
const MAX_STRANGERS: usize = 4096;
/// At most this many connections are checked to find one without unread bytes.
const TRIES: usize = 8;
/// Each connection keeps its slot for at least this long. A connection whose next head comes slowly has the same time.
const SPARED: Duration = Duration::from_secs(10);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// The peer is one of `TRUSTED_PROXIES`. Its connections carry many clients, and webhooks.
    pub is_proxy: bool,
}

/// The idle connections of one listener.
#[derive(Clone, Debug, Default)]
pub struct Idle(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// See [`SPARED`].
    spared: Duration,
    /// Connections without a token, oldest first.
    strangers: BTreeMap<u64, Entry>,
    by_address: BTreeSet<(ClientAddress, u64)>,
    /// Connections of proxies and of clients that have shown a token, oldest first.
    others: BTreeMap<u64, Entry>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    address: ClientAddress,
    handle: TcpHandle,
    since: Instant,
}

/// One connection's entry among the idle ones. The connection has no entry while a request is answered.
#[derive(Debug)]
pub struct IdleConnection {
    idle: Idle,
    address: ClientAddress,
    handle: TcpHandle,
    is_proxy: bool,
    place: Mutex<Option<u64>>,
}

impl Idle {
    pub fn connection(&self, peer: Peer, handle: TcpHandle) -> IdleConnection {
        let address = ClientAddress::of_peer(peer.address);
        IdleConnection {
            idle: self.clone(),
            address,
            handle,
            is_proxy: peer.is_proxy,
            place: Mutex::default(),
        }
    }

    /// The number of idle connections.
    pub fn len(&self) -> usize {
        let state = self.0.lock();
        state.strangers.len() + state.others.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the connection without a token that has been idle for longest among those of this address. Returns the share of the
    /// address that this connection held.
    pub fn make_room_of(&self, address: ClientAddress) -> Option<Share> {
        let mut state = self.0.lock();
        let ids = state.by_address.range((address, 0)..=(address, u64::MAX)).take(TRIES);
        let ids: Vec<u64> = ids.map(|(_, id)| *id).collect();
        let entry = ids.into_iter().find_map(|id| state.close_stranger(id))?;
        entry.handle.take_share()
    }

    /// Closes the connection without a token that has been idle for longest. Returns whether one could be closed.
    pub fn close_a_stranger(&self) -> bool {
        self.0.lock().close_oldest_stranger()
    }

    /// Closes an idle connection without a token, or otherwise any idle connection. Returns whether one could be closed.
    pub fn close_one(&self) -> bool {
        let mut state = self.0.lock();
        if state.close_oldest_stranger() {
            return true;
        }
        let ids: Vec<u64> = state.others.keys().take(TRIES).copied().collect();
        ids.into_iter().any(|id| {
            let closed = state.others.get(&id).is_some_and(|entry| entry.close(state.spared));
            closed && state.others.remove(&id).is_some()
        })
    }
}

impl Default for State {
    fn default() -> Self {
        let (strangers, others) = (BTreeMap::new(), BTreeMap::new());
        Self { spared: SPARED, strangers, by_address: BTreeSet::new(), others, next: 0 }
    }
}

impl Entry {
    /// Closes the connection if it has been idle for long enough and has no unread bytes. Returns whether it is closed.
    fn close(&self, spared: Duration) -> bool {
        self.since.elapsed() >= spared && self.handle.shut_if_quiet()
    }
}

impl State {
    fn close_oldest_stranger(&mut self) -> bool {
        let ids: Vec<u64> = self.strangers.keys().take(TRIES).copied().collect();
        ids.into_iter().any(|id| self.close_stranger(id).is_some())
    }

    fn close_stranger(&mut self, id: u64) -> Option<Entry> {
        self.strangers.get(&id).filter(|entry| entry.close(self.spared))?;
        self.remove(id)
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        match self.strangers.remove(&id) {
            Some(entry) => {
                self.by_address.remove(&(entry.address, id));
                Some(entry)
            }
            None => self.others.remove(&id),
        }
    }
}

impl IdleConnection {
    /// Returns whether the peer is no proxy and no client has shown a token on the connection.
    fn is_strangers(&self) -> bool {
        !self.is_proxy && self.handle.has_share()
    }

    /// The connection becomes idle, because its request has been answered.
    pub fn enter(&self) {
        let is_strangers = self.is_strangers();
        let mut state = self.idle.0.lock();
        let id = state.next;
        state.next += 1;
        let entry = Entry { address: self.address, handle: self.handle.clone(), since: Instant::now() };
        if is_strangers {
            state.by_address.insert((entry.address, id));
            state.strangers.insert(id, entry);
            while state.strangers.len() > MAX_STRANGERS && state.close_oldest_stranger() {}
        } else {
            state.others.insert(id, entry);
        }
        drop(state);
        *self.place.lock() = Some(id);
    }

    /// The connection is no longer idle, because a request has come or the connection has ended.
    pub fn leave(&self) {
        let place = self.place.lock().take();
        if let Some(id) = place {
            self.idle.0.lock().remove(id);
        }
    }
}

impl Drop for IdleConnection {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        address::Shares,
        edge::{Capacity, MemoryLimit},
        metrics::Metrics,
        transport::TcpConnection,
    };

    struct Field {
        idle: Idle,
        shares: Shares,
        listener: TcpListener,
    }

    /// Both ends of a connection, and its entry among the idle ones.
    struct Held {
        client: TcpStream,
        transport: TcpConnection,
        place: IdleConnection,
    }

    impl Field {
        async fn new(share: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self { idle: Idle::default(), shares: Shares::of(Some(share)), listener }
        }

        /// From now on, all connections count as idle for long enough.
        fn later(&self) {
            self.idle.0.lock().spared = Duration::ZERO;
        }

        async fn connection(&self, address: &str, is_proxy: bool) -> Held {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = self.listener.accept().await.unwrap();
            let address: IpAddr = address.parse().unwrap();
            let share = (!is_proxy).then(|| self.shares.take(ClientAddress::of_peer(address), 1).unwrap());
            let place = Capacity::up_to(1, MemoryLimit::of_this_process(None)).take().unwrap();
            let transport = TcpConnection::accept(accepted, Duration::from_secs(5)).unwrap();
            let transport = transport.counted(place, share, Arc::<Metrics>::default());
            let place = self.idle.connection(Peer { address, is_proxy }, transport.handle());
            Held { client, transport, place }
        }
    }

    impl Held {
        /// Returns whether the client sees that the connection has ended.
        fn has_ended(&self) -> bool {
            matches!(self.client.try_read(&mut [0; 8]), Ok(0))
        }
    }

    #[tokio::test]
    async fn the_longest_idle_connection_of_an_address_gives_its_share_to_the_next() {
        let field = Field::new(2).await;
        let address = ClientAddress::of_peer("192.0.2.1".parse().unwrap());
        let other = field.connection("192.0.2.9", false).await;
        other.place.enter();
        let (first, second) =
            (field.connection("192.0.2.1", false).await, field.connection("192.0.2.1", false).await);
        first.place.enter();
        second.place.enter();
        assert!(
            field.shares.take(address, 1).is_none() && field.idle.make_room_of(address).is_none(),
            "too early"
        );
        field.later();
        let share = field.idle.make_room_of(address);
        assert!(share.is_some() && field.shares.take(address, 1).is_none());
        let ended = tokio::time::timeout(Duration::from_secs(20), first.client.readable()).await;
        ended.expect("the first connection ends").unwrap();
        assert!(first.has_ended() && !second.has_ended() && !other.has_ended());
        assert_eq!(field.idle.len(), 2);
        drop((share, first));
        assert!(field.shares.take(address, 1).is_some());
    }

    #[tokio::test]
    async fn a_connection_with_a_request_is_not_closed() {
        let field = Field::new(9).await;
        let (mut asked, busy) =
            (field.connection("192.0.2.1", false).await, field.connection("192.0.2.1", false).await);
        asked.place.enter();
        busy.place.enter();
        busy.place.leave();
        field.later();
        asked.client.write_all(b"GET").await.unwrap();
        asked.transport.shared().readable().await.unwrap();
        assert!(!field.idle.close_one(), "its request has come, and the other one's is being answered");
        assert!(!asked.has_ended() && !busy.has_ended());
    }

    #[tokio::test]
    async fn proxies_and_clients_with_a_token_are_closed_last() {
        let field = Field::new(9).await;
        let (proxy, known) =
            (field.connection("10.0.0.1", true).await, field.connection("192.0.2.1", false).await);
        let stranger = field.connection("192.0.2.1", false).await;
        known.transport.handle().trust();
        for held in [&proxy, &known, &stranger] {
            held.place.enter();
        }
        field.later();
        assert!(field.idle.close_a_stranger() && !field.idle.close_a_stranger());
        stranger.client.readable().await.unwrap();
        assert!(stranger.has_ended() && !proxy.has_ended() && !known.has_ended());
        assert!(field.idle.close_one() && field.idle.close_one() && !field.idle.close_one());
        assert!(field.idle.is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_ends_leaves_no_entry() {
        let field = Field::new(9).await;
        let held = field.connection("192.0.2.1", false).await;
        held.place.enter();
        held.place.leave();
        held.place.enter();
        assert_eq!(field.idle.len(), 1);
        drop(held);
        let state = field.idle.0.lock();
        assert!(state.strangers.is_empty() && state.by_address.is_empty() && state.others.is_empty());
    }
}
