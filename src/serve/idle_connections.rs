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
    address::{ClientAddress, QuotaPermit},
    transport::TcpHandle,
};

/// At most this many connections without a token may be idle, over all addresses. If there are more, the one that has been idle for
/// longest is closed, as among Socket.IO connections without a token.
const MAX_UNAUTHENTICATED: usize = 4096;
/// At most this many connections are checked to find one without unread bytes.
const MAX_TRIES: usize = 8;
/// Each connection keeps its slot for at least this long. A connection whose next head comes slowly has the same time.
const MIN_IDLE_TIME: Duration = Duration::from_secs(10);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// The peer is one of `TRUSTED_PROXIES`. Its connections carry many clients, and webhooks.
    pub is_proxy: bool,
}

/// The idle connections of one listener.
#[derive(Clone, Debug, Default)]
pub struct IdleConnections(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// See [`MIN_IDLE_TIME`].
    min_idle_time: Duration,
    /// Connections without a token, oldest first.
    unauthenticated: BTreeMap<u64, Entry>,
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
    idle: IdleConnections,
    address: ClientAddress,
    handle: TcpHandle,
    is_proxy: bool,
    entry_id: Mutex<Option<u64>>,
}

impl IdleConnections {
    pub fn connection(&self, peer: Peer, handle: TcpHandle) -> IdleConnection {
        let address = ClientAddress::of_peer(peer.address);
        IdleConnection {
            idle: self.clone(),
            address,
            handle,
            is_proxy: peer.is_proxy,
            entry_id: Mutex::default(),
        }
    }

    /// The number of idle connections.
    pub fn len(&self) -> usize {
        let state = self.0.lock();
        state.unauthenticated.len() + state.others.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the connection without a token that has been idle for longest among those of this address. Returns the
    /// quota permit that this connection held.
    pub fn close_oldest_of(&self, address: ClientAddress) -> Option<QuotaPermit> {
        let mut state = self.0.lock();
        let ids = state.by_address.range((address, 0)..=(address, u64::MAX)).take(MAX_TRIES);
        let ids: Vec<u64> = ids.map(|(_, id)| *id).collect();
        let entry = ids.into_iter().find_map(|id| state.close_unauthenticated(id))?;
        entry.handle.take_quota_permit()
    }

    /// Closes the connection without a token that has been idle for longest. Returns whether one could be closed.
    pub fn close_oldest_unauthenticated(&self) -> bool {
        self.0.lock().close_oldest_unauthenticated_entry()
    }

    /// Closes an idle connection without a token, or otherwise any idle connection. Returns whether one could be closed.
    pub fn close_one(&self) -> bool {
        let mut state = self.0.lock();
        if state.close_oldest_unauthenticated_entry() {
            return true;
        }
        let ids: Vec<u64> = state.others.keys().take(MAX_TRIES).copied().collect();
        ids.into_iter().any(|id| {
            let closed = state.others.get(&id).is_some_and(|entry| entry.close(state.min_idle_time));
            closed && state.others.remove(&id).is_some()
        })
    }
}

impl Default for State {
    fn default() -> Self {
        let (unauthenticated, others) = (BTreeMap::new(), BTreeMap::new());
        Self { min_idle_time: MIN_IDLE_TIME, unauthenticated, by_address: BTreeSet::new(), others, next: 0 }
    }
}

impl Entry {
    /// Closes the connection if it has been idle for long enough and has no unread bytes. Returns whether it is closed.
    fn close(&self, min_idle_time: Duration) -> bool {
        self.since.elapsed() >= min_idle_time && self.handle.shut_if_no_unread()
    }
}

impl State {
    fn close_oldest_unauthenticated_entry(&mut self) -> bool {
        let ids: Vec<u64> = self.unauthenticated.keys().take(MAX_TRIES).copied().collect();
        ids.into_iter().any(|id| self.close_unauthenticated(id).is_some())
    }

    fn close_unauthenticated(&mut self, id: u64) -> Option<Entry> {
        self.unauthenticated.get(&id).filter(|entry| entry.close(self.min_idle_time))?;
        self.remove(id)
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        match self.unauthenticated.remove(&id) {
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
    fn is_unauthenticated(&self) -> bool {
        !self.is_proxy && self.handle.has_quota_permit()
    }

    /// The connection becomes idle, because its request has been answered.
    pub fn enter(&self) {
        let is_unauthenticated = self.is_unauthenticated();
        let mut state = self.idle.0.lock();
        let id = state.next;
        state.next += 1;
        let entry = Entry { address: self.address, handle: self.handle.clone(), since: Instant::now() };
        if is_unauthenticated {
            state.by_address.insert((entry.address, id));
            state.unauthenticated.insert(id, entry);
            while state.unauthenticated.len() > MAX_UNAUTHENTICATED
                && state.close_oldest_unauthenticated_entry()
            {}
        } else {
            state.others.insert(id, entry);
        }
        drop(state);
        *self.entry_id.lock() = Some(id);
    }

    /// The connection is no longer idle, because a request has come or the connection has ended.
    pub fn leave(&self) {
        let entry_id = self.entry_id.lock().take();
        if let Some(id) = entry_id {
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
        address::Quotas,
        edge::{Capacity, MemoryLimit},
        metrics::Metrics,
        transport::TcpConnection,
    };

    struct TestListener {
        idle: IdleConnections,
        quotas: Quotas,
        listener: TcpListener,
    }

    /// Both ends of a connection, and its entry among the idle ones.
    struct TestPair {
        client: TcpStream,
        transport: TcpConnection,
        idle: IdleConnection,
    }

    impl TestListener {
        async fn new(limit: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self { idle: IdleConnections::default(), quotas: Quotas::new(Some(limit)), listener }
        }

        /// From now on, all connections count as idle for long enough.
        fn allow_closing(&self) {
            self.idle.0.lock().min_idle_time = Duration::ZERO;
        }

        async fn connection(&self, address: &str, is_proxy: bool) -> TestPair {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = self.listener.accept().await.unwrap();
            let address: IpAddr = address.parse().unwrap();
            let quota_permit =
                (!is_proxy).then(|| self.quotas.take(ClientAddress::of_peer(address), 1).unwrap());
            let slot = Capacity::new(1, MemoryLimit::for_this_process(None)).take().unwrap();
            let transport = TcpConnection::accept(accepted, Duration::from_secs(5)).unwrap();
            let transport = transport.with_slot(slot, quota_permit, Arc::<Metrics>::default());
            let idle = self.idle.connection(Peer { address, is_proxy }, transport.handle());
            TestPair { client, transport, idle }
        }
    }

    impl TestPair {
        /// Returns whether the client sees that the connection has ended.
        fn has_ended(&self) -> bool {
            matches!(self.client.try_read(&mut [0; 8]), Ok(0))
        }
    }

    #[tokio::test]
    async fn the_longest_idle_connection_of_an_address_gives_its_share_to_the_next() {
        let fixture = TestListener::new(2).await;
        let address = ClientAddress::of_peer("192.0.2.1".parse().unwrap());
        let other = fixture.connection("192.0.2.9", false).await;
        other.idle.enter();
        let (first, second) =
            (fixture.connection("192.0.2.1", false).await, fixture.connection("192.0.2.1", false).await);
        first.idle.enter();
        second.idle.enter();
        assert!(
            fixture.quotas.take(address, 1).is_none() && fixture.idle.close_oldest_of(address).is_none(),
            "too early"
        );
        fixture.allow_closing();
        let quota_permit = fixture.idle.close_oldest_of(address);
        assert!(quota_permit.is_some() && fixture.quotas.take(address, 1).is_none());
        let ended = tokio::time::timeout(Duration::from_secs(20), first.client.readable()).await;
        ended.expect("the first connection ends").unwrap();
        assert!(first.has_ended() && !second.has_ended() && !other.has_ended());
        assert_eq!(fixture.idle.len(), 2);
        drop((quota_permit, first));
        assert!(fixture.quotas.take(address, 1).is_some());
    }

    #[tokio::test]
    async fn a_connection_with_a_request_is_not_closed() {
        let fixture = TestListener::new(9).await;
        let (mut requesting, busy) =
            (fixture.connection("192.0.2.1", false).await, fixture.connection("192.0.2.1", false).await);
        requesting.idle.enter();
        busy.idle.enter();
        busy.idle.leave();
        fixture.allow_closing();
        requesting.client.write_all(b"GET").await.unwrap();
        requesting.transport.shared().readable().await.unwrap();
        assert!(!fixture.idle.close_one(), "its request has come, and the other one's is being answered");
        assert!(!requesting.has_ended() && !busy.has_ended());
    }

    #[tokio::test]
    async fn proxies_and_clients_with_a_token_are_closed_last() {
        let fixture = TestListener::new(9).await;
        let (proxy, known) =
            (fixture.connection("10.0.0.1", true).await, fixture.connection("192.0.2.1", false).await);
        let unauthenticated_pair = fixture.connection("192.0.2.1", false).await;
        known.transport.handle().trust();
        for pair in [&proxy, &known, &unauthenticated_pair] {
            pair.idle.enter();
        }
        fixture.allow_closing();
        assert!(fixture.idle.close_oldest_unauthenticated() && !fixture.idle.close_oldest_unauthenticated());
        unauthenticated_pair.client.readable().await.unwrap();
        assert!(unauthenticated_pair.has_ended() && !proxy.has_ended() && !known.has_ended());
        assert!(fixture.idle.close_one() && fixture.idle.close_one() && !fixture.idle.close_one());
        assert!(fixture.idle.is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_ends_leaves_no_entry() {
        let fixture = TestListener::new(9).await;
        let pair = fixture.connection("192.0.2.1", false).await;
        pair.idle.enter();
        pair.idle.leave();
        pair.idle.enter();
        assert_eq!(fixture.idle.len(), 1);
        drop(pair);
        let state = fixture.idle.0.lock();
        assert!(state.unauthenticated.is_empty() && state.by_address.is_empty() && state.others.is_empty());
    }
}
