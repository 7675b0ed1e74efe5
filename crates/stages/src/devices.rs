//! Where stages can compute.

use palinode_engine::{ErrorKind, StageError};
use palinode_model::{is_host, select_device};

use crate::errors::StageFailure;

/// Bytes of memory that are free for this process, where that can be told.
pub fn free_memory() -> Option<u64> {
    palinode_model::memory::available()
}

/// What `--device auto` means here.
pub fn chosen_device() -> &'static str {
    match select_device("auto") {
        Ok(device) if !is_host(&device) => "cuda:0",
        _ => "cpu",
    }
}

/// What a `--device` name stands for, as exactly as equal bits ask for: the card, or the processor and how many threads share
/// the work, since sums are dealt out among them.
///
/// # Errors
/// Of the command line, when the device is not there, with what is missing.
pub fn hardware(name: &str) -> Result<String, StageError> {
    let device = select_device(name).map_err(|error| StageError { kind: ErrorKind::Usage, ..error.stage() })?;
    if !is_host(&device) {
        return Ok(card(name));
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let family = [field("cpu family"), field("model\t")].map(Option::unwrap_or_default).join("/");
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("{model} ({family}), {threads} threads"))
}

#[cfg(feature = "cuda")]
fn card(name: &str) -> String {
    let at: usize = name.strip_prefix("cuda:").and_then(|at| at.parse().ok()).unwrap_or_default();
    palinode_model::Cuda::find().cards.get(at).map_or_else(|| name.to_owned(), |card| card.name.clone())
}

#[cfg(not(feature = "cuda"))]
fn card(name: &str) -> String {
    name.to_owned()
}

/// What this machine has of CUDA, line by line: name, finding, and what to do where something is missing.
#[cfg(feature = "cuda")]
pub fn cuda_findings() -> Vec<(String, String)> {
    let cuda = palinode_model::Cuda::find();
    let version = |v: i32| format!("up to CUDA {}.{}", v / 1000, v % 1000 / 10);
    let mut lines = vec![
        ("driver".to_owned(), cuda.driver.map_or_else(|| "none answers".to_owned(), version)),
        ("compiler".to_owned(), if cuda.compiler { "libnvrtc found" } else { "libnvrtc not found" }.to_owned()),
        (
            "toolkit".to_owned(),
            cuda.toolkit.as_ref().map_or_else(|| "no headers".into(), |path| path.display().to_string()),
        ),
    ];
    for (i, card) in cuda.cards.iter().enumerate() {
        let (major, minor) = card.capability;
        let memory = card.memory as f64 / f64::from(1 << 30);
        lines
            .push((format!("cuda:{i}"), format!("{}, {memory:.0} GiB, compute capability {major}.{minor}", card.name)));
    }
    if let Some(missing) = cuda.missing(0) {
        lines.push(("missing".to_owned(), missing));
    }
    lines
}

/// What this build has of CUDA: nothing.
#[cfg(not(feature = "cuda"))]
pub fn cuda_findings() -> Vec<(String, String)> {
    vec![("CUDA".to_owned(), "not in this build: cargo build --release --features cuda".to_owned())]
}
