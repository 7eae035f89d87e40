//! Limits how much of a resource each address, or each user, holds at the same time.

use std::{hash::Hash, sync::Arc};

use parking_lot::Mutex;

use super::ClientAddress;
use crate::shrinking_map::ShrinkingMap;

/// A limit for each key (an address or a user), independent of the other keys. A key that holds nothing is removed.
#[derive(Clone, Debug)]
pub struct Quotas<K = ClientAddress> {
    /// `None` means no limit.
    limit: Option<usize>,
    used: Arc<Mutex<ShrinkingMap<K, usize>>>,
}

/// The amount that a key holds. Dropping the permit releases the amount.
#[derive(Debug)]
pub struct QuotaPermit<K: Clone + Eq + Hash = ClientAddress> {
    quotas: Quotas<K>,
    key: K,
    amount: usize,
}

impl<K: Clone + Eq + Hash> Quotas<K> {
    pub fn new(limit: Option<usize>) -> Self {
        Self { limit, used: Arc::default() }
    }

    /// `None` means that the amount would exceed the limit.
    pub fn take(&self, key: K, amount: usize) -> Option<QuotaPermit<K>> {
        let mut permit = QuotaPermit { quotas: self.clone(), key, amount: 0 };
        permit.grow(amount).then_some(permit)
    }
}

impl<K: Clone + Eq + Hash> QuotaPermit<K> {
    /// Adds to the amount. Returns false, and adds nothing, if the limit would be exceeded.
    pub fn grow(&mut self, more: usize) -> bool {
        let Some(limit) = self.quotas.limit else { return true };
        let mut used = self.quotas.used.lock();
        let before = used.get(&self.key).copied().unwrap_or_default();
        let fits = before.saturating_add(more) <= limit;
        if fits && more > 0 {
            used.insert(self.key.clone(), before + more);
            self.amount += more;
        }
        fits
    }
}

impl<K: Clone + Eq + Hash> Drop for QuotaPermit<K> {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut used = self.quotas.used.lock();
        if let Some(total) = used.get_mut(&self.key) {
            *total = total.saturating_sub(self.amount);
            if *total == 0 {
                used.remove(&self.key);
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
    fn the_quota_of_an_address_is_independent_of_other_addresses() {
        let quotas = Quotas::new(Some(3));
        let (greedy, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut permit = quotas.take(greedy, 2).unwrap();
        assert!(!permit.grow(2) && permit.grow(1) && !permit.grow(1));
        assert!(quotas.take(greedy, 1).is_none());
        let other_permit = quotas.take(other, 3).unwrap();
        drop(permit);
        assert!(quotas.take(greedy, 3).is_some());
        drop(other_permit);
        assert!(quotas.used.lock().is_empty(), "no address is kept");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let quotas = Quotas::new(None);
        let _permit = quotas.take(address("192.0.2.1"), usize::MAX).unwrap();
        assert!(quotas.take(address("192.0.2.1"), usize::MAX).is_some() && quotas.used.lock().is_empty());
    }
}
