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
        let mut shrunk = 0;
        for n in 0..10_000 {
            table.remove(&n);
            // A removal takes a place or none of the capacity.
            let before = table.capacity();
            table.give_back();
            shrunk += usize::from(table.capacity() < before);
            assert!(table.capacity() <= SMALL || table.len() >= table.capacity() / 4);
        }
        assert!(table.capacity() <= SMALL);
        assert!((5..12).contains(&shrunk), "{shrunk}");
    }
}
