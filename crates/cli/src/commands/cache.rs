//! `palinode cache`

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args as ClapArgs, Subcommand};
use palinode_engine::{ErrorKind, Manifest, Store};

use crate::failure::Failure;
use crate::input::StoreArgs;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, complain, format, print, print_json};

/// Look into the store of results
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode cache ls
  palinode cache verify --store /data/palinode")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the results, newest first
    #[command(after_help = "\
Examples:
  palinode cache ls | head
  palinode cache ls --stage covariance")]
    Ls {
        #[command(flatten)]
        store: StoreArgs,
        /// Only results of this kind of stage.
        #[arg(long, value_name = "NAME")]
        stage: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Read everything again and compare it with its digests
    ///
    /// Changes nothing: what is damaged is computed again by the next run that needs it.
    #[command(after_help = "\
Examples:
  palinode cache verify
  palinode cache verify --store /data/palinode")]
    Verify {
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Lists or checks the store.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Ls { store, stage, json } => list(&store.open_existing()?, stage.as_deref(), *json),
        Command::Verify { store } => verify(&store.open_existing()?),
    }
}

fn list(store: &Store, stage: Option<&str>, json: bool) -> Result<(), Failure> {
    let style = Style::stdout();
    let mut manifests = store.manifests();
    manifests.retain(|manifest| stage.is_none_or(|stage| manifest.preimage.stage == stage));
    manifests.reverse();
    if json {
        return print_json(&manifests);
    }
    if manifests.is_empty() {
        return print(&format!("no results in {}\n", store.root().display()));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let columns = [
        ("STAGE", Column::Name),
        ("LAST MADE FOR", Column::Text),
        ("TOOK", Column::Number),
        ("SIZE", Column::Number),
        ("MADE", Column::Name),
    ];
    let rows = manifests.iter().map(|manifest| {
        vec![
            Field::new(manifest.preimage.stage.clone(), Look::Bold),
            format!("{}: {}", manifest.pipeline, manifest.instance).into(),
            format::duration(manifest.seconds).into(),
            format::size(blobs(store, manifest).map(|(_, size)| size).sum()).into(),
            format::ago(now.saturating_sub(manifest.finished_ms) / 1000).into(),
        ]
    });
    let listed = table(&style, &columns, rows.collect());
    let all: HashSet<_> = manifests.iter().flat_map(|manifest| blobs(store, manifest)).collect();
    let total = format::size(all.iter().map(|(_, size)| size).sum());
    let count = format::count(manifests.len(), "result");
    print(&format!("{listed}\n{count}, {total} in {}\n", store.root().display()))
}

/// What of a result lies in the store; files outside it take no room there.
fn blobs(store: &Store, manifest: &Manifest) -> impl Iterator<Item = (palinode_engine::Digest, u64)> {
    let files = manifest.output.files.values().filter(|file| store.blob_path(&file.digest).exists());
    files.map(|file| (file.digest, file.size)).collect::<Vec<_>>().into_iter()
}

fn verify(store: &Store) -> Result<(), Failure> {
    if Style::stderr().terminal {
        complain(&format!("reading everything in {}\n", store.root().display()));
    }
    let found = store.verify();
    let (blobs, results) = (format::count(found.blobs, "file"), format::count(found.manifests, "result"));
    let read = format!("read {blobs} ({}) of {results}", format::size(found.bytes));
    if found.damage.is_empty() {
        return print(&format!("{} {read}: all as they were written\n", Style::stdout().green("✓")));
    }
    let style = Style::stderr();
    for damage in &found.damage {
        complain(&format!("{} {}: {}\n", style.red("✗"), damage.path.display(), damage.what));
    }
    complain(&format!("{read}: {} damaged; the next run that needs them makes them again\n", found.damage.len()));
    Err(Failure::Told(ErrorKind::Store))
}
