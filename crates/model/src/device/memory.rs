//! What a model needs in memory, and what there is.

use std::path::Path;

use crate::{DecoderConfig, ModelError, Precision};

/// Bytes that the weights take once they are loaded. Loading takes no more than this and one tensor.
pub fn needed(config: &DecoderConfig, precision: Precision) -> u64 {
    (config.parameters() as u64).saturating_mul(precision.bytes() as u64)
}

/// Bytes that this process could still take without swapping: what the system says is available, or what is left of the
/// control group's limit where that is less. `None` where the system does not say (anything but Linux).
pub fn available() -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let system = kilobytes(&text("/proc/meminfo")?, "MemAvailable:")?;
    let group = text("/proc/self/cgroup").and_then(|groups| group_path(&groups).and_then(|path| least(&path, left)));
    Some(group.map_or(system, |group| group.min(system)))
}

/// Bytes that there are for this process, used or not: the machine's memory, or the control group's limit where that is less. `None`
/// where the system does not say.
pub fn total() -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let system = kilobytes(&text("/proc/meminfo")?, "MemTotal:")?;
    let group = text("/proc/self/cgroup").and_then(|groups| group_path(&groups).and_then(|path| least(&path, limit)));
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

/// The group's path in the unified hierarchy, as `/proc/self/cgroup` has it.
fn group_path(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::/")).map(str::to_owned)
}

/// Reads a file of a control group.
type GroupFiles<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The least that `of` tells of the group and those around it. A group without a limit says nothing.
fn least(path: &str, of: fn(GroupFiles<'_>) -> Option<u64>) -> Option<u64> {
    let root = Path::new("/sys/fs/cgroup");
    let group = root.join(path);
    let around = group.ancestors().take_while(|group| group.starts_with(root));
    around.filter_map(|group| of(&|name| std::fs::read_to_string(group.join(name)).ok())).min()
}

/// What a group may take.
fn limit(read: GroupFiles<'_>) -> Option<u64> {
    read("memory.max")?.trim().parse().ok()
}

/// What is left in a group whose files `read` reads. Cached files count as used, but give way.
fn left(read: GroupFiles<'_>) -> Option<u64> {
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = limit(read)?;
    let stat = read("memory.stat").unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(number("memory.current")?.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says() {
        let meminfo = "MemTotal:       24595640 kB\nMemAvailable:   22012345 kB\n";
        assert_eq!(kilobytes(meminfo, "MemAvailable:"), Some(22_012_345 * 1024));
        assert_eq!(kilobytes(meminfo, "SwapFree:"), None);
        assert_eq!(group_path("12:cpuset:/x\n0::/user/a.scope\n").as_deref(), Some("user/a.scope"));
        let files = |max: &'static str| {
            move |name: &str| {
                let text = match name {
                    "memory.max" => max,
                    "memory.current" => "700\n",
                    _ => "anon 500\ninactive_file 200\n",
                };
                Some(text.to_owned())
            }
        };
        assert_eq!(left(&files("1000\n")), Some(500));
        assert_eq!(left(&files("100\n")), Some(0));
        assert_eq!(left(&files("max\n")), None);
        assert_eq!(limit(&files("1000\n")), Some(1000));
        assert_eq!(limit(&files("max\n")), None);
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused() {
        assert!(check(5 << 30, Precision::F32, None).is_ok());
        assert!(check(5 << 30, Precision::F32, Some(5 << 30)).is_ok());
        let error = check(27 << 30, Precision::F32, Some(21 << 30)).unwrap_err();
        assert_eq!(error.to_string(), "the model's weights take 27.0 GiB in f32, and 21.0 GiB of memory are free");
    }
}
