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
    address::{ClientAddress, Share, Shares},
    config::LimitsConfig,
    rate_limit::{RateLimit, RateLimited},
};

/// The burst is the handshake rate times this. After a deploy, all clients of an office behind one address reconnect at once,
/// and a page gives up after 10 s.
const BURST_SECONDS: u32 = 20;
/// The limit over all addresses. A client with a token leaves after a round trip or two, so it is never the oldest.
const MAX_HERE: usize = 4096;
/// The rate limit is per address for this many addresses. All further addresses share [`SHARED_KEYS`] keys.
const MAX_KEYS: usize = 65_536;
const SHARED_KEYS: u64 = 1024;
/// The server also reads tokens of up to this length, or up to `ANSWERED_BEYOND` more than `MAX_TOKEN_BYTES`, whichever is longer.
/// The client then learns from an answer that its token is refused, instead of from a broken connection.
const ANSWERED_TOKEN_BYTES: usize = 16 * 1024;
const ANSWERED_BEYOND: usize = 8 * 1024;
/// Room for the rest of a message or body beside the token, and for the rest of a request head.
const BESIDE_A_TOKEN: usize = 4 * 1024;
const HEAD_BESIDE_A_TOKEN: usize = 8 * 1024;

/// How often idle rate limits are removed.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// A connection that can be closed to make room for another one.
pub trait Evict: fmt::Debug + Send + Sync {
    fn evict(&self);
}

#[derive(Debug)]
pub struct Newcomers {
    /// `None` means that there is no rate limit.
    rate: Option<RateLimit<Key>>,
    /// Random, so that an attacker cannot choose which shared key an address gets.
    hasher: RandomState,
    shares: Shares,
    /// Oldest first.
    here: Arc<Mutex<BTreeMap<u64, Weak<dyn Evict>>>>,
    next: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(ClientAddress),
    /// Many addresses share it: those beyond [`MAX_KEYS`].
    Shared(u64),
}

/// An admitted transport without a token. It leaves when the client has shown a valid token, or when it is dropped.
#[derive(Debug)]
pub struct Newcomer {
    id: u64,
    share: Mutex<Option<Share>>,
    here: Arc<Mutex<BTreeMap<u64, Weak<dyn Evict>>>>,
}

impl Newcomers {
    pub fn new(limits: &LimitsConfig) -> Self {
        let rate = Some(limits.handshake_rate_per_second).filter(|rate| *rate > 0);
        let rate = rate.map(|rate| RateLimit::with_burst(rate, rate.saturating_mul(BURST_SECONDS)));
        Self {
            rate,
            hasher: RandomState::new(),
            shares: Shares::of(limits.max_unauthenticated_per_address),
            here: Arc::default(),
            next: AtomicU64::new(0),
        }
    }

    pub fn admit(&self, address: ClientAddress) -> Result<Arc<Newcomer>, RateLimited> {
        if let Some(rate) = &self.rate {
            rate.check(&self.key(rate, address))?;
        }
        // A share is free again soon: a transport may stay without a token for 5 s, or longer if it waits for the token's key.
        let share =
            self.shares.take(address, 1).ok_or(RateLimited { retry_after: Duration::from_secs(1) })?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Newcomer { id, share: Mutex::new(Some(share)), here: self.here.clone() }))
    }

    /// Registers the newcomer's connection. If there are more than [`MAX_HERE`], this closes the oldest one.
    pub fn came(&self, newcomer: &Newcomer, connection: Arc<dyn Evict>) {
        let oldest = {
            let mut here = self.here.lock();
            enter(&mut here, newcomer.id, Arc::downgrade(&connection))
        };
        if let Some(connection) = oldest.and_then(|oldest| oldest.upgrade()) {
            connection.evict();
        }
    }

    pub fn count(&self) -> usize {
        self.here.lock().len()
    }

    /// Removes idle rate limits. This function never returns.
    pub async fn keep_tidy(&self) {
        let mut every = tokio::time::interval(FORGET_EVERY);
        loop {
            every.tick().await;
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

impl Newcomer {
    pub fn leave(&self) {
        self.share.lock().take();
        self.here.lock().remove(&self.id);
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How many bytes of a WebSocket, or of a polling request's body, the server reads before the client has shown a token. A message
/// that may bring a token can also have this length.
pub fn bytes_with_a_token(max_token_bytes: usize) -> usize {
    answered_token_bytes(max_token_bytes) + BESIDE_A_TOKEN
}

/// The limit for the request line and the headers together.
pub fn head_bytes(max_token_bytes: usize) -> usize {
    answered_token_bytes(max_token_bytes) + HEAD_BESIDE_A_TOKEN
}

fn answered_token_bytes(max_token_bytes: usize) -> usize {
    ANSWERED_TOKEN_BYTES.max(max_token_bytes + ANSWERED_BEYOND)
}

/// Adds `one`. Returns the oldest entry if there are more than [`MAX_HERE`].
fn enter<T>(here: &mut BTreeMap<u64, T>, id: u64, one: T) -> Option<T> {
    here.insert(id, one);
    (here.len() > MAX_HERE).then(|| here.pop_first()).flatten().map(|(_, oldest)| oldest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn newcomers(rate: &str, most: &str) -> Newcomers {
        let settings = [
            ("HANDSHAKE_RATE_PER_SECOND", rate),
            ("MAX_UNAUTHENTICATED_PER_ADDRESS", most),
            ("TASKCAST_DEV", "1"),
        ];
        let sources = Sources::new(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Newcomers::new(&Config::read(&sources).unwrap().limits)
    }

    fn address(n: u32) -> ClientAddress {
        ClientAddress::of_peer(std::net::Ipv4Addr::from(n).into())
    }

    #[test]
    fn an_address_has_a_burst_of_its_own() {
        let newcomers = newcomers("1", "0");
        let admitted = (0..100).filter(|_| newcomers.admit(address(1)).is_ok()).count();
        assert!((20..40).contains(&admitted), "{admitted}");
        let refused = newcomers.admit(address(1)).unwrap_err();
        assert!(refused.retry_after <= Duration::from_secs(1));
        assert!(newcomers.admit(address(2)).is_ok());
    }

    #[test]
    fn a_newcomer_that_leaves_makes_room_for_another() {
        let newcomers = newcomers("0", "2");
        let [first, _second] = [newcomers.admit(address(1)).unwrap(), newcomers.admit(address(1)).unwrap()];
        assert!(newcomers.admit(address(1)).is_err());
        assert!(newcomers.admit(address(2)).is_ok());
        // The connection holds its newcomer as long as it lives, so room is made without a drop.
        first.leave();
        assert!(newcomers.admit(address(1)).is_ok());
    }

    #[test]
    fn a_network_of_addresses_does_not_fill_the_table() {
        let newcomers = newcomers("1", "0");
        for n in 0..MAX_KEYS as u32 + 50_000 {
            let _ = newcomers.admit(address(n));
        }
        let known = newcomers.rate.as_ref().unwrap().known();
        assert!(known <= MAX_KEYS + SHARED_KEYS as usize, "{known}");
    }

    #[test]
    fn read_limits_grow_with_the_longest_accepted_token() {
        for (max, answered) in
            [(1024, 16 << 10), (8 << 10, 16 << 10), (16 << 10, 24 << 10), (64 << 10, 72 << 10)]
        {
            assert_eq!(bytes_with_a_token(max), answered + (4 << 10));
            assert_eq!(head_bytes(max), answered + (8 << 10));
        }
    }

    #[test]
    fn the_oldest_newcomer_is_returned_when_there_are_too_many() {
        let mut here = BTreeMap::new();
        for id in 0..MAX_HERE as u64 {
            assert_eq!(enter(&mut here, id, id), None);
        }
        assert_eq!(enter(&mut here, 9_999, 9_999), Some(0));
        assert_eq!(here.len(), MAX_HERE);
    }
}
