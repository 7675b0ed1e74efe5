//! Wall clock, processor time and peak memory.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

/// Runs `work` and reports what it took; `flops` is what the formula at hand needs, where it is known.
pub fn measure<T>(flops: Option<f64>, work: impl FnOnce() -> T) -> (T, Value) {
    let (start, before) = (Instant::now(), processor_seconds());
    let made = work();
    let (wall, cpu) = (start.elapsed().as_secs_f64(), processor_seconds() - before);
    let rate = flops.map(|flops| flops / cpu / 1e9);
    (made, json!({ "wall": wall, "cpu": cpu, "peak_mib": peak_mib(), "gflops_per_cpu_second": rate }))
}

/// Processor seconds of every thread that lives, to the nanosecond.
fn processor_seconds() -> f64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return f64::NAN };
    let nanoseconds = |path: std::path::PathBuf| -> Option<f64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    threads.flatten().filter_map(|thread| nanoseconds(thread.path())).sum::<f64>() / 1e9
}

/// The largest resident size so far.
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
