//! What of an executor's capacity is free.

use crate::machine::{Capacity, Machine};
use palinode_pipeline::{Cores, Resources};

/// What an instance occupies while it works: its resources, but no more than there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    cores: usize,
    memory: u64,
    gpus: usize,
}

impl Need {
    /// Of an instance with these resources. One that needs more than the machine has gets all of it and runs alone.
    pub fn of(resources: &Resources, machine: &Machine) -> Self {
        let cores = match resources.cores {
            Cores::All => machine.cores,
            Cores::Count(count) => count.min(machine.cores),
        };
        let (memory, gpus) = (resources.memory.min(machine.memory), usize::from(resources.gpu).min(machine.gpus));
        Self { cores, memory, gpus }
    }
}

/// What is free.
#[derive(Debug)]
pub struct Free {
    cores: usize,
    memory: u64,
    gpus: usize,
    jobs: usize,
}

impl Free {
    /// All of a capacity.
    pub fn all(capacity: &Capacity) -> Self {
        let Machine { cores, memory, gpus } = capacity.machine;
        Self { cores, memory, gpus, jobs: capacity.jobs.max(1) }
    }

    /// Whether no further instance may work, whatever it needs.
    pub fn is_full(&self) -> bool {
        self.jobs == 0
    }

    /// Whether this is free.
    pub fn fits(&self, need: &Need) -> bool {
        self.jobs > 0 && need.cores <= self.cores && need.memory <= self.memory && need.gpus <= self.gpus
    }

    /// Occupies what [`Free::fits`].
    pub fn take(&mut self, need: &Need) {
        self.jobs -= 1;
        self.cores -= need.cores;
        self.memory -= need.memory;
        self.gpus -= need.gpus;
    }

    /// Frees what was taken.
    pub fn give_back(&mut self, need: &Need) {
        self.jobs += 1;
        self.cores += need.cores;
        self.memory += need.memory;
        self.gpus += need.gpus;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these stages, one after the other, fit beside those before them.
    fn check(jobs: usize, stages: &[Resources], expect: &[bool]) {
        let machine = Machine { cores: 4, memory: 100, gpus: 1 };
        let mut free = Free::all(&Capacity { machine, jobs });
        let need = |resources: &Resources| Need::of(resources, &machine);
        let mut found = Vec::new();
        for resources in stages {
            let fits = free.fits(&need(resources));
            if fits {
                free.take(&need(resources));
            }
            found.push(fits);
        }
        assert_eq!(found, expect, "{stages:?}");
        for (resources, _) in stages.iter().zip(found).filter(|(_, taken)| *taken) {
            free.give_back(&need(resources));
        }
        assert!(free.fits(&need(&Resources::MACHINE.memory(100).gpu())), "all is free again");
    }

    #[test]
    fn what_fits_runs_side_by_side() {
        let (machine, light) = (Resources::MACHINE, Resources::LIGHT);
        let cores = Resources::cores;
        check(8, &[machine, machine, light, cores(1)], &[true, false, true, false]);
        check(8, &[cores(2), cores(3), cores(2), light], &[true, false, true, true]);
        check(2, &[light, light, light], &[true, true, false]);
        check(1, &[machine, light], &[true, false]);
        check(8, &[light.memory(60), light.memory(60), light.memory(40)], &[true, false, true]);
        check(8, &[light.gpu(), light.gpu()], &[true, false]);
        // More than there is: it runs, but alone.
        check(8, &[cores(9).memory(900), light.memory(1), light], &[true, false, true]);
    }
}
