//! An index of the ring: the numbers of the steps that concern each room.

use std::{collections::VecDeque, hash::Hash};

use crate::shrinking_map::ShrinkingMap;

/// The memory that an entry needs with its share of the tables, if no other entry has the same key.
pub(super) const ENTRY_BYTES: usize = 128;

/// Numbers are added in ascending order. The smallest number in the whole index is removed first.
#[derive(Debug)]
pub(super) struct Index<K>(ShrinkingMap<K, VecDeque<u64>>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(ShrinkingMap::default())
    }
}

impl<K: Eq + Hash + Clone> Index<K> {
    pub fn add(&mut self, key: &K, number: u64) {
        match self.0.get_mut(key) {
            Some(numbers) => numbers.push_back(number),
            None => drop(self.0.insert(key.clone(), VecDeque::from([number]))),
        }
    }

    /// Removes the smallest number in the whole index, if this key has it.
    pub fn remove(&mut self, key: &K, number: u64) {
        let Some(numbers) = self.0.get_mut(key).filter(|numbers| numbers.front() == Some(&number)) else {
            return;
        };
        numbers.pop_front();
        if numbers.is_empty() {
            self.0.remove(key);
        } else if numbers.capacity() > 64 && numbers.len() < numbers.capacity() / 4 {
            numbers.shrink_to(numbers.len() * 2);
        }
    }

    /// The numbers of this key from `start` on, in order.
    pub fn from(&self, key: &K, start: u64) -> impl DoubleEndedIterator<Item = u64> {
        let numbers = self.0.get(key);
        let range = numbers.map(|numbers| numbers.range(numbers.partition_point(|number| *number < start)..));
        range.into_iter().flatten().copied()
    }

    pub fn clear(&mut self) {
        self.0 = ShrinkingMap::default();
    }

    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }
}
