//! Commands that are a pipeline under the hood: it is built, run without much ado, and can be kept as a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use palinode::{Error, PipelineBuilder, Recipe, Results, RunOptions, RunReport, Store};

use crate::command_error::Failure;
use crate::input::{NetworkArgs, StoreArgs};
use crate::interrupt;
use crate::terminal::{How, Style, clear, complain, watch};

/// What such commands have in common.
#[derive(Args)]
pub struct Quick {
    /// Write the pipeline of this command to a file, to run or change it later.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,

    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub network: NetworkArgs,
}

impl Quick {
    /// A path as it has to stand in the pipeline: a saved file may lie elsewhere, and its paths start there.
    pub fn path(&self, path: &str) -> String {
        let elsewhere = self.save.as_ref().and_then(|save| save.parent()).is_some_and(|to| !to.as_os_str().is_empty());
        if !elsewhere || path.starts_with("hf:") {
            return path.to_owned();
        }
        std::path::absolute(path).map_or_else(|_| path.to_owned(), |full| full.display().to_string())
    }
}

/// Runs a pipeline; relative paths start here. What it lacks of the Hub is fetched.
pub fn run(build: PipelineBuilder, quick: &Quick, store: &StoreArgs) -> Result<Done, Failure> {
    let yaml = build.to_yaml();
    // A person sees long work go on; where nobody looks, only the result is told.
    let how = if Style::stderr().terminal && !quick.json { How::Person } else { How::Quiet };
    let interrupt = interrupt::watch();
    let recipe = Recipe::built(build, ".");
    let pipeline = quick.network.with(how, &interrupt, |network| recipe.ready(network))?;
    // What has mistakes is not worth keeping.
    if let Some(path) = &quick.save {
        save(path, &yaml)?;
    }
    let store = Arc::new(store.open()?);
    let device = palinode::chosen_device().to_owned();
    let options = RunOptions { device, interrupt: Arc::clone(&interrupt), ..RunOptions::default() };
    super::run::check(&pipeline, &store, &options, how)?;
    let report = palinode::run(&pipeline, &store, &options, &watch(how, &pipeline));
    clear();
    let report = report?;
    super::run::end(&pipeline, &report, interrupt.load(Ordering::Relaxed))?;
    Ok(Done { report, store })
}

/// A run that went well.
pub struct Done {
    report: RunReport,
    store: Arc<Store>,
}

impl Done {
    /// What came out.
    pub fn results(&self) -> Results<'_> {
        Results::of(&self.report, &self.store)
    }
}

/// A pipeline file must not be lost to a slip of the finger.
fn save(path: &Path, yaml: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(yaml.as_bytes()));
    written.map_err(|error| {
        let told = Error::input(format!("cannot write {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => told.hint("choose another name, or remove the file first"),
            _ => told,
        }
    })?;
    complain(&format!("saved as {}: palinode run {0}\n", path.display()));
    Ok(())
}
