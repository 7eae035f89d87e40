//! Metrics of the process, with the names that Prometheus client libraries use. Without `/proc`, they stay 0.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use rustix::process::{Resource, getrlimit};

use super::{
    labelled::{Gauges, Level, all, counter, gauge},
    labels::Phase,
};

/// This counter is static, because the panic hook belongs to the process and not to a gateway.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts a panic.
pub fn panicked() {
    PANICS.fetch_add(1, Ordering::Relaxed);
}

/// Memory that the kernel can't reclaim without ending the process: resident memory without file pages. File pages
/// depend on the page cache: the same program has 5 MB more of them if its file has been read before. `None` means that
/// there is no `/proc`.
pub fn held_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = pages.split(' ').map(str::parse::<u64>);
    let (resident, of_files) = (pages.nth(1)?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(of_files).saturating_mul(rustix::param::page_size() as u64))
}

#[derive(Debug)]
pub struct ProcessMetrics {
    resident: Level,
    held: Level,
    virtual_memory: Level,
    cpu: Counter<f64, AtomicU64>,
    threads: Level,
    open_files: Level,
    max_files: Level,
    /// In bytes. NaN means that there is no limit.
    memory_limit: Gauge<f64, AtomicU64>,
    panics: Counter,
    tasks: Level,
    status: Gauges<Phase>,
}

impl ProcessMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let cpu = Counter::default();
        registry.register("process_cpu_seconds", "CPU time, user and system", cpu.clone());
        let memory_limit = Gauge::<f64, AtomicU64>::default();
        memory_limit.set(f64::NAN);
        registry.register(
            "taskcast_memory_limit_bytes",
            "Limit of taskcast_memory_held_bytes; NaN if there is no limit",
            memory_limit.clone(),
        );
        let started = Gauge::<f64, AtomicU64>::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        started.set(now.as_secs_f64());
        let build = Family::<[(&'static str, &'static str); 1], Level>::default();
        build.get_or_create(&[("version", env!("TASKCAST_VERSION"))]).set(1);

        registry.register("process_start_time_seconds", "When the process began, since 1970", started);
        registry.register("taskcast_build_info", "Always 1; the label is the version", build);
        Self {
            resident: gauge(registry, "process_resident_memory_bytes", "Memory that is in RAM"),
            held: gauge(
                registry,
                "taskcast_memory_held_bytes",
                "Memory that is in RAM, without pages of files",
            ),
            virtual_memory: gauge(registry, "process_virtual_memory_bytes", "Address space"),
            cpu,
            threads: gauge(registry, "process_threads", "Threads of the operating system"),
            open_files: gauge(registry, "process_open_fds", "Open file descriptors"),
            max_files: gauge(
                registry,
                "process_max_fds",
                "Maximum number of open file descriptors (RLIMIT_NOFILE)",
            ),
            memory_limit,
            panics: counter(registry, "taskcast_panics", "Panics: each is a bug; the log says where"),
            tasks: gauge(
                registry,
                "taskcast_runtime_tasks",
                "Tasks of the async runtime that have not ended",
            ),
            status: Gauges::register(
                registry,
                "taskcast_status",
                "1 for the status that /api/health reports, 0 for the others",
                ["status"],
            )
            .with(all()),
        }
    }

    pub fn set_memory_limit(&self, bytes: u64) {
        self.memory_limit.set(bytes as f64);
    }

    /// Sets the gauge of this status to 1 and those of all others to 0.
    pub fn set_status(&self, status: Phase) {
        for known in all() {
            self.status.of(known).set((known == status).into());
        }
    }

    pub(super) fn measure(&self) {
        // Two scrapes at the same time must not both add the new panics.
        self.panics.inner().fetch_max(PANICS.load(Ordering::Relaxed), Ordering::Relaxed);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.set(runtime.metrics().num_alive_tasks() as u64);
        }
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            let page = rustix::param::page_size() as u64;
            let ticks = rustix::param::clock_ticks_per_second();
            self.resident.set(stat.resident_pages * page);
            self.virtual_memory.set(stat.virtual_bytes);
            self.threads.set(stat.threads);
            let cpu = stat.cpu_ticks as f64 / ticks.max(1) as f64;
            // The bits of floats that are not negative have the same order as the floats.
            self.cpu.inner().fetch_max(cpu.to_bits(), Ordering::Relaxed);
        }
        if let Some(held) = held_bytes() {
            self.held.set(held);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // One descriptor is open for reading the folder itself.
            self.open_files.set(files.count().saturating_sub(1) as u64);
        }
        self.max_files.set(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
    }
}

/// The fields of `/proc/self/stat` that are shown.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the first of `fields` is its third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let text =
            "42 (a) b (c) R 1 42 42 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 3 0 12345 4096 17 184467 1 1 0";
        let expected = Stat { cpu_ticks: 12, threads: 3, virtual_bytes: 4096, resident_pages: 17 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_measured() {
        let metrics = ProcessMetrics::register(&mut Registry::default());
        metrics.measure();
        assert!(
            metrics.resident.get() > metrics.held.get()
                && metrics.held.get() > 100_000
                && metrics.threads.get() > 0
        );
        assert!(metrics.open_files.get() > 2 && metrics.max_files.get() >= metrics.open_files.get());
    }
}
