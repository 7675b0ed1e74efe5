//! `palinode doctor`

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use palinode::Store;
use serde_json::json;

use crate::command_error::Failure;
use crate::executor::{self, ExecutorArgs};
use crate::input::StoreArgs;
use crate::settings;
use crate::terminal::table::{Column, table};
use crate::terminal::{Style, format, print};

/// Show what this machine can compute on, and what is missing
///
/// Shows the build, the CPU and the memory; CUDA's driver, compiler and GPUs, if the build supports them; the store and the
/// free space beside it; and the meaning of `--device auto` on this machine. It opens nothing and changes nothing. With
/// `--measure` it computes for a few seconds and shows the throughput. No stage can be faster than the products and factors
/// that it consists of.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode doctor
  palinode doctor --measure cuda
  palinode doctor --json | jq -r '.[\"device auto\"]'")]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,

    /// Measure matrix products on a device (auto, cpu, cuda or cuda:N), and the Cholesky factor in f64, which the CPU
    /// computes for every device. In JSON: `rates`, in operations per second.
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "auto")]
    measure: Option<String>,

    /// With `slurm` or `slurm:PROFILE`: also look at the cluster, and at what a profile of your settings asks of it.
    #[command(flatten)]
    executor: ExecutorArgs,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Prints what was found.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut found = vec![
        ("palinode".to_owned(), format!("{} for {}", env!("CARGO_PKG_VERSION"), target())),
        ("threads".to_owned(), std::thread::available_parallelism().map_or(1, usize::from).to_string()),
        ("free memory".to_owned(), palinode::free_memory().map_or_else(|| "not known".into(), format::size)),
    ];
    found.extend(palinode::cuda_findings());
    found.push(("device auto".to_owned(), palinode::chosen_device().to_owned()));
    let store = &args.store.store;
    let made = match Store::is_at(store) {
        Ok(true) => String::new(),
        Ok(false) => ", not made yet".to_owned(),
        Err(error) => format!(": {error}"),
    };
    found.push(("store".to_owned(), format!("{}{made}", absolute(store).display())));
    let room = room(store).map_or_else(|| "not known".into(), |bytes| format!("{} free", format::size(bytes)));
    found.push(("room for it".to_owned(), room));
    if let Some(cluster) = executor::cluster(&args.executor.chosen())? {
        let settings = settings::path().map_or_else(
            || "nowhere".to_owned(),
            |path| format!("{}{}", path.display(), if path.exists() { "" } else { ", not made yet" }),
        );
        found.push(("settings".to_owned(), settings));
        found.extend(cluster.look());
        found.extend(cluster.try_out());
    }
    let rates = args.measure.as_ref().map(|device| palinode::throughput(device)).transpose()?;
    if args.json {
        let mut values: serde_json::Map<_, _> = found.into_iter().map(|(name, what)| (name, json!(what))).collect();
        if let Some(rates) = rates {
            values.insert("rates".to_owned(), rates.into_iter().map(|(name, rate)| (name, json!(rate))).collect());
        }
        return print(&format!("{:#}\n", serde_json::Value::Object(values)));
    }
    found.extend(rates.into_iter().flatten().map(|(name, rate)| (name, format::operations(rate))));
    let rows = found.into_iter().map(|(name, what)| vec![name.into(), what.into()]).collect();
    print(&table(&Style::stdout(), &[("WHAT", Column::Name), ("FOUND", Column::Text)], rows))
}

fn target() -> String {
    format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Bytes free where a folder is, or will be.
fn room(path: &Path) -> Option<u64> {
    let path = absolute(path);
    let there = path.ancestors().find(|path| path.is_dir())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}
