//! Commands that are a pipeline under the hood: it is built, run without much ado, and can be kept as a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use palinode::{
    Error, ErrorKind, Overwrite, PipelineBuilder, Recipe, Results, RunOptions, RunReport, Single, Store, model_folder,
    real, way, write_files,
};

use crate::again;
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
    /// The folder of the pipeline, where relative paths in it start.
    fn base(&self) -> &Path {
        let folder = self.save.as_ref().and_then(|save| save.parent());
        folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The inverse of [`Quick::path`].
    pub fn seen_from_here(&self, path: &str) -> String {
        if self.base() == Path::new(".") || path.starts_with("hf:") || Path::new(path).is_absolute() {
            return path.to_owned();
        }
        self.base().join(path).display().to_string()
    }

    /// A path as it has to stand in the pipeline: a saved file may lie elsewhere, and its paths start there.
    pub fn path(&self, path: &str) -> String {
        let base = self.base();
        if base == Path::new(".") || path.starts_with("hf:") || Path::new(path).is_absolute() {
            return path.to_owned();
        }
        way(&real(Path::new(path)), &real(base)).display().to_string()
    }
}

/// What a model can be named by.
pub const MODELS: &str = "name a model's folder, a GGUF file, or hf:owner/name";

/// The model of a command line, on this machine.
pub fn model(quick: &Quick, named: &str) -> Result<PathBuf, Failure> {
    let model = quick.network.with(How::Person, &Arc::default(), |network| model_folder(named, network))?;
    if !model.exists() {
        let error = Error::input(format!("there is no file or folder {named}"));
        return Err(error.hint(MODELS).into());
    }
    Ok(model)
}

/// Runs a pipeline as the saved file would. What it lacks of the Hub is fetched.
pub fn run(build: PipelineBuilder, quick: &Quick, store: &StoreArgs) -> Result<Done, Failure> {
    let yaml = build.to_yaml();
    if let Some(path) = quick.save.as_ref().filter(|_| !quick.base().is_dir()) {
        let message = format!("cannot write {}: there is no folder {}", path.display(), quick.base().display());
        return Err(Error::new(ErrorKind::Usage, message).into());
    }
    // A person sees long work go on; where nobody looks, only the result is told.
    let how = if Style::stderr().terminal && !quick.json { How::Person } else { How::Quiet };
    let interrupt = interrupt::watch();
    let recipe = Recipe::built(build, quick.base());
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
    let written = write_files(&[Single::new(path, yaml.as_bytes())], Overwrite::Refused);
    written.map_err(|error| {
        Error { kind: ErrorKind::Input, ..error }.hint("choose another name, or move the file away first")
    })?;
    let run = again::on_store(&format!("palinode run {}", again::quoted(&path.display().to_string())));
    complain(&format!("saved as {}: {run}\n", path.display()));
    Ok(())
}

/// A text of the program's own, as a file in the store's folder that a pipeline can name.
pub fn own_file(store: &Path, name: &str, text: &str) -> Result<String, Failure> {
    // A store that this program must not touch is refused before anything is written into its folder.
    Store::is_at(store)?;
    let path = store.join(name);
    let there = std::fs::read_to_string(&path).is_ok_and(|found| found == text);
    if !there {
        std::fs::create_dir_all(store)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| Error::store(format!("cannot write {}: {error}", path.display())))?;
    }
    let full = std::path::absolute(&path).unwrap_or(path);
    Ok(full.display().to_string())
}
