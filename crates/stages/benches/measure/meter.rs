//! Wall clock, CPU time and peak memory.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

/// Runs `work` and reports what it took; `flops` is what the formula at hand needs, where it is known.
pub fn measure<T>(flops: Option<f64>, work: impl FnOnce() -> T) -> (T, Value) {
    let (start, before) = (Instant::now(), cpu_seconds());
    let made = work();
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - before);
    let rate = flops.map(|flops| flops / cpu / 1e9);
    (made, json!({ "wall": wall, "cpu": cpu, "peak_mib": peak_mib(), "gflops_per_cpu_second": rate }))
}

/// CPU seconds of the process, threads that have ended included; the kernel counts hundredths.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

/// The largest resident size so far.
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
