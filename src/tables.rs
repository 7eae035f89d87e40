//! Tables that give back the room that a burst has made them take.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash},
};

/// Smaller ones are not worth it.
const SMALL: usize = 64;

pub trait GiveBack {
    /// To be called after a removal. It costs nothing over all removals: the table halves each time.
    fn give_back(&mut self);
}

/// None: it is well filled.
fn enough(len: usize, capacity: usize) -> Option<usize> {
    (capacity > SMALL && len < capacity / 4).then(|| len.max(SMALL / 4) * 2)
}

impl<K: Eq + Hash, V, S: BuildHasher> GiveBack for HashMap<K, V, S> {
    fn give_back(&mut self) {
        if let Some(enough) = enough(self.len(), self.capacity()) {
            self.shrink_to(enough);
        }
    }
}

impl<T: Eq + Hash, S: BuildHasher> GiveBack for HashSet<T, S> {
    fn give_back(&mut self) {
        if let Some(enough) = enough(self.len(), self.capacity()) {
            self.shrink_to(enough);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shrinks_seldom_and_in_time() {
        let mut table: HashSet<u32> = (0..10_000).collect();
        let mut capacities = vec![table.capacity()];
        for n in 0..10_000 {
            table.remove(&n);
            table.give_back();
            assert!(table.capacity() <= SMALL || table.len() * 4 >= table.capacity() - 4);
            if capacities.last() != Some(&table.capacity()) {
                capacities.push(table.capacity());
            }
        }
        assert!(table.capacity() <= SMALL && capacities.len() < 12, "{capacities:?}");
    }
}
