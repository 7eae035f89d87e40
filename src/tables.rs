//! Shrinks hash tables, so that they release the memory that a burst has used.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash},
};

/// Tables of this capacity or less are not shrunk.
const SMALL: usize = 64;

pub trait GiveBack {
    /// Call this after a removal. The amortised cost is constant, because the table halves each time.
    fn give_back(&mut self);
}

/// The new size of a table. `None` means that the table stays as it is.
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
        let mut shrunk = 0;
        for n in 0..10_000 {
            table.remove(&n);
            // A removal may itself lower the capacity by one.
            let before = table.capacity();
            table.give_back();
            shrunk += usize::from(table.capacity() < before);
            assert!(table.capacity() <= SMALL || table.len() >= table.capacity() / 4);
        }
        assert!(table.capacity() <= SMALL);
        assert!((5..12).contains(&shrunk), "{shrunk}");
    }
}
