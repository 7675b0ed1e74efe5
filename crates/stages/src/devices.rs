//! Where stages can compute.

use palinode_engine::{ErrorKind, StageError};
use palinode_model::{is_host, select_device};

use crate::errors::StageFailure;

/// Fails unless the device of a `--device` name is there and lacks nothing.
///
/// # Errors
/// Of the command line, with what is missing.
pub fn check_device(name: &str) -> Result<(), StageError> {
    select_device(name).map(|_| ()).map_err(|error| StageError { kind: ErrorKind::Usage, ..error.stage() })
}

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
