//! Limits the memory for webhook bodies whose sender is not verified yet.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{address::ClientAddress, shrinking_map::ShrinkingMap};

const UNIT: usize = 64 << 10;
/// The memory for all senders together. Bytes are counted when they arrive, so a sender that sends nothing takes no memory.
const GENERAL_BYTES: usize = 64 << 20;
/// The limit for one address. It suffices for a delivery of the largest size and some of the usual size.
const ADDRESS_BYTES: usize = 32 << 20;
/// When `GENERAL_BYTES` are used up, addresses that have sent a delivery with a valid signature can use this memory.
const RESERVED_BYTES: usize = 32 << 20;
/// The number of such addresses that are remembered. The oldest one is forgotten first.
const MAX_VERIFIED: usize = 64;

#[derive(Debug)]
pub struct BodyMemory {
    general: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    /// The limits of the addresses that have a body here at the moment.
    address_limits: Mutex<ShrinkingMap<ClientAddress, Weak<Semaphore>>>,
    /// Addresses that have sent a delivery with a valid signature, the latest last.
    verified: Mutex<VecDeque<ClientAddress>>,
}

/// The memory that one body has taken.
#[derive(Debug)]
pub struct Reservation {
    address_limit: Arc<Semaphore>,
    verified: bool,
    bytes: usize,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self {
            general: Arc::new(Semaphore::new(GENERAL_BYTES / UNIT)),
            reserved: Arc::new(Semaphore::new(RESERVED_BYTES / UNIT)),
            address_limits: Mutex::default(),
            verified: Mutex::default(),
        }
    }
}

impl BodyMemory {
    pub fn open_reservation(&self, address: ClientAddress) -> Reservation {
        let mut address_limits = self.address_limits.lock();
        let address_limit = address_limits.get(&address).and_then(Weak::upgrade).unwrap_or_else(|| {
            address_limits.retain(|_, address_limit| address_limit.strong_count() > 0);
            let address_limit = Arc::new(Semaphore::new(ADDRESS_BYTES / UNIT));
            address_limits.insert(address, Arc::downgrade(&address_limit));
            address_limit
        });
        let verified = self.verified.lock().contains(&address);
        Reservation { address_limit, verified, bytes: 0, permits: Vec::new() }
    }

    /// Waits until there is room for a body of this length.
    pub async fn grow(&self, reservation: &mut Reservation, length: usize) {
        let units = length.div_ceil(UNIT).saturating_sub(reservation.bytes.div_ceil(UNIT));
        reservation.bytes = reservation.bytes.max(length);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        if units == 0 {
            return;
        }
        // The semaphores are never closed, so waiting for permits does not fail.
        reservation.permits.extend(reservation.address_limit.clone().acquire_many_owned(units).await);
        let general = self.general.clone();
        match general.clone().try_acquire_many_owned(units) {
            Ok(permit) => reservation.permits.push(permit),
            Err(_) if reservation.verified => {
                reservation.permits.extend(self.reserved.clone().acquire_many_owned(units).await)
            }
            Err(_) => reservation.permits.extend(general.acquire_many_owned(units).await),
        }
    }

    /// Remembers an address that has sent a delivery with a valid signature.
    pub fn trust(&self, address: ClientAddress) {
        let mut verified = self.verified.lock();
        verified.retain(|other| *other != address);
        verified.push_back(address);
        if verified.len() > MAX_VERIFIED {
            verified.pop_front();
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
    fn fits(memory: &BodyMemory, reservation: &mut Reservation, bytes: usize) -> bool {
        memory.grow(reservation, bytes).now_or_never().is_some()
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let memory = BodyMemory::default();
        let mut greedy = memory.open_reservation(address(1));
        assert!(fits(&memory, &mut greedy, 25 << 20));
        assert!(!fits(&memory, &mut memory.open_reservation(address(1)), 8 << 20));
        assert!(fits(&memory, &mut memory.open_reservation(address(1)), 4 << 20));
        assert!(fits(&memory, &mut memory.open_reservation(address(2)), 25 << 20));
        drop(greedy);
        assert!(fits(&memory, &mut memory.open_reservation(address(1)), 32 << 20));
    }

    #[test]
    fn many_addresses_leave_room_for_those_that_are_known() {
        let memory = BodyMemory::default();
        memory.trust(address(9));
        let mut reservations: Vec<Reservation> =
            (1..3).map(|n| memory.open_reservation(address(n))).collect();
        assert!(reservations.iter_mut().all(|reservation| fits(&memory, reservation, 32 << 20)));
        assert!(!fits(&memory, &mut memory.open_reservation(address(8)), 1));
        assert!(fits(&memory, &mut memory.open_reservation(address(9)), 25 << 20));
    }

    #[test]
    fn the_tables_of_addresses_do_not_grow_without_limit() {
        let memory = BodyMemory::default();
        for n in 0..200 {
            memory.open_reservation(address(n));
            memory.trust(address(n));
        }
        assert_eq!((memory.address_limits.lock().len(), memory.verified.lock().len()), (1, MAX_VERIFIED));
    }
}
