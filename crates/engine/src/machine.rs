//! What a machine has for stages to share.

use std::fs;
use std::thread::available_parallelism;

/// What a machine has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPU cores.
    pub cores: usize,
    /// Bytes of memory; the most there can be where it is not known.
    pub memory: u64,
    /// Accelerators.
    pub gpus: usize,
}

impl Machine {
    /// This machine, as far as this process may use it.
    pub fn this() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
        });
        // A container may have less than the machine it runs on.
        let most = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        let memory = total.unwrap_or(u64::MAX).min(most.unwrap_or(u64::MAX));
        // Stages of one run share one device; it is taken by one of them at a time.
        Self { cores, memory, gpus: 1 }
    }
}

/// What an executor can run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// The resources that all stages at work share.
    pub machine: Machine,
    /// The most stages that may work at once, whatever they need; at least 1.
    pub jobs: usize,
}
