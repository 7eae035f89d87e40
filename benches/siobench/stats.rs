//! Statistics of the received events: latency, duplicates and wrong order.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{
    measure::{histogram, now, quantiles},
    packet::{Kind, Marker, kind},
};

#[derive(Debug)]
pub struct Stats {
    /// Events that were due before this time belong to the warm-up.
    pub from: u64,
    pub latency: Histogram<u64>,
    /// The latency of events that were due before the client began to connect, measured from that moment.
    pub reconnect_latency: Histogram<u64>,
    /// The number of events with a marker, without duplicates.
    pub received: u64,
    pub twice: u64,
    pub out_of_order: u64,
    /// The number of events without a marker, such as counts.
    pub unmarked: u64,
    pub warm_up: u64,
    pub bytes: u64,
    /// The number of all events.
    pub total: u64,
}

/// The events that one client has received, for each stream and kind: the highest number, and which of the 64 numbers before it.
#[derive(Debug, Default)]
pub struct ReceivedNumbers(Vec<(u64, u64, u64)>);

#[derive(PartialEq, Eq)]
enum Order {
    Next,
    Late,
    Twice,
}

impl ReceivedNumbers {
    fn record(&mut self, key: u64, n: u64) -> Order {
        let at = self.0.iter().position(|entry| entry.0 == key).unwrap_or_else(|| {
            self.0.push((key, 0, 0));
            self.0.len() - 1
        });
        let (_, last, before) = &mut self.0[at];
        if n > *last {
            let step = n - *last;
            *before =
                if step > 64 { 0 } else { (*before << (step - 1) << 1) | u64::from(*last > 0) << (step - 1) };
            *last = n;
            return Order::Next;
        }
        if n == *last {
            return Order::Twice;
        }
        let bit = *last - n - 1;
        if bit < 64 && *before >> bit & 1 == 1 {
            return Order::Twice;
        }
        if bit < 64 {
            *before |= 1 << bit;
        }
        Order::Late
    }
}

impl Stats {
    pub fn from(from: u64) -> Self {
        Self {
            from,
            latency: histogram(),
            reconnect_latency: histogram(),
            received: 0,
            twice: 0,
            out_of_order: 0,
            unmarked: 0,
            warm_up: 0,
            bytes: 0,
            total: 0,
        }
    }

    /// Counts a whole `42[…]` packet of a connection that was begun at `started`.
    pub fn record(&mut self, packet: &[u8], received_numbers: &mut ReceivedNumbers, started: u64) -> Kind {
        let kind = kind(packet);
        if matches!(kind, Kind::State | Kind::Error) {
            return kind;
        }
        self.total += 1;
        let Some(Marker { stream, n, due }) = Marker::find(packet) else {
            self.unmarked += 1;
            return kind;
        };
        let order = received_numbers.record(stream << 3 | kind as u64, n);
        if due < self.from {
            self.warm_up += 1;
            return kind;
        }
        if order == Order::Twice {
            self.twice += 1;
            return kind;
        }
        self.out_of_order += u64::from(order == Order::Late);
        self.received += 1;
        self.bytes += packet.len() as u64;
        let now = now();
        self.latency.record(now.saturating_sub(due).max(1)).ok();
        if due < started {
            self.reconnect_latency.record(now.saturating_sub(started).max(1)).ok();
        }
        kind
    }

    pub fn summary(&self) -> Value {
        json!({
            "deliveries": self.received, "twice": self.twice, "out_of_order": self.out_of_order, "unmarked": self.unmarked,
            "warm_up": self.warm_up, "bytes_per_delivery": (self.bytes as f64 / self.received.max(1) as f64).round(),
            "latency_ms": quantiles(&self.latency),
        })
    }
}
