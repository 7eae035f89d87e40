//! Measures time, latencies, and the CPU time and memory of processes.

use std::{fs, process};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// The time in microseconds, by a clock that all processes of this machine share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// A histogram of times in microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("sound bounds")
}

/// The quantiles of the times, in milliseconds.
pub fn quantiles(times: &Histogram<u64>) -> Value {
    let at = |quantile| (times.value_at_quantile(quantile) as f64 / 10.0).round() / 100.0;
    json!({"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0), "n": times.len()})
}

pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The resident memory of the processes in KiB.
pub fn rss(pids: &[u32]) -> u64 {
    pids.iter()
        .filter_map(|pid| field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:"))
        .sum()
}

fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find(|line| line.starts_with(name))?.split_whitespace().nth(1)?.parse().ok()
}

/// The CPU time of the processes in seconds. It is read for each thread in nanoseconds, because /proc/pid/stat has ticks of 10 ms. Threads
/// that have ended do not count.
pub fn cpu(pids: &[u32]) -> f64 {
    let mut nanos = 0.0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanos += text.split_whitespace().next().and_then(|ran| ran.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    nanos / 1e9
}

/// The CPU time of processes whose threads start and end, such as MongoDB. Threads that have ended count, and the resolution is 10 ms.
pub fn cpu_with_ended(pids: &[u32]) -> f64 {
    let ticks = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The process name in parentheses may contain spaces. User and system time are the 14th and 15th field.
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum::<u64>()
    };
    pids.iter().map(ticks).sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64
}

pub fn own_cpu() -> f64 {
    cpu(&[process::id()])
}

/// Prints one measurement for `benches/run.js`.
pub fn print_result(kind: &str, mut value: Value) {
    value["kind"] = json!(kind);
    println!("{value}");
}
