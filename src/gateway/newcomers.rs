//! Transports that have not shown a token yet: how many of them there may be, and how fast they may come. What they cost
//! is all that an attacker without a token can make the process pay.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use engineioxide::DisconnectReason;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::{engine::Socket, rate::TooMany};
use crate::{
    address::{ClientAddress, Share, Shares},
    config::LimitsConfig,
};

/// An office behind one address comes back all at once after a deploy, and its pages give up after 10 s.
const BURST_SECONDS: u32 = 20;
/// All addresses together. A client that has a token stays here for a round trip or two: it is never the oldest.
const MAX_HERE: usize = 4096;
/// Addresses that are told apart; when there are more, those beyond share what is left.
const MAX_KEYS: usize = 65_536;
const SHARED_KEYS: u64 = 1024;

#[derive(Debug)]
pub(super) struct Newcomers {
    /// None: as fast as they like.
    rate: Option<DefaultKeyedRateLimiter<Key>>,
    clock: DefaultClock,
    /// Which of the shared keys an address has is nobody's to choose.
    hasher: RandomState,
    shares: Shares,
    /// Oldest first.
    here: Arc<Mutex<BTreeMap<u64, Weak<Socket>>>>,
    next: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(ClientAddress),
    /// Of the many that a network of attackers has.
    Shared(u64),
}

/// One that may be here. It leaves when it is known who it is, or when it is dropped.
#[derive(Debug)]
pub(super) struct Newcomer {
    id: u64,
    share: Mutex<Option<Share>>,
    here: Arc<Mutex<BTreeMap<u64, Weak<Socket>>>>,
}

impl Newcomers {
    pub fn new(limits: &LimitsConfig) -> Self {
        let rate = NonZeroU32::new(limits.handshake_rate_per_second).map(|rate| {
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1));
            RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst))
        });
        Self {
            rate,
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
            shares: Shares::of(limits.max_unauthenticated_per_address),
            here: Arc::default(),
            next: AtomicU64::new(0),
        }
    }

    pub fn admit(&self, address: ClientAddress) -> Result<Arc<Newcomer>, TooMany> {
        if let Some(rate) = &self.rate {
            rate.check_key(&self.key(rate, address))
                .map_err(|early| TooMany { retry_after: early.wait_time_from(self.clock.now()) })?;
        }
        // They stay for five seconds at most.
        let share = self.shares.take(address, 1).ok_or(TooMany { retry_after: Duration::from_secs(1) })?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Newcomer { id, share: Mutex::new(Some(share)), here: self.here.clone() }))
    }

    /// It has a transport now. With too many of them, the oldest one goes.
    pub fn came(&self, newcomer: &Newcomer, socket: &Arc<Socket>) {
        let oldest = {
            let mut here = lock(&self.here);
            here.insert(newcomer.id, Arc::downgrade(socket));
            (here.len() > MAX_HERE).then(|| here.pop_first()).flatten()
        };
        if let Some(socket) = oldest.and_then(|(_, socket)| socket.upgrade()) {
            socket.close(DisconnectReason::TransportClose);
        }
    }

    pub fn count(&self) -> usize {
        lock(&self.here).len()
    }

    /// An address that has not come for a while is as good as one that never came.
    pub fn forget_idle(&self) {
        if let Some(rate) = &self.rate {
            rate.retain_recent();
            rate.shrink_to_fit();
        }
    }

    fn key(&self, rate: &DefaultKeyedRateLimiter<Key>, address: ClientAddress) -> Key {
        if rate.len() < MAX_KEYS {
            return Key::Address(address);
        }
        Key::Shared(self.hasher.hash_one(address) % SHARED_KEYS)
    }
}

impl Newcomer {
    pub fn leave(&self) {
        self.share.lock().unwrap_or_else(PoisonError::into_inner).take();
        lock(&self.here).remove(&self.id);
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.leave();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
