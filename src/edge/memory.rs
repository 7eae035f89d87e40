//! Watches how much memory the process holds. Near the limit, the gateway refuses new connections to keep the existing ones: a
//! process that exceeds the limit is killed, with all its clients.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{metrics::held_bytes, rate_limited_log::rate_limited_log};

const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Where the kernel shows control groups, of version 2 and of version 1.
const CGROUP: &str = "/sys/fs/cgroup";
const CGROUP_1: &str = "/sys/fs/cgroup/memory";

/// The limit, and whether it is near.
#[derive(Clone, Debug)]
pub struct MemoryLimit {
    /// `None` means that only the machine's memory is the limit, which this module does not watch.
    max: Option<u64>,
    scarce: Arc<AtomicBool>,
}

impl MemoryLimit {
    /// Uses the configured limit, or otherwise the container's.
    pub fn for_this_process(configured: Option<u64>) -> Self {
        let max = configured.or_else(|| {
            let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
            limit_of(&groups, |path| fs::read_to_string(path).ok())
        });
        Self { max, scarce: Arc::default() }
    }

    pub fn max(&self) -> Option<u64> {
        self.max
    }

    /// Returns whether the remaining memory is reserved for the existing connections.
    pub fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    /// Compares the held memory with the limit at regular intervals. This function never returns.
    pub async fn watch(self) {
        let Some(max) = self.max else { return std::future::pending().await };
        tracing::info!(
            bytes = max,
            "new connections are refused when seven eighths of this memory are in use"
        );
        let mut interval = tokio::time::interval(CHECK_INTERVAL);
        loop {
            interval.tick().await;
            let Some(held) = held_bytes() else { return std::future::pending().await };
            self.compare(held, max);
        }
    }

    fn compare(&self, held: u64, max: u64) {
        let scarce = held > max - max / 8;
        if self.scarce.swap(scarce, Ordering::Relaxed) != scarce {
            // Near the limit this changes several times a second.
            match scarce {
                true => rate_limited_log!(warn, held, max, "memory is scarce: new connections are refused"),
                false => {
                    rate_limited_log!(info, held, max, "memory is free again: new connections are accepted")
                }
            }
        }
    }
}

/// The smallest limit of the process's control group and the groups above it. `read` reads a file of the kernel.
fn limit_of(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let files = groups.lines().filter_map(|line| {
        let (_, controllers, path) = {
            let mut parts = line.splitn(3, ':');
            (parts.next()?, parts.next()?, parts.next()?)
        };
        match controllers {
            "" => Some((CGROUP, path, "memory.max")),
            "memory" => Some((CGROUP_1, path, "memory.limit_in_bytes")),
            _ => None,
        }
    });
    files
        .flat_map(|(root, path, file)| {
            with_ancestors(root, path).into_iter().map(move |folder| folder.join(file))
        })
        // Without a limit, the file contains "max", or in version 1 a number that no machine reaches.
        .filter_map(|file| read(&file)?.trim().parse().ok().filter(|bytes| *bytes < 1 << 60))
        .min()
}

/// The folder of a group, and the folders above it up to `root`. In a container, the path may exist only on the host.
fn with_ancestors(root: &str, path: &str) -> Vec<PathBuf> {
    let root = Path::new(root);
    let group = root.join(path.trim_start_matches('/'));
    group.ancestors().take_while(|folder| folder.starts_with(root)).map(Path::to_path_buf).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        limit_of(groups, |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_those_above_it_counts() {
        let service = "0::/system.slice/taskcast.service\n";
        let files = [
            ("/sys/fs/cgroup/system.slice/taskcast.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "3000\n"),
        ];
        assert_eq!(limit(service, &files), Some(3000));
        assert_eq!(limit(service, &files[..1]), None);
        assert_eq!(limit("0::/\n", &[("/sys/fs/cgroup/memory.max", "512\n")]), Some(512), "a container");
    }

    #[test]
    fn groups_of_version_1_are_read_as_well() {
        let groups = "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n";
        let none = "9223372036854771712\n";
        let root = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", none);
        assert_eq!(limit(groups, &[root]), None);
        let own = ("/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes", "700\n");
        assert_eq!(limit(groups, &[root, own]), Some(700));
        assert_eq!(limit("", &[root]), None);
        assert_eq!(limit("4:memory:/../../..\n", &[root]), None);
    }

    #[test]
    fn memory_is_scarce_when_less_than_an_eighth_is_left() {
        let memory = MemoryLimit { max: Some(800), scarce: Arc::default() };
        for (held, scarce) in [(700, false), (701, true), (900, true), (100, false)] {
            memory.compare(held, 800);
            assert_eq!(memory.is_scarce(), scarce, "{held}");
        }
    }
}
