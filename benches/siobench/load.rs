//! Produces events at a fixed rate, or as fast as the clients receive them.

use std::{error::Error, io, rc::Rc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use crate::{
    client::RunState,
    measure::{cpu, cpu_with_ended, now, own_cpu, quantiles, rounded, rss},
    options::Write,
    packet::Marker,
    source::Source,
    stats::Stats,
};

/// After this many seconds without any event, the generator stops waiting for more.
const MAX_SILENCE_SECONDS: f64 = 3.0;
const MAX_BATCH: usize = 200;

#[derive(Debug)]
pub struct Load {
    state: Rc<RunState>,
    source: Source,
    /// The number of writes to each task so far.
    written: Vec<u64>,
    /// The number of deliveries with a marker that one write to each task causes.
    audience: Vec<u64>,
    events: u64,
    expected: u64,
    next: usize,
}

/// The CPU time that had been used when the measured part began.
struct Before {
    cpu: f64,
    own: f64,
    mongod: f64,
}

impl Load {
    pub async fn new(state: &Rc<RunState>) -> Result<Self, Box<dyn Error>> {
        let options = &state.options;
        let mut audience = vec![0; options.tasks];
        let in_room = if options.write == Write::Full { 2 } else { 1 };
        for n in 0..options.conns {
            if let Some(task) = options.task_of(n) {
                audience[task] += in_room;
            }
            if options.on_dashboard(n) {
                let org = options.org_of(n);
                audience.iter_mut().skip(org).step_by(options.orgs).for_each(|members| *members += 1);
            }
        }
        let source = Source::open(options).await?;
        let written = vec![0; options.tasks];
        Ok(Self { state: state.clone(), source, written, audience, events: 0, expected: 0, next: 0 })
    }

    fn next(&mut self, due: u64) -> Marker {
        let task = self.next % self.written.len();
        self.next += 1;
        self.written[task] += 1;
        if due >= self.state.stats.borrow().from {
            self.events += 1;
            self.expected += self.audience[task];
        }
        Marker { stream: task as u64, n: self.written[task], due }
    }

    pub fn largest_audience(&self) -> u64 {
        self.audience.iter().copied().max().unwrap_or(1).max(1)
    }

    fn begin(&mut self, from: u64) {
        *self.state.stats.borrow_mut() = Stats::from(from);
        (self.events, self.expected) = (0, 0);
        if let Source::Mongo { commits, .. } = &self.source {
            commits.borrow_mut().reset();
        }
    }

    fn before(&self) -> Before {
        let options = &self.state.options;
        Before { cpu: cpu(&options.pids), own: own_cpu(), mongod: cpu_with_ended(&options.mongod_pid) }
    }

    /// Sends `rate` events per second, whether the clients receive them in time or not.
    pub async fn at_rate(&mut self, rate: f64, warm: f64, seconds: f64) -> io::Result<Value> {
        let started = now();
        let from = started + (warm * 1e6) as u64;
        let end = from + (seconds * 1e6) as u64;
        self.begin(from);
        let (mut n, mut before) = (0_u64, None);
        let due_at = |n: u64| started + (n as f64 / rate * 1e6) as u64;
        loop {
            let now = now();
            if now >= from && before.is_none() {
                before = Some(self.before());
            }
            let mut markers = Vec::new();
            while markers.len() < MAX_BATCH && due_at(n) <= now && due_at(n) < end {
                markers.push(self.next(due_at(n)));
                n += 1;
            }
            if !markers.is_empty() {
                self.source.send(&markers).await?;
            }
            if now >= end {
                break;
            }
            match due_at(n).min(end).saturating_sub(now) {
                0 => yield_now().await,
                micros => sleep(Duration::from_micros(micros)).await,
            }
        }
        let before = before.unwrap_or_else(|| self.before());
        let mut result = self.finish(before, seconds).await;
        result["rate"] = json!(rate);
        Ok(result)
    }

    /// A closed loop: keeps the deliveries of `window` events in flight.
    pub async fn closed_loop(&mut self, warm: f64, seconds: f64) -> io::Result<Value> {
        let started = now();
        let from = started + (warm * 1e6) as u64;
        let end = from + (seconds * 1e6) as u64;
        self.begin(u64::MAX);
        let state = self.state.clone();
        let window = state.options.window * self.largest_audience();
        let (mut expected_total, mut before) = (0, None);
        loop {
            let now = now();
            if now >= end {
                break;
            }
            if now >= from && before.is_none() {
                before = Some(self.before());
                // Events in flight belong to the warm-up.
                state.stats.borrow_mut().from = now;
            }
            if expected_total >= state.stats.borrow().total + window {
                state.goal.set(expected_total - window + 1);
                if timeout(Duration::from_secs(2), state.reached.notified()).await.is_err() {
                    // Lost deliveries are not waited for.
                    expected_total = state.stats.borrow().total;
                }
                continue;
            }
            let marker = self.next(now);
            expected_total += self.audience[marker.stream as usize];
            self.source.send(&[marker]).await?;
        }
        let before = before.unwrap_or_else(|| self.before());
        Ok(self.finish(before, seconds).await)
    }

    /// Waits until all expected deliveries have arrived, or until no more arrive.
    async fn finish(&mut self, before: Before, seconds: f64) -> Value {
        let (state, options) = (&self.state, &self.state.options);
        let received_in_time = state.stats.borrow().received;
        let (mut last, mut silence) = (0, 0.0);
        while state.stats.borrow().received < self.expected && silence < MAX_SILENCE_SECONDS {
            sleep(Duration::from_millis(50)).await;
            let total = state.stats.borrow().total;
            silence = if total == last { silence + 0.05 } else { 0.0 };
            last = total;
        }
        let used = cpu(&options.pids) - before.cpu;
        let stats = state.stats.borrow();
        let mut result = stats.summary();
        result["conns"] = json!(options.conns);
        result["tasks"] = json!(options.tasks);
        result["seconds"] = json!(seconds);
        result["events"] = json!(self.events);
        result["expected"] = json!(self.expected);
        result["lost"] = json!(self.expected.saturating_sub(stats.received));
        result["closed"] = json!(state.closed.get());
        result["deliveries_per_s"] = json!((received_in_time as f64 / seconds).round());
        result["rss_kib"] = json!(rss(&options.pids));
        result["cpu_s"] = json!(rounded(used));
        result["cpu_s_per_million"] = json!(rounded(used * 1e6 / stats.received.max(1) as f64));
        result["cpu_ms_per_event"] = json!(rounded(used * 1e3 / self.events.max(1) as f64));
        result["generator_cpu_s"] = json!(rounded(own_cpu() - before.own));
        result["mongod_cpu_s"] = json!(rounded(cpu_with_ended(&options.mongod_pid) - before.mongod));
        if let Source::Mongo { commits, .. } = &self.source {
            result["commit_ms"] = quantiles(&commits.borrow());
        }
        result
    }
}
