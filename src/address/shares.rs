//! Limits how much of a resource each address, or each user, holds at the same time.

use std::{hash::Hash, sync::Arc};

use parking_lot::Mutex;

use super::ClientAddress;
use crate::shrinking_map::ShrinkingMap;

/// A limit for each key (an address or a user), independent of the other keys. A key that holds nothing is removed.
#[derive(Clone, Debug)]
pub struct Shares<K = ClientAddress> {
    /// `None` means no limit.
    most: Option<usize>,
    taken: Arc<Mutex<ShrinkingMap<K, usize>>>,
}

/// The amount that a key holds. Dropping it returns the amount.
#[derive(Debug)]
pub struct Share<K: Clone + Eq + Hash = ClientAddress> {
    of: Shares<K>,
    who: K,
    amount: usize,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub fn of(most: Option<usize>) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// `None` means that the amount would exceed the limit.
    pub fn take(&self, who: K, amount: usize) -> Option<Share<K>> {
        let mut share = Share { of: self.clone(), who, amount: 0 };
        share.grow(amount).then_some(share)
    }
}

impl<K: Clone + Eq + Hash> Share<K> {
    /// Adds to the amount. Returns false, and adds nothing, if the limit would be exceeded.
    pub fn grow(&mut self, more: usize) -> bool {
        let Some(most) = self.of.most else { return true };
        let mut taken = self.of.taken.lock();
        let before = taken.get(&self.who).copied().unwrap_or_default();
        let fits = before.saturating_add(more) <= most;
        if fits && more > 0 {
            taken.insert(self.who.clone(), before + more);
            self.amount += more;
        }
        fits
    }
}

impl<K: Clone + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut taken = self.of.taken.lock();
        if let Some(all) = taken.get_mut(&self.who) {
            *all = all.saturating_sub(self.amount);
            if *all == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ClientAddress {
        ClientAddress::of_peer(text.parse().unwrap())
    }

    #[test]
    fn an_address_uses_nothing_of_the_share_of_another() {
        let shares = Shares::of(Some(3));
        let (greedy, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut held = shares.take(greedy, 2).unwrap();
        assert!(!held.grow(2) && held.grow(1) && !held.grow(1));
        assert!(shares.take(greedy, 1).is_none());
        let others = shares.take(other, 3).unwrap();
        drop(held);
        assert!(shares.take(greedy, 3).is_some());
        drop(others);
        assert!(shares.taken.lock().is_empty(), "no address is kept");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let shares = Shares::of(None);
        let _held = shares.take(address("192.0.2.1"), usize::MAX).unwrap();
        assert!(shares.take(address("192.0.2.1"), usize::MAX).is_some() && shares.taken.lock().is_empty());
    }
}
