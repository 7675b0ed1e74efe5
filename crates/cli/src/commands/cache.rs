//! `palinode cache`

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use palinode::{
    Digest, ErrorKind, Garbage, Manifest, Migrated, Retention, RunRetention, Store, migrate, now_ms, read_duration,
    read_size,
};

use crate::command_error::Failure;
use crate::input::{StoreArgs, WaitArgs, whole};
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, complain, format, print, print_json};

/// List, check, remove and copy results in the store
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode cache ls
  palinode cache gc --unused-for 30d --dry-run
  palinode cache pin latest
  palinode cache export paper.zip latest
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
        /// Only results of this stage kind.
        #[arg(long, value_name = "NAME")]
        stage: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Read all contents and compare them with their digests
    ///
    /// Moves what is damaged to the folder `damaged` of the store, unless another process has the store open. The next run that needs a
    /// damaged result computes it again.
    #[command(after_help = "\
Examples:
  palinode cache verify
  palinode cache verify --store /data/palinode")]
    Verify {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Free space: remove leftovers, results that no run used for long, or the least recently used results
    ///
    /// Without options, removes only what killed stages left behind. A run computes a removed result again when it needs
    /// it. Pinned results stay. Records of runs, with their scores, stay too; --keep-runs and --runs-newer-than remove older ones.
    #[command(after_help = "\
Examples:
  palinode cache gc --dry-run                      list what would be removed
  palinode cache gc --unused-for 30d               remove what no run used for thirty days
  palinode cache gc --size 50GiB                   remove the least recently used, until 50 GiB are left
  palinode cache gc --keep-runs 200                remove the records of all but the latest 200 runs")]
    Gc {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        wait: WaitArgs,
        /// Remove results that no run made or used for this long, such as 12h or 30d.
        #[arg(long, value_name = "TIME", value_parser = time)]
        unused_for: Option<Duration>,
        /// Remove the least recently used results until at most this size is left, such as 800MiB or 50GiB.
        #[arg(long, value_name = "SIZE", value_parser = bytes)]
        size: Option<u64>,
        /// Keep the records of this many of the latest runs, and remove older ones. Those of pinned runs stay.
        #[arg(long, value_name = "COUNT", value_parser = whole::<usize>, allow_negative_numbers = true)]
        keep_runs: Option<usize>,
        /// Keep the records of runs that are no older than this, and remove the others. Those of pinned runs stay.
        #[arg(long, value_name = "TIME", value_parser = time)]
        runs_newer_than: Option<Duration>,
        /// Only list what would be removed. Works while another process has the store open.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Keep the results of a run, or one result, whatever their age; without a name, list the pins
    #[command(after_help = "\
Examples:
  palinode cache pin latest
  palinode cache pin 20260314-101502
  palinode cache pin 4f1c09aa                      one result, by the beginning of its key
  palinode cache pin")]
    Pin {
        /// A run, named as for `palinode show`, or the first characters of a result's key.
        #[arg(value_name = "RUN|KEY")]
        which: Option<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Remove a pin
    #[command(after_help = "\
Examples:
  palinode cache unpin 20260314-101502")]
    Unpin {
        /// The pin's name, or any unambiguous prefix or suffix of it.
        #[arg(value_name = "NAME")]
        which: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Rebuild the index from the manifests of the results
    ///
    /// Palinode does this itself when the index is damaged. The index holds nothing that cannot be rebuilt.
    #[command(after_help = "\
Examples:
  palinode cache rebuild")]
    Rebuild {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Carry results over to the keys that this version of the program gives them
    ///
    /// After an update of the program, a stage with a new parameter would run again although its results are still valid. This
    /// command writes their records under the new keys. It copies no contents, and an older program still finds its results. It
    /// counts the results that this version cannot use; `palinode cache gc --unused-for` removes them in time.
    #[command(after_help = "\
Examples:
  palinode cache migrate
  palinode cache migrate --store /data/palinode")]
    Migrate {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        wait: WaitArgs,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Write results and records of runs into one file, for another store
    ///
    /// The file does not contain what is outside the store, such as a model's files: the other machine needs its own copy.
    #[command(after_help = "\
Examples:
  palinode cache export everything.zip
  palinode cache export paper.zip latest latest~1")]
    Export {
        /// The archive to write.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The runs to export. The default is the whole store.
        #[arg(value_name = "RUN")]
        runs: Vec<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Add the results of an archive to the store
    ///
    /// Compares all contents with their digests. Does not overwrite what is already in the store.
    #[command(after_help = "\
Examples:
  palinode cache import paper.zip --store fresh")]
    Import {
        /// The archive to read.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

fn time(text: &str) -> Result<Duration, String> {
    read_duration(text).ok_or_else(|| "expected a time such as 90m, 12h or 30d".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    read_size(text).ok_or_else(|| "expected a size with its unit, such as 800MiB or 50GiB".to_owned())
}

/// Lists, checks, tidies or copies the store.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Ls { store, stage, json } => list(&store.look()?, stage.as_deref(), *json),
        Command::Verify { store } => verify(store),
        Command::Gc { store, wait, unused_for, size, keep_runs, runs_newer_than, dry_run, json } => {
            let retention = Retention { unused_for: *unused_for, size: *size };
            let runs = RunRetention { latest: *keep_runs, newer_than: *runs_newer_than };
            let (store, garbage) = if *dry_run {
                let store = store.look()?;
                let garbage = palinode::garbage(&store, &retention, &runs);
                (store, garbage)
            } else {
                let store = wait.open_existing(store)?;
                let garbage = palinode::collect(&store, &retention, &runs)?;
                (store, garbage)
            };
            tell_notes(&store);
            if *json { print_json(&garbage) } else { tell_garbage(&garbage, *dry_run) }
        }
        Command::Pin { which: None, store } => pins(&store.look()?),
        Command::Pin { which: Some(which), store } => {
            let pin = palinode::pin(&store.look()?, which)?;
            print(&format!("kept: {} of {} ({})\n", format::count(pin.keys.len(), "result"), pin.name, pin.what))
        }
        Command::Unpin { which, store } => {
            let pin = store.look()?.unpin(which)?;
            print(&format!("no longer kept: {} ({})\n", pin.name, pin.what))
        }
        Command::Rebuild { store, wait } => {
            begins(&format!("reading the records of all results in {}", store.store.display()));
            let (_, rebuilt) = wait.rebuild(store)?;
            let (results, files) = (format::count(rebuilt.manifests, "result"), format::count(rebuilt.files, "file"));
            let (before, after) = (format::size(rebuilt.before), format::size(rebuilt.after));
            print(&format!("indexed {results}, and the digests of {files}; {before} before, {after} now\n"))
        }
        Command::Migrate { store, wait, json } => {
            let migrated = migrate(&wait.open_existing(store)?, &palinode::catalogue())?;
            if *json {
                return print_json(&migrated);
            }
            let Migrated { current, carried, left } = migrated;
            let left = match left {
                0 => String::new(),
                left => format!("; {} cannot be used by this version", format::count(left, "result")),
            };
            print(&format!("{} carried over, {current} found as before{left}\n", format::count(carried, "result")))
        }
        Command::Export { file, runs, store } => {
            begins(&format!("writing {}", file.display()));
            let exported = palinode::export(&store.share()?, runs, file)?;
            let outside = match exported.outside {
                0 => String::new(),
                files => format!("; {} outside the store left out", format::count(files, "file")),
            };
            let (results, runs) = (format::count(exported.results, "result"), format::count(exported.runs, "run"));
            let size = format::size(exported.bytes);
            print(&format!("{}: {results} of {runs}, {size}{outside}\n", file.display()))
        }
        Command::Import { file, store, wait } => {
            begins(&format!("reading {}", file.display()));
            let imported = palinode::import(&wait.open(store)?, file)?;
            let (results, runs) =
                (format::count(imported.results, "new result"), format::count(imported.runs, "new run"));
            let known =
                if imported.known == 0 { String::new() } else { format!("; {} were here already", imported.known) };
            print(&format!("{results}, {runs}, {}{known}\n", format::size(imported.bytes)))
        }
    }
}

/// How many of the results that go are listed.
const LISTED: usize = 20;

fn tell_garbage(garbage: &Garbage, dry_run: bool) -> Result<(), Failure> {
    let style = Style::stdout();
    let mut text = String::new();
    if !garbage.results.is_empty() {
        let columns = [
            ("STAGE", Column::Name),
            ("LAST MADE FOR", Column::Text),
            ("TOOK", Column::Number),
            ("SIZE", Column::Number),
            ("LAST USED", Column::Name),
        ];
        let now = now_ms();
        let rows = garbage.results.iter().take(LISTED).map(|dead| {
            vec![
                Field::new(dead.stage.clone(), Look::Bold),
                dead.made_for.clone().into(),
                format::duration(dead.seconds).into(),
                format::size(dead.bytes).into(),
                format::ago(now.saturating_sub(dead.used_ms) / 1000).into(),
            ]
        });
        text.push_str(&table(&style, &columns, rows.collect()));
        if garbage.results.len() > LISTED {
            let more = format!("and {} more; --json lists all\n", garbage.results.len() - LISTED);
            text.push_str(&style.dim(&more));
        }
        text.push('\n');
    }
    let parts = [
        (garbage.results.len(), "result"),
        (garbage.units, "partial result"),
        (garbage.runs, "run record"),
        (garbage.orphans, "unusable file"),
    ];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format::count(*n, what)).collect();
    let kept = match garbage.pinned {
        0 => format::count(garbage.kept, "result"),
        pinned => format!("{}, {pinned} of them since they are pinned", format::count(garbage.kept, "result")),
    };
    let left = format!("{} stay ({kept})", format::size(garbage.kept_bytes + garbage.beside_bytes));
    let left = match garbage.unread {
        0 => left,
        unread => format!(
            "{left}; {} of results cannot be read by this program or user, and stay",
            format::count(unread, "record")
        ),
    };
    let done = if parts.is_empty() {
        format!("nothing to remove; {left}")
    } else {
        let verb = if dry_run { "would remove" } else { "removed" };
        format!("{verb} {}: {}; {left}", parts.join(", "), format::size(garbage.bytes))
    };
    print(&format!("{text}{done}\n"))
}

fn pins(store: &Store) -> Result<(), Failure> {
    let pins = store.pins();
    if pins.is_empty() {
        return print("nothing is pinned\n");
    }
    let columns = [("PIN", Column::Name), ("OF", Column::Text), ("RESULTS", Column::Number), ("SINCE", Column::Name)];
    let now = now_ms();
    let rows = pins.iter().map(|pin| {
        let name = if pin.keys.len() == 1 && pin.name.len() > 40 { &pin.name[..12] } else { &pin.name };
        vec![
            Field::new(name.to_owned(), Look::Bold),
            pin.what.clone().into(),
            pin.keys.len().to_string().into(),
            format::ago(now.saturating_sub(pin.since_ms) / 1000).into(),
        ]
    });
    print(&table(&Style::stdout(), &columns, rows.collect()))
}

/// What is listed of a result.
struct Row {
    stage: String,
    made_for: String,
    seconds: f64,
    finished_ms: u64,
    /// What of it lies in the store, with its size.
    contents: Vec<(Digest, u64)>,
}

impl Row {
    fn of(store: &Store, manifest: Manifest) -> Self {
        // Files outside the store take no room there.
        let files = manifest.output.files.values().filter(|file| store.blob_path(&file.digest).exists());
        Self {
            contents: files.map(|file| (file.digest, file.size)).collect(),
            made_for: manifest.made_for(),
            stage: manifest.fingerprint.stage,
            seconds: manifest.seconds,
            finished_ms: manifest.finished_ms,
        }
    }
}

fn list(store: &Store, stage: Option<&str>, json: bool) -> Result<(), Failure> {
    let style = Style::stdout();
    let asked = |manifest: &Manifest| stage.is_none_or(|stage| manifest.fingerprint.stage == stage);
    if json {
        let mut manifests: Vec<Manifest> =
            store.each_manifest(|manifest| asked(&manifest).then_some(manifest)).into_iter().flatten().collect();
        manifests.sort_by_key(|manifest| manifest.finished_ms);
        manifests.reverse();
        return print_json(&manifests);
    }
    let listed = store.each_manifest(|manifest| asked(&manifest).then(|| Row::of(store, manifest)));
    let mut listed: Vec<Row> = listed.into_iter().flatten().collect();
    listed.sort_by_key(|row| row.finished_ms);
    listed.reverse();
    if listed.is_empty() {
        tell_notes(store);
        return print(&format!("no results in {}\n", store.root().display()));
    }
    let all: HashSet<&(Digest, u64)> = listed.iter().flat_map(|row| &row.contents).collect();
    let total = format::size(all.iter().map(|(_, size)| size).sum());
    let count = format::count(listed.len(), "result");
    drop(all);
    let now = now_ms();
    let columns = [
        ("STAGE", Column::Name),
        ("LAST MADE FOR", Column::Text),
        ("TOOK", Column::Number),
        ("SIZE", Column::Number),
        ("MADE", Column::Name),
    ];
    let rows = listed.into_iter().map(|row| {
        vec![
            Field::new(row.stage, Look::Bold),
            row.made_for.into(),
            format::duration(row.seconds).into(),
            format::size(row.contents.iter().map(|(_, size)| size).sum()).into(),
            format::ago(now.saturating_sub(row.finished_ms) / 1000).into(),
        ]
    });
    let text = table(&style, &columns, rows.collect());
    tell_notes(store);
    print(&format!("{text}\n{count}, {total} in {}\n", store.root().display()))
}

/// Tells a person that something begins which may take a while.
fn begins(what: &str) {
    if Style::stderr().terminal {
        complain(&format!("{what}\n"));
    }
}

fn verify(store: &StoreArgs) -> Result<(), Failure> {
    let looked = store.look()?;
    begins(&format!("reading everything in {}", looked.root().display()));
    let found = looked.verify();
    tell_notes(&looked);
    let (blobs, results) = (format::count(found.blobs, "file"), format::count(found.manifests, "result"));
    let read = format!("read {blobs} ({}) of {results}", format::size(found.bytes));
    if found.damage.is_empty() {
        return print(&format!("{} {read}: all as they were written\n", Style::stdout().green("✓")));
    }
    let style = Style::stderr();
    for damage in &found.damage {
        let hits =
            if damage.hits.is_empty() { String::new() } else { format!("; needed by {}", damage.hits.join(", ")) };
        complain(&format!("{} {}: {}{hits}\n", style.red("✗"), damage.path.display(), damage.what));
    }
    let known = found.damage.iter().filter(|damage| damage.known).count();
    let unknown = found.damage.len() - known;
    let mut text = format!("{read}: {known} damaged");
    if unknown > 0 {
        text += &format!(", {unknown} cannot be read and may be whole");
    }
    if known > 0 {
        // Without the lock, a file that is being replaced could be taken for the damaged one.
        text += &match store.open() {
            Ok(store) => format!("; {} moved aside", format::count(store.set_damage_aside(&found), "file")),
            Err(_) => {
                "; nothing was moved aside, since another process has the store open or it cannot be written".to_owned()
            }
        };
        text += "; the next run that needs them makes them again";
    }
    complain(&format!("{text}\n"));
    Err(Failure::Told(ErrorKind::Store))
}

/// What the store noticed by itself.
fn tell_notes(store: &Store) {
    for note in store.take_notes() {
        complain(&format!("{} {note}\n", Style::stderr().yellow("!")));
    }
}
