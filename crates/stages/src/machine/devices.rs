//! Where stages can compute.

use palinode_engine::{Error, ErrorKind};
use palinode_model::{Cuda, is_cpu, select_device};

use crate::errors::StageFailure;

/// Bytes of memory that are free for this process, if the system reports them.
pub fn free_memory() -> Option<u64> {
    palinode_model::memory::available()
}

/// What the device `auto` means here.
pub fn chosen_device() -> &'static str {
    match select_device("auto") {
        Ok(device) if !is_cpu(&device) => "cuda:0",
        _ => "cpu",
    }
}

/// The devices that processes of one stage can be dealt out to: every GPU where the name leaves it open which, none otherwise.
pub fn devices(name: &str) -> Vec<String> {
    let open = name == "cuda" || (name == "auto" && chosen_device() != "cpu");
    let gpus = if open { Cuda::find().map_or(0, |cuda| cuda.gpus.len()) } else { 0 };
    (0..gpus).map(|gpu| format!("cuda:{gpu}")).collect()
}

/// What the name of a device stands for, as exactly as equal bits ask for: the GPU, or the CPU and how many threads share
/// the work, since sums are dealt out among them.
///
/// # Errors
/// Of the command line, when the device is not there, with what is missing.
pub fn hardware(name: &str) -> Result<String, Error> {
    let device = select_device(name).map_err(|error| Error { kind: ErrorKind::Usage, ..error.stage() })?;
    if !is_cpu(&device) {
        return Ok(gpu(name));
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let family = [field("cpu family"), field("model\t")].map(Option::unwrap_or_default).join("/");
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("{model} ({family}), {threads}{THREADS}"))
}

/// Whether that is a CPU: what [`hardware`] says of a GPU is its name.
pub fn hardware_is_cpu(hardware: &str) -> bool {
    hardware.ends_with(THREADS)
}

/// How what is said of a CPU ends.
const THREADS: &str = " threads";

fn gpu(name: &str) -> String {
    let at: usize = name.strip_prefix("cuda:").and_then(|at| at.parse().ok()).unwrap_or_default();
    let gpus = Cuda::find().map(|cuda| cuda.gpus).unwrap_or_default();
    gpus.get(at).map_or_else(|| name.to_owned(), |gpu| gpu.name.clone())
}

/// What this machine has of CUDA, line by line: name, finding, and what to do where something is missing.
pub fn cuda_findings() -> Vec<(String, String)> {
    let line = |name: &str, found: String| (name.to_owned(), found);
    let Some(cuda) = Cuda::find() else {
        return vec![line("CUDA", "not in this build: cargo build --release --features cuda".into())];
    };
    let driver = cuda.driver.map_or_else(
        || "none answers".into(),
        |version| {
            let of = driver_version().map_or_else(String::new, |version| format!("{version}, "));
            format!("{of}up to {version}")
        },
    );
    let compiler = cuda.compiler.as_ref().map(|compiler| format!("libnvrtc of {}", compiler.version));
    let toolkit = cuda.toolkit.as_ref().map(|path| path.display().to_string());
    let mut lines = vec![
        line("driver", driver),
        line("compiler", compiler.unwrap_or_else(|| "libnvrtc not found".into())),
        line("toolkit", toolkit.unwrap_or_else(|| "no headers".into())),
    ];
    for (i, gpu) in cuda.gpus.iter().enumerate() {
        let memory = gpu.memory as f64 / f64::from(1 << 30);
        lines.push((format!("cuda:{i}"), format!("{}, {memory:.0} GiB, {}", gpu.name, gpu.capability)));
    }
    lines.extend(cuda.missing(0).map(|missing| line("missing", missing)));
    lines
}

/// As its kernel module tells it: "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  …".
fn driver_version() -> Option<String> {
    let told = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let mut words = told.lines().next()?.split_whitespace();
    words.find(|word| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.')).map(Into::into)
}
