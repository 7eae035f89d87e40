//! Limits the memory for webhook bodies whose sender is not verified yet.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{address::ClientAddress, shrinking_map::ShrinkingMap};

const UNIT: usize = 64 << 10;
/// The memory for all senders together. Bytes count when they come, so a sender that sends nothing takes no memory.
const OPEN_BYTES: usize = 64 << 20;
/// The limit for one address. It suffices for a delivery of the largest size and some of the usual size.
const ADDRESS_BYTES: usize = 32 << 20;
/// When `OPEN_BYTES` are used up, addresses that have sent a delivery with a valid signature can use this memory.
const KEPT_BYTES: usize = 32 << 20;
/// At most this many such addresses are remembered, the latest ones.
const MAX_KNOWN: usize = 64;

#[derive(Debug)]
pub struct BodyMemory {
    open: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    /// The limits of the addresses that have a body here at the moment.
    shares: Mutex<ShrinkingMap<ClientAddress, Weak<Semaphore>>>,
    /// Addresses that have sent a delivery with a valid signature, the latest last.
    known: Mutex<VecDeque<ClientAddress>>,
}

/// The memory that one body has taken.
#[derive(Debug)]
pub struct Reservation {
    share: Arc<Semaphore>,
    known: bool,
    bytes: usize,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self {
            open: Arc::new(Semaphore::new(OPEN_BYTES / UNIT)),
            kept: Arc::new(Semaphore::new(KEPT_BYTES / UNIT)),
            shares: Mutex::default(),
            known: Mutex::default(),
        }
    }
}

impl BodyMemory {
    pub fn enter(&self, address: ClientAddress) -> Reservation {
        let mut shares = self.shares.lock();
        let share = shares.get(&address).and_then(Weak::upgrade).unwrap_or_else(|| {
            shares.retain(|_, share| share.strong_count() > 0);
            let share = Arc::new(Semaphore::new(ADDRESS_BYTES / UNIT));
            shares.insert(address, Arc::downgrade(&share));
            share
        });
        let known = self.known.lock().contains(&address);
        Reservation { share, known, bytes: 0, permits: Vec::new() }
    }

    /// Waits until there is room for a body of this length.
    pub async fn grow(&self, taken: &mut Reservation, length: usize) {
        let units = length.div_ceil(UNIT).saturating_sub(taken.bytes.div_ceil(UNIT));
        taken.bytes = taken.bytes.max(length);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        if units == 0 {
            return;
        }
        // The semaphores are never closed, so waiting for permits does not fail.
        taken.permits.extend(taken.share.clone().acquire_many_owned(units).await);
        let open = self.open.clone();
        match open.clone().try_acquire_many_owned(units) {
            Ok(permit) => taken.permits.push(permit),
            Err(_) if taken.known => taken.permits.extend(self.kept.clone().acquire_many_owned(units).await),
            Err(_) => taken.permits.extend(open.acquire_many_owned(units).await),
        }
    }

    /// Remembers an address that has sent a delivery with a valid signature.
    pub fn trust(&self, address: ClientAddress) {
        let mut known = self.known.lock();
        known.retain(|one| *one != address);
        known.push_back(address);
        if known.len() > MAX_KNOWN {
            known.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn address(n: u8) -> ClientAddress {
        ClientAddress::of_peer([192, 0, 2, n].into())
    }

    /// Returns whether there is room right now.
    fn fits(memory: &BodyMemory, taken: &mut Reservation, bytes: usize) -> bool {
        memory.grow(taken, bytes).now_or_never().is_some()
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let memory = BodyMemory::default();
        let mut greedy = memory.enter(address(1));
        assert!(fits(&memory, &mut greedy, 25 << 20));
        assert!(!fits(&memory, &mut memory.enter(address(1)), 8 << 20));
        assert!(fits(&memory, &mut memory.enter(address(1)), 4 << 20));
        assert!(fits(&memory, &mut memory.enter(address(2)), 25 << 20));
        drop(greedy);
        assert!(fits(&memory, &mut memory.enter(address(1)), 32 << 20));
    }

    #[test]
    fn many_addresses_leave_room_for_those_that_are_known() {
        let memory = BodyMemory::default();
        memory.trust(address(9));
        let mut held: Vec<Reservation> = (1..3).map(|n| memory.enter(address(n))).collect();
        assert!(held.iter_mut().all(|taken| fits(&memory, taken, 32 << 20)));
        assert!(!fits(&memory, &mut memory.enter(address(8)), 1));
        assert!(fits(&memory, &mut memory.enter(address(9)), 25 << 20));
    }

    #[test]
    fn the_tables_of_addresses_do_not_grow_without_limit() {
        let memory = BodyMemory::default();
        for n in 0..200 {
            memory.enter(address(n));
            memory.trust(address(n));
        }
        assert_eq!((memory.shares.lock().len(), memory.known.lock().len()), (1, MAX_KNOWN));
    }
}
