//! `palinode show`

mod export;
mod run;
mod save;
mod stage;

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use palinode::{Error, ErrorKind, Outcome, RunRecord, Runs, StageRecord, did_you_mean};

use crate::again;
use crate::command_error::Failure;
use crate::input::StoreArgs;
use crate::outputs::OverwriteArgs;
use crate::past::{self, parts};
use crate::terminal::{Style, complain};

/// Show a run, the result of a stage, or where an exported file comes from
///
/// For a run: its stages, parameters and scores. For a stage: its result, inputs, parameters and files. For a folder or file
/// that `export` wrote: its model, objective, requests and tensors. Works while a run is in progress.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode show latest
  palinode show 'solve[objective=rome]'          in the last run that has a result of it
  palinode show latest~1:scores                    in the run before the last
  palinode show scores --save results              the scores of every prompt, as files
  palinode show out/demo/rome/update.safetensors")]
pub struct Args {
    /// A run, a stage of the last run that has a result of it, RUN:STAGE, or an exported folder or file.
    #[arg(value_name = "RUN|STAGE|FILE")]
    what: String,

    #[command(flatten)]
    store: StoreArgs,

    /// Copy the files of a stage's result into this folder, with one folder per cell if there are several. A folder that is there must
    /// have been written by this command for this stage, and not been changed since.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,

    #[command(flatten)]
    overwrite: OverwriteArgs,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let path = Path::new(&args.what);
    if let Some(folder) = &args.save {
        let runs = args.store.runs()?;
        return match find(&runs, &args.what)? {
            Found::Stage(found, instances) => save::save(&runs, &found, &instances, folder, args.overwrite.get()),
            Found::Run(_) => {
                let error = Error::new(ErrorKind::Usage, format!("`{}` is a run, and has no files", args.what));
                let one = again::on_store(&format!("palinode show {}:STAGE --save DIR", args.what));
                Err(error.hint(format!("name a stage: `{one}`")).into())
            }
        };
    }
    if path.is_file() {
        return export::show(path, args.json);
    }
    let runs = args.store.runs()?;
    let found = find(&runs, &args.what);
    // A stage or run of that name comes first; the folder can be named with a slash.
    if let (Err(_), Some(file)) = (&found, export::of_folder(path)) {
        return export::show(&file, args.json);
    }
    match found? {
        Found::Run(found) => run::show(&runs, &found, args.json),
        Found::Stage(found, instances) => stage::show(&runs, &found, &instances, args.json),
    }
}

/// A run, or instances of a stage in one.
pub enum Found {
    /// A run.
    Run(RunRecord),
    /// Instances of a stage.
    Stage(RunRecord, Vec<String>),
}

/// What a name stands for: a run, a stage in the last run that has a result of it, or `RUN:STAGE`.
pub fn find(runs: &Runs, name: &str) -> Result<Found, Error> {
    if let Some((run, stage)) = name.split_once(':').filter(|(run, _)| !run.contains('[')) {
        let run = runs.open(run)?;
        let instances = instances(&run, stage);
        if instances.is_empty() {
            let names = run.stages.iter().flat_map(|known| [known.stage.as_str(), &known.instance]);
            let hint = did_you_mean(stage, names)
                .unwrap_or_else(|| format!("see `{}`", again::on_store(&format!("palinode show {}", run.run))));
            let message = format!("the run {} has no stage `{stage}`", run.run);
            return Err(Error::new(ErrorKind::Usage, message).hint(hint));
        }
        return Ok(Found::Stage(run, instances));
    }
    let missing = match runs.open(name) {
        Ok(run) => return Ok(Found::Run(run)),
        Err(missing) => missing,
    };
    // A run whose record does not read is there all the same.
    if missing.kind != ErrorKind::Usage {
        return Err(missing);
    }
    let mut names: Vec<String> = Vec::new();
    let mut without: Option<(RunRecord, Vec<String>)> = None;
    for run in runs.list() {
        let found = instances(&run, name);
        if has_result(&run, &found) {
            if let Some((later, _)) = &without {
                let run = Style::stderr().bold(&run.run);
                complain(&format!("note: run {} has no result of `{name}`; this is of run {run}\n", later.run));
            }
            return Ok(Found::Stage(run, found));
        }
        if !found.is_empty() && without.is_none() {
            without = Some((run, found));
            continue;
        }
        for stage in &run.stages {
            if !names.contains(&stage.stage) {
                names.push(stage.stage.clone());
            }
        }
    }
    if let Some((run, found)) = without {
        return Ok(Found::Stage(run, found));
    }
    if names.is_empty() {
        return Err(missing);
    }
    let stage = parts(name).map(|(stage, _)| stage).filter(|stage| names.iter().any(|known| known == stage));
    let cells = stage.and_then(|stage| {
        let run = runs.list().into_iter().find(|run| run.stages.iter().any(|known| known.stage == stage))?;
        Some((stage, run.stages.into_iter().filter(move |known| known.stage == stage).map(|known| known.instance)))
    });
    if let Some((stage, cells)) = cells {
        let cells: Vec<String> = cells.collect();
        let hint = did_you_mean(name, cells.iter().map(String::as_str))
            .unwrap_or_else(|| format!("its cells are such as '{}'", cells[0]));
        return Err(Error::new(ErrorKind::Usage, format!("`{stage}` has no cell `{name}`")).hint(hint));
    }
    let hint = did_you_mean(name, names.iter().map(String::as_str))
        .unwrap_or_else(|| format!("see `{}`, or name a stage of one", again::on_store("palinode runs")));
    Err(Error::new(ErrorKind::Usage, format!("no run, stage or file is named `{name}`")).hint(hint))
}

/// Whether one of these instances came to its result in this run.
fn has_result(run: &RunRecord, instances: &[String]) -> bool {
    let stages = instances.iter().filter_map(|instance| run.stage(instance));
    stages.filter_map(past::outcome).any(|outcome| matches!(outcome, Outcome::Ran | Outcome::Cached))
}

/// The instances of a run that a name stands for.
fn instances(run: &RunRecord, name: &str) -> Vec<String> {
    let named = |like: &dyn Fn(&&StageRecord) -> bool| {
        run.stages.iter().filter(like).map(|stage| stage.instance.clone()).collect::<Vec<_>>()
    };
    let exact = named(&|stage| stage.instance == name);
    if !exact.is_empty() {
        return exact;
    }
    match parts(name) {
        // Some of the axes: all cells with these values.
        Some((of, wanted)) => named(&|stage| {
            let own = parts(&stage.instance).map(|(_, own)| own).unwrap_or_default();
            stage.stage == of && wanted.iter().all(|value| own.contains(value))
        }),
        None => named(&|stage| stage.stage == name),
    }
}
