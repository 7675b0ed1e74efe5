//! What a model needs in memory, and what there is.

use std::path::Path;

use crate::{DecoderConfig, ModelError, Precision};

/// Bytes that the weights take once they are loaded. Loading takes no more than this and one tensor.
pub fn needed(config: &DecoderConfig, precision: Precision) -> u64 {
    (config.parameters() as u64).saturating_mul(precision.bytes() as u64)
}

/// Streamed blocks that are in memory at the same time: one that is computed with, and one more, so that two threads which compute
/// side by side need not wait for each other.
pub(crate) const MOST_STREAMED: usize = 2;

/// Bytes that the weights take where blocks are streamed: what is in no block, and two blocks.
pub fn needed_streamed(config: &DecoderConfig, precision: Precision) -> u64 {
    needed(&DecoderConfig { layers: MOST_STREAMED.min(config.layers), ..config.clone() }, precision)
}

/// Bytes that this process could still take without swapping: what the system says is available, or what is left of the
/// control group's limit where that is less. `None` where the system does not say (anything but Linux).
pub fn available() -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let system = kilobytes(&text("/proc/meminfo")?, "MemAvailable:")?;
    let group = text("/proc/self/cgroup").and_then(|groups| group_of(&groups)?.least(Hierarchy::left));
    Some(group.map_or(system, |group| group.min(system)))
}

/// Bytes that there are for this process, used or not: the machine's memory, or the control group's limit where that is less. `None`
/// where the system does not say.
pub fn total() -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let system = kilobytes(&text("/proc/meminfo")?, "MemTotal:")?;
    let group = text("/proc/self/cgroup").and_then(|groups| group_of(&groups)?.least(Hierarchy::limit));
    Some(group.map_or(system, |group| group.min(system)))
}

/// Refuses a model that does not fit.
///
/// # Errors
/// [`ModelError::Memory`], with both numbers.
pub fn check(needed: u64, precision: Precision, available: Option<u64>) -> Result<(), ModelError> {
    match available {
        Some(available) if needed > available => Err(ModelError::Memory { needed, precision, available }),
        _ => Ok(()),
    }
}

/// A line `name: 123 kB` of `/proc/meminfo`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A control group of this process.
struct Group {
    hierarchy: Hierarchy,
    /// Where it is in the hierarchy.
    path: String,
}

/// Where control groups are, and what their files are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hierarchy {
    root: &'static str,
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` that counts cached files.
    cached: &'static str,
}

/// One for all resources (version 2).
const UNIFIED: Hierarchy =
    Hierarchy { root: "/sys/fs/cgroup", limit: "memory.max", used: "memory.current", cached: "inactive_file " };

/// One for memory by itself (version 1).
const OF_MEMORY: Hierarchy = Hierarchy {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cached: "total_inactive_file ",
};

/// The group that counts memory, as `/proc/self/cgroup` has it: lines of a number, what the hierarchy counts, and a path.
fn group_of(text: &str) -> Option<Group> {
    let of_memory = text.lines().find_map(|line| {
        let (counts, path) = line.split_once(':')?.1.split_once(':')?;
        counts.split(',').any(|counted| counted == "memory").then_some((OF_MEMORY, path))
    });
    let unified = || text.lines().find_map(|line| Some((UNIFIED, line.strip_prefix("0::")?)));
    let (hierarchy, path) = of_memory.or_else(unified)?;
    Some(Group { hierarchy, path: path.strip_prefix('/')?.to_owned() })
}

/// Reads a file of a control group.
type GroupFiles<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Group {
    /// The least that `of` tells of the group and those around it. A group without a limit says nothing.
    fn least(&self, of: fn(&Hierarchy, GroupFiles<'_>) -> Option<u64>) -> Option<u64> {
        let root = Path::new(self.hierarchy.root);
        let group = root.join(&self.path);
        let around = group.ancestors().take_while(|group| group.starts_with(root));
        let read = |group: &Path| of(&self.hierarchy, &|name| std::fs::read_to_string(group.join(name)).ok());
        around.filter_map(read).min()
    }
}

impl Hierarchy {
    /// What a group may take.
    fn limit(&self, read: GroupFiles<'_>) -> Option<u64> {
        read(self.limit)?.trim().parse().ok()
    }

    /// What is left in a group whose files `read` reads. Cached files count as used, but give way.
    fn left(&self, read: GroupFiles<'_>) -> Option<u64> {
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let limit = self.limit(read)?;
        let stat = read("memory.stat").unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(self.cached)?.trim().parse::<u64>().ok());
        Some(limit.saturating_sub(number(self.used)?.saturating_sub(cached.unwrap_or(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says() {
        let meminfo = "MemTotal:       24595640 kB\nMemAvailable:   22012345 kB\n";
        assert_eq!(kilobytes(meminfo, "MemAvailable:"), Some(22_012_345 * 1024));
        assert_eq!(kilobytes(meminfo, "SwapFree:"), None);
        let group = group_of("12:cpuset:/x\n0::/user/a.scope\n").unwrap();
        assert_eq!((group.hierarchy, group.path.as_str()), (UNIFIED, "user/a.scope"));
        let group = group_of("4:cpu,memory:/a/b\n1:cpu:/\n0::/\n").unwrap();
        assert_eq!((group.hierarchy, group.path.as_str()), (OF_MEMORY, "a/b"));
        assert!(group_of("1:cpu:/\n").is_none());
        for hierarchy in [UNIFIED, OF_MEMORY] {
            let files = |max: &'static str| {
                move |name: &str| {
                    let text = match name {
                        _ if name == hierarchy.limit => max,
                        _ if name == hierarchy.used => "700\n",
                        _ => "anon 500\ninactive_file 200\ntotal_inactive_file 200\n",
                    };
                    Some(text.to_owned())
                }
            };
            assert_eq!(hierarchy.left(&files("1000\n")), Some(500));
            assert_eq!(hierarchy.left(&files("100\n")), Some(0));
            assert_eq!(hierarchy.left(&files("max\n")), None);
            assert_eq!(hierarchy.limit(&files("1000\n")), Some(1000));
            assert_eq!(hierarchy.limit(&files("max\n")), None);
        }
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused() {
        assert!(check(5 << 30, Precision::F32, None).is_ok());
        assert!(check(5 << 30, Precision::F32, Some(5 << 30)).is_ok());
        let error = check(27 << 30, Precision::F32, Some(21 << 30)).unwrap_err();
        assert_eq!(error.to_string(), "the model's weights take 27.0 GiB in f32, and 21.0 GiB of memory are free");
    }
}
