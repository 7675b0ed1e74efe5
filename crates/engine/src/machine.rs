//! What a machine has, and what of it is free while stages work.

use std::fs;
use std::thread::available_parallelism;

use palinode_pipeline::{Cores, Takes};

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

/// What is free of a machine.
#[derive(Debug)]
pub struct Room {
    all: Machine,
    free: Machine,
    jobs: usize,
}

impl Room {
    /// A machine that nothing runs on, for at most `jobs` stages at once.
    pub fn new(all: Machine, jobs: usize) -> Self {
        Self { all, free: all, jobs: jobs.max(1) }
    }

    /// Whether no further stage may work, whatever it takes.
    pub fn is_full(&self) -> bool {
        self.jobs == 0
    }

    /// Takes it, if it is free.
    pub fn take(&mut self, takes: &Takes) -> bool {
        let Machine { cores, memory, gpus } = self.within(takes);
        let fits = self.jobs > 0 && cores <= self.free.cores && memory <= self.free.memory && gpus <= self.free.gpus;
        if fits {
            self.jobs -= 1;
            self.free.cores -= cores;
            self.free.memory -= memory;
            self.free.gpus -= gpus;
        }
        fits
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, takes: &Takes) {
        let Machine { cores, memory, gpus } = self.within(takes);
        self.jobs += 1;
        self.free.cores += cores;
        self.free.memory += memory;
        self.free.gpus += gpus;
    }

    /// What is taken, but no more than there is.
    fn within(&self, takes: &Takes) -> Machine {
        let cores = match takes.cores {
            Cores::All => self.all.cores,
            Cores::Count(count) => count.min(self.all.cores),
        };
        Machine { cores, memory: takes.memory.min(self.all.memory), gpus: usize::from(takes.gpu).min(self.all.gpus) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these stages, asked in turn, find room beside those before them.
    fn check(jobs: usize, stages: &[Takes], expect: &[bool]) {
        let mut room = Room::new(Machine { cores: 4, memory: 100, gpus: 1 }, jobs);
        let found: Vec<bool> = stages.iter().map(|takes| room.take(takes)).collect();
        assert_eq!(found, expect, "{stages:?}");
        for (takes, _) in stages.iter().zip(found).filter(|(_, taken)| *taken) {
            room.give_back(takes);
        }
        assert!(room.take(&Takes::MACHINE.memory(100).gpu()), "all is free again");
    }

    #[test]
    fn there_is_room_for_what_fits() {
        let (machine, light) = (Takes::MACHINE, Takes::LIGHT);
        check(8, &[machine, machine, light, Takes::cores(1)], &[true, false, true, false]);
        check(8, &[Takes::cores(2), Takes::cores(3), Takes::cores(2), light], &[true, false, true, true]);
        check(2, &[light, light, light], &[true, true, false]);
        check(1, &[machine, light], &[true, false]);
        check(8, &[light.memory(60), light.memory(60), light.memory(40)], &[true, false, true]);
        check(8, &[light.gpu(), light.gpu()], &[true, false]);
        // More than there is: it runs, but alone.
        check(8, &[Takes::cores(9).memory(900), light.memory(1), light], &[true, false, true]);
    }
}
