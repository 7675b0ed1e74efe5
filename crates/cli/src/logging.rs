//! What the libraries trace, for those who ask for it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use palinode::panic_is_caught;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::terminal::{Style, complain};

/// How often `-v` was given.
static VERBOSE: AtomicU8 = AtomicU8::new(0);

/// The argument that asks a worker for as much as this process was asked for.
pub fn argument() -> Option<String> {
    let verbose = usize::from(VERBOSE.load(Ordering::Relaxed));
    (verbose > 0).then(|| format!("-{}", "v".repeat(verbose)))
}

/// Sends traces to stderr when `-v` or PALINODE_LOG asks for them, and else what a model has to warn of: stages do not hear of it.
pub fn start(verbose: u8) {
    VERBOSE.store(verbose, Ordering::Relaxed);
    let filter = match (std::env::var("PALINODE_LOG"), verbose) {
        (Ok(filter), _) if !filter.is_empty() => filter,
        (_, 0) => {
            tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new("palinode_model=warn"))
                .with_ansi(Style::stderr().color)
                .without_time()
                .with_target(false)
                .with_writer(|| Lines(Vec::new()))
                .init();
            return;
        }
        (_, 1) => OURS.map(|name| format!("{name}=info")).join(","),
        (_, 2) => OURS.map(|name| format!("{name}=debug")).join(","),
        (_, _) => "trace".to_owned(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(Style::stderr().color)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(|| Lines(Vec::new()))
        .init();
}

const OURS: [&str; 7] = [
    "palinode",
    "palinode_engine",
    "palinode_stages",
    "palinode_model",
    "palinode_edit",
    "palinode_eval",
    "palinode_math",
];

/// Panics that the engine catches are told as failures of their stage, not twice.
pub fn quiet_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic_is_caught() {
            return;
        }
        before(panic);
    }));
}

/// Gathers a message, so that it is printed whole and above the progress bars.
struct Lines(Vec<u8>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        complain(&String::from_utf8_lossy(&self.0));
    }
}
