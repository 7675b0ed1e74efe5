//! What a run takes of the machine: memory at its peak, and energy where the CPUs count it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where Linux says how much energy CPUs took (RAPL), where it lets this user read it.
const POWERCAP: &str = "/sys/class/powercap";
/// Counters of energy begin again from 0 after half an hour of full load or so: they are read more often.
const EVERY: Duration = Duration::from_mins(1);

/// What a run took. What the machine does not tell is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The most memory that the process had at a time, in bytes. Of stages in processes of their own nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// Energy that the machine's CPUs took meanwhile, in joules, whoever used them; without accelerators and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules: Option<f64>,
}

impl Cost {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// Measures from when it was made.
pub struct Meter {
    energy: Option<(Sender<()>, JoinHandle<f64>)>,
}

impl Meter {
    /// Begins to measure.
    pub fn start() -> Self {
        Self { energy: Energy::of(Path::new(POWERCAP)).and_then(watch) }
    }

    /// What was taken. `alone` says whether all work was done in this process.
    pub fn stop(self, alone: bool) -> Cost {
        let joules = self.energy.and_then(|(end, watching)| {
            drop(end);
            watching.join().ok()
        });
        Cost { peak_memory: peak_memory().filter(|_| alone), joules }
    }
}

/// Reads the counters now and then, until the sender is dropped.
fn watch(mut energy: Energy) -> Option<(Sender<()>, JoinHandle<f64>)> {
    let (end, ended) = channel();
    let watch = move || {
        while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            energy.read();
        }
        energy.read();
        energy.microjoules as f64 / 1e6
    };
    Some((end, thread::Builder::new().name("energy".to_owned()).spawn(watch).ok()?))
}

/// The most memory that this process had at a time, in bytes.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The counters of the machine's CPUs.
struct Energy {
    packages: Vec<Package>,
    microjoules: u64,
}

struct Package {
    counter: PathBuf,
    last: u64,
    most: u64,
}

impl Energy {
    /// Those in this folder; `None` where there are none that this user may read.
    fn of(folder: &Path) -> Option<Self> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let name = entry.file_name();
            // `intel-rapl:0` is a CPU, of AMD too; `intel-rapl:0:1` is a part of it.
            let number = name.to_str().and_then(|name| name.strip_prefix("intel-rapl:"));
            if !number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
                continue;
            }
            // `psys` is the whole machine, CPUs included.
            if !fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.starts_with("package")) {
                continue;
            }
            let counter = entry.path().join("energy_uj");
            if let Some(last) = number_in(&counter) {
                let most = number_in(&entry.path().join("max_energy_range_uj")).unwrap_or(u64::MAX);
                packages.push(Package { counter, last, most });
            }
        }
        (!packages.is_empty()).then_some(Self { packages, microjoules: 0 })
    }

    /// Adds what was taken since the last time.
    fn read(&mut self) {
        for package in &mut self.packages {
            let Some(now) = number_in(&package.counter) else { continue };
            let taken = match now.checked_sub(package.last) {
                Some(taken) => taken,
                // It began again.
                None => package.most.saturating_sub(package.last).saturating_add(now),
            };
            self.microjoules = self.microjoules.saturating_add(taken);
            package.last = now;
        }
    }
}

fn number_in(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_added_up_and_begin_again() {
        let folder = tempfile::tempdir().unwrap();
        let domain = |name: &str, says: &str, energy: u64| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("name"), format!("{says}\n")).unwrap();
            fs::write(path.join("energy_uj"), format!("{energy}\n")).unwrap();
            fs::write(path.join("max_energy_range_uj"), "1000\n").unwrap();
        };
        assert!(Energy::of(folder.path()).is_none());
        domain("intel-rapl:0", "package-0", 900);
        domain("intel-rapl:1", "package-1", 0);
        domain("intel-rapl:2", "psys", 500);
        domain("intel-rapl:0:0", "core", 500);
        let mut energy = Energy::of(folder.path()).unwrap();
        domain("intel-rapl:0", "package-0", 50);
        domain("intel-rapl:1", "package-1", 7);
        domain("intel-rapl:2", "psys", 900);
        energy.read();
        assert_eq!(energy.microjoules, 150 + 7);
    }

    #[test]
    fn memory_is_known() {
        assert!(Meter::start().stop(true).peak_memory.is_none_or(|peak| peak > 1 << 20));
        assert_eq!(Meter::start().stop(false).peak_memory, None);
    }
}
