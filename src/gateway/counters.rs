//! What the gateway has done, for `/api/health`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Seconds over which a rate is averaged.
const WINDOW: u64 = 5;
/// One for the running second beside the window.
const SLOTS: usize = WINDOW as usize + 1;

#[derive(Debug)]
pub struct GatewayCounters {
    /// Packets queued for clients.
    pub messages: Rate,
    /// Refusals sent to clients, and connections that ended by a fault of theirs.
    pub errors: AtomicU64,
}

impl Default for GatewayCounters {
    fn default() -> Self {
        Self { messages: Rate::new(Instant::now()), errors: AtomicU64::new(0) }
    }
}

impl GatewayCounters {
    pub fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub fn total_errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

/// Counts per second. Each slot holds its second (high 24 bits) and its count.
#[derive(Debug)]
pub struct Rate {
    start: Instant,
    slots: [AtomicU64; SLOTS],
}

const COUNT_BITS: u32 = 40;

impl Rate {
    fn new(start: Instant) -> Self {
        Self { start, slots: Default::default() }
    }

    pub fn count(&self) {
        self.count_at(self.start.elapsed().as_secs());
    }

    /// Events per second over the last full seconds.
    pub fn per_second(&self) -> f64 {
        self.per_second_at(self.start.elapsed().as_secs())
    }

    fn count_at(&self, second: u64) {
        let slot = &self.slots[(second % SLOTS as u64) as usize];
        let fresh = (second + 1) << COUNT_BITS;
        let seen = slot.load(Ordering::Relaxed);
        let begins = seen >> COUNT_BITS != second + 1;
        // Whoever loses the race to begin a second counts in it.
        if !begins || slot.compare_exchange(seen, fresh + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            slot.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn per_second_at(&self, now: u64) -> f64 {
        let counted = |second: u64| {
            let seen = self.slots[(second % SLOTS as u64) as usize].load(Ordering::Relaxed);
            if seen >> COUNT_BITS == second + 1 { seen & ((1 << COUNT_BITS) - 1) } else { 0 }
        };
        let full_seconds = now.min(WINDOW);
        let sum: u64 = (now - full_seconds..now).map(counted).sum();
        sum as f64 / full_seconds.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_full_seconds() {
        let rate = Rate::new(Instant::now());
        for second in 0..10 {
            for _ in 0..second {
                rate.count_at(second);
            }
        }
        assert_eq!(rate.per_second_at(10), f64::from(5 + 6 + 7 + 8 + 9) / 5.0);
        assert_eq!(rate.per_second_at(100), 0.0);
        assert_eq!(rate.per_second_at(1), 0.0);
    }
}
