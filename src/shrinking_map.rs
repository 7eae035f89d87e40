//! Hash maps and sets that release memory when entries are removed, so that a burst of clients does not keep its memory for ever.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet, hash_map, hash_set},
    hash::{BuildHasher, Hash, RandomState},
    ops::Deref,
};

/// A table of this capacity or less does not shrink.
const SMALL: usize = 64;

/// The new capacity of a table. `None` means that the table stays as it is. The amortised cost of a removal is constant, because
/// the table halves each time.
fn smaller_capacity(len: usize, capacity: usize) -> Option<usize> {
    (capacity > SMALL && len < capacity / 4).then(|| len.max(SMALL / 4) * 2)
}

/// A `HashMap` that shrinks on removal. All methods that only read are those of `HashMap`.
#[derive(Clone, Debug)]
pub struct ShrinkingMap<K, V, S = RandomState>(HashMap<K, V, S>);

impl<K, V, S: Default> Default for ShrinkingMap<K, V, S> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K, V, S> Deref for ShrinkingMap<K, V, S> {
    type Target = HashMap<K, V, S>;

    fn deref(&self) -> &HashMap<K, V, S> {
        &self.0
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> ShrinkingMap<K, V, S> {
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// The caller does not remove an entry this way, because the map would not shrink.
    pub fn entry(&mut self, key: K) -> hash_map::Entry<'_, K, V> {
        self.0.entry(key)
    }

    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    pub fn values_mut(&mut self) -> hash_map::ValuesMut<'_, K, V> {
        self.0.values_mut()
    }

    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = self.0.remove(key);
        self.shrink();
        removed
    }

    pub fn retain(&mut self, keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain(keep);
        self.shrink();
    }

    fn shrink(&mut self) {
        if let Some(capacity) = smaller_capacity(self.0.len(), self.0.capacity()) {
            self.0.shrink_to(capacity);
        }
    }
}

impl<'a, K, V, S> IntoIterator for &'a ShrinkingMap<K, V, S> {
    type Item = (&'a K, &'a V);
    type IntoIter = hash_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a, K, V, S> IntoIterator for &'a mut ShrinkingMap<K, V, S> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = hash_map::IterMut<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}

/// A `HashSet` that shrinks on removal. All methods that only read are those of `HashSet`.
#[derive(Clone, Debug)]
pub struct ShrinkingSet<T>(HashSet<T>);

impl<T> Default for ShrinkingSet<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T> Deref for ShrinkingSet<T> {
    type Target = HashSet<T>;

    fn deref(&self) -> &HashSet<T> {
        &self.0
    }
}

impl<T: Eq + Hash> ShrinkingSet<T> {
    pub fn insert(&mut self, value: T) -> bool {
        self.0.insert(value)
    }

    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, value: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        let removed = self.0.remove(value);
        if let Some(capacity) = smaller_capacity(self.0.len(), self.0.capacity()) {
            self.0.shrink_to(capacity);
        }
        removed
    }
}

impl<T> IntoIterator for ShrinkingSet<T> {
    type Item = T;
    type IntoIter = hash_set::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a ShrinkingSet<T> {
    type Item = &'a T;
    type IntoIter = hash_set::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shrinks_rarely_and_in_time() {
        let (mut map, mut set): (ShrinkingMap<_, _>, _) = (ShrinkingMap::default(), ShrinkingSet::default());
        for n in 0..10_000 {
            map.insert(n, ());
            set.insert(n);
        }
        let mut shrunk = [0; 2];
        for n in 0..10_000 {
            // A removal by itself lowers the capacity by one at most.
            let before = [map.capacity(), set.capacity()];
            map.remove(&n);
            set.remove(&n);
            for (table, (len, capacity)) in
                [(map.len(), map.capacity()), (set.len(), set.capacity())].into_iter().enumerate()
            {
                shrunk[table] += usize::from(capacity + 1 < before[table]);
                assert!(capacity <= SMALL || len >= capacity / 4);
            }
        }
        assert!(shrunk.iter().all(|times| (5..12).contains(times)), "{shrunk:?}");
    }

    #[test]
    fn a_map_shrinks_when_it_retains_little() {
        let mut map: ShrinkingMap<_, _> = ShrinkingMap::default();
        for n in 0..10_000 {
            map.insert(n, ());
        }
        map.retain(|n, ()| *n < 10);
        assert!(map.len() == 10 && map.capacity() <= SMALL, "{}", map.capacity());
    }
}
