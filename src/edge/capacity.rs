//! Limits how many connections the process holds. Each needs a file descriptor and some memory, and so do the store, the HTTP API
//! and the connected clients.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustix::process::{Resource, getrlimit};

use super::MemoryLimit;

/// File descriptors for the store, its files and whatever a library opens. If the limit is small, only a quarter of it is reserved.
const RESERVED: usize = 64;

/// How many connections are open, and how many there may be.
#[derive(Clone, Debug)]
pub struct Capacity {
    open: Arc<AtomicUsize>,
    max: usize,
    memory: MemoryLimit,
}

/// A connection's slot. It is free again when this is dropped.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Capacity {
    /// Derives the capacity from the process's limits for file descriptors and memory.
    pub fn for_this_process(memory: MemoryLimit) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current;
        let descriptors = descriptors.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Self::from_descriptors(descriptors, memory)
    }

    fn from_descriptors(descriptors: usize, memory: MemoryLimit) -> Self {
        Self::new(descriptors - RESERVED.min(descriptors / 4), memory)
    }

    pub fn new(max: usize, memory: MemoryLimit) -> Self {
        Self { open: Arc::default(), max, memory }
    }

    /// `None` means that the caller has to close the connection.
    pub fn take(&self) -> Option<Slot> {
        let slot = Slot(self.open.clone());
        // Dropping `slot` undoes the addition in either case.
        (self.open.fetch_add(1, Ordering::Relaxed) < self.max).then_some(slot)
    }

    /// Returns whether the remaining slots and memory are reserved for existing clients. A polling client opens more than one
    /// connection, and `/api/health` must stay reachable.
    pub fn is_scarce(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.max - self.max / 8 || self.memory.is_scarce()
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub fn max(&self) -> usize {
        self.max
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_connection_ends() {
        let capacity = Capacity::from_descriptors(16, MemoryLimit::for_this_process(Some(u64::MAX)));
        assert_eq!(capacity.max(), 12);
        let mut slots: Vec<Slot> = std::iter::from_fn(|| capacity.take()).collect();
        assert_eq!(slots.len(), 12);
        assert!(capacity.is_scarce());
        assert!(capacity.take().is_none());
        slots.truncate(11);
        assert!(!capacity.is_scarce());
        slots.push(capacity.take().unwrap());
        assert!(capacity.is_scarce(), "the last eighth");
        assert!(capacity.take().is_none(), "a refusal takes no slot");
    }
}
