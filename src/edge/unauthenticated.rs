//! Limits transports that have not shown a token yet: how many there may be, and how fast they may be opened. An attacker without
//! a token can cause no other cost than theirs.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    address::{ClientAddress, QuotaPermit, Quotas},
    config::LimitsConfig,
    rate_limit::{RateLimit, RateLimited},
};

/// The burst is the handshake rate times this. After a deploy, all clients of an office behind one address reconnect at once,
/// and a page gives up after 10 s.
const BURST_SECONDS: u32 = 20;
/// The limit over all addresses. A client with a token leaves after a round trip or two, so it is never the oldest.
const MAX_UNAUTHENTICATED: usize = 4096;
/// The rate limit is per address for this many addresses. All further addresses share [`SHARED_KEYS`] keys.
const MAX_KEYS: usize = 65_536;
const SHARED_KEYS: u64 = 1024;
/// The server also reads tokens of up to this length, or up to `ANSWERED_EXCESS` more than `MAX_TOKEN_BYTES`, whichever is longer.
/// The client then learns from an answer that its token is refused, instead of from a broken connection.
const ANSWERED_TOKEN_BYTES: usize = 16 * 1024;
const ANSWERED_EXCESS: usize = 8 * 1024;
/// Additional bytes for the rest of a message or body that contains a token, and for the rest of such a request head.
const MESSAGE_OVERHEAD: usize = 4 * 1024;
const HEAD_OVERHEAD: usize = 8 * 1024;

/// How often idle rate limits are removed.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);

/// A connection that can be closed to make room for another one.
pub trait Evict: fmt::Debug + Send + Sync {
    fn evict(&self);
}

#[derive(Debug)]
pub struct UnauthenticatedLimits {
    /// `None` means that there is no rate limit.
    rate: Option<RateLimit<Key>>,
    /// Random, so that an attacker cannot choose which shared key an address gets.
    hasher: RandomState,
    quotas: Quotas,
    /// Oldest first.
    connections: Arc<Mutex<BTreeMap<u64, Weak<dyn Evict>>>>,
    next: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(ClientAddress),
    /// Many addresses share it: those beyond [`MAX_KEYS`].
    Shared(u64),
}

/// Permits one transport without a token. It is released when the client has shown a valid token, or when it is dropped.
#[derive(Debug)]
pub struct UnauthenticatedPermit {
    id: u64,
    quota_permit: Mutex<Option<QuotaPermit>>,
    connections: Arc<Mutex<BTreeMap<u64, Weak<dyn Evict>>>>,
}

impl UnauthenticatedLimits {
    pub fn new(limits: &LimitsConfig) -> Self {
        let rate = Some(limits.handshake_rate_per_second).filter(|rate| *rate > 0);
        let rate = rate.map(|rate| RateLimit::with_burst(rate, rate.saturating_mul(BURST_SECONDS)));
        Self {
            rate,
            hasher: RandomState::new(),
            quotas: Quotas::new(limits.max_unauthenticated_per_address),
            connections: Arc::default(),
            next: AtomicU64::new(0),
        }
    }

    pub fn admit(&self, address: ClientAddress) -> Result<Arc<UnauthenticatedPermit>, RateLimited> {
        if let Some(rate) = &self.rate {
            rate.check(&self.key(rate, address))?;
        }
        // A permit is free again soon: a transport may stay without a token for 5 s, or longer if it waits for the token's key.
        let quota_permit =
            self.quotas.take(address, 1).ok_or(RateLimited { retry_after: Duration::from_secs(1) })?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(UnauthenticatedPermit {
            id,
            quota_permit: Mutex::new(Some(quota_permit)),
            connections: self.connections.clone(),
        }))
    }

    /// Registers the connection of a permit. If there are more than [`MAX_UNAUTHENTICATED`], this closes the oldest one.
    pub fn register(&self, permit: &UnauthenticatedPermit, connection: Arc<dyn Evict>) {
        let oldest = {
            let mut connections = self.connections.lock();
            insert_and_pop_oldest(&mut connections, permit.id, Arc::downgrade(&connection))
        };
        if let Some(connection) = oldest.and_then(|oldest| oldest.upgrade()) {
            connection.evict();
        }
    }

    pub fn count(&self) -> usize {
        self.connections.lock().len()
    }

    /// Removes idle rate limits. This function never returns.
    pub async fn run_cleanup(&self) {
        let mut interval = tokio::time::interval(CLEANUP_INTERVAL);
        loop {
            interval.tick().await;
            if let Some(rate) = &self.rate {
                rate.forget_idle();
            }
        }
    }

    fn key(&self, rate: &RateLimit<Key>, address: ClientAddress) -> Key {
        if rate.known() < MAX_KEYS {
            return Key::Address(address);
        }
        Key::Shared(self.hasher.hash_one(address) % SHARED_KEYS)
    }
}

impl UnauthenticatedPermit {
    pub fn release(&self) {
        self.quota_permit.lock().take();
        self.connections.lock().remove(&self.id);
    }
}

impl Drop for UnauthenticatedPermit {
    fn drop(&mut self) {
        self.release();
    }
}

/// How many bytes of a WebSocket, or of a polling request's body, the server reads before the client has shown a token. A message
/// that may contain a token can also have this length.
pub fn max_token_message_bytes(max_token_bytes: usize) -> usize {
    answered_token_bytes(max_token_bytes) + MESSAGE_OVERHEAD
}

/// The limit for the request line and the headers together.
pub fn head_bytes(max_token_bytes: usize) -> usize {
    answered_token_bytes(max_token_bytes) + HEAD_OVERHEAD
}

fn answered_token_bytes(max_token_bytes: usize) -> usize {
    ANSWERED_TOKEN_BYTES.max(max_token_bytes + ANSWERED_EXCESS)
}

/// Adds `entry`. Returns the oldest entry if there are more than [`MAX_UNAUTHENTICATED`].
fn insert_and_pop_oldest<T>(connections: &mut BTreeMap<u64, T>, id: u64, entry: T) -> Option<T> {
    connections.insert(id, entry);
    (connections.len() > MAX_UNAUTHENTICATED)
        .then(|| connections.pop_first())
        .flatten()
        .map(|(_, oldest)| oldest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn limits(rate: &str, limit: &str) -> UnauthenticatedLimits {
        let settings = [
            ("HANDSHAKE_RATE_PER_SECOND", rate),
            ("MAX_UNAUTHENTICATED_PER_ADDRESS", limit),
            ("TASKCAST_DEV", "1"),
        ];
        let sources = Sources::new(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        UnauthenticatedLimits::new(&Config::read(&sources).unwrap().limits)
    }

    fn address(n: u32) -> ClientAddress {
        ClientAddress::of_peer(std::net::Ipv4Addr::from(n).into())
    }

    #[test]
    fn an_address_has_a_burst_of_its_own() {
        let limits = limits("1", "0");
        let admitted = (0..100).filter(|_| limits.admit(address(1)).is_ok()).count();
        assert!((20..40).contains(&admitted), "{admitted}");
        let refused = limits.admit(address(1)).unwrap_err();
        assert!(refused.retry_after <= Duration::from_secs(1));
        assert!(limits.admit(address(2)).is_ok());
    }

    #[test]
    fn a_released_permit_makes_room_for_another_connection() {
        let limits = limits("0", "2");
        let [first, _second] = [limits.admit(address(1)).unwrap(), limits.admit(address(1)).unwrap()];
        assert!(limits.admit(address(1)).is_err());
        assert!(limits.admit(address(2)).is_ok());
        // The connection holds its permit as long as it lives, so `release` returns the quota earlier.
        first.release();
        assert!(limits.admit(address(1)).is_ok());
    }

    #[test]
    fn a_network_of_addresses_does_not_fill_the_table() {
        let limits = limits("1", "0");
        for n in 0..MAX_KEYS as u32 + 50_000 {
            let _ = limits.admit(address(n));
        }
        let known = limits.rate.as_ref().unwrap().known();
        assert!(known <= MAX_KEYS + SHARED_KEYS as usize, "{known}");
    }

    #[test]
    fn read_limits_grow_with_the_longest_accepted_token() {
        for (max, answered) in
            [(1024, 16 << 10), (8 << 10, 16 << 10), (16 << 10, 24 << 10), (64 << 10, 72 << 10)]
        {
            assert_eq!(max_token_message_bytes(max), answered + (4 << 10));
            assert_eq!(head_bytes(max), answered + (8 << 10));
        }
    }

    #[test]
    fn the_oldest_connection_is_returned_when_there_are_too_many() {
        let mut connections = BTreeMap::new();
        for id in 0..MAX_UNAUTHENTICATED as u64 {
            assert_eq!(insert_and_pop_oldest(&mut connections, id, id), None);
        }
        assert_eq!(insert_and_pop_oldest(&mut connections, 9_999, 9_999), Some(0));
        assert_eq!(connections.len(), MAX_UNAUTHENTICATED);
    }
}
