//! Commands that are a pipeline under the hood: it is built, run without much ado, and can be kept as a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use palinode_engine::{Pipeline, RunOptions, RunReport, Source, StageError};
use serde_json::Value;

use crate::failure::Failure;
use crate::input::StoreArgs;
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

/// Runs stages, given by name as in a pipeline file; relative paths start here.
pub fn run(name: &str, stages: &[(&str, Value)], quick: &Quick, store: &StoreArgs) -> Result<RunReport, Failure> {
    let yaml = yaml(name, stages);
    if let Some(path) = &quick.save {
        save(path, &yaml)?;
    }
    let source = Source::new(format!("{name}.yaml"), yaml);
    let catalogue = palinode_stages::catalogue();
    let pipeline = Pipeline::load(&source, Path::new("."), &[], &catalogue)?;
    let store = Arc::new(store.open()?);
    let interrupt = interrupt::watch();
    let device = palinode_stages::chosen_device().to_owned();
    let options = RunOptions { device, interrupt: Arc::clone(&interrupt), ..RunOptions::default() };
    // A person sees long work go on; where nobody looks, only the result is told.
    let how = if Style::stderr().terminal && !quick.json { How::Person } else { How::Quiet };
    let report = palinode_engine::run(&pipeline, &catalogue, &store, &options, &watch(how, &pipeline));
    clear();
    let report = report?;
    super::run::end(&pipeline, &report, interrupt.load(Ordering::Relaxed))?;
    Ok(report)
}

/// What the result of a stage says.
pub fn meta(report: &RunReport, stage: &str) -> Value {
    let found = report.stages.iter().find(|found| found.instance == stage);
    found.and_then(|found| found.artifact.as_ref()).map_or(Value::Null, |artifact| artifact.meta.clone())
}

/// A pipeline file: a stage a block, its parameters as JSON, which YAML can read.
fn yaml(name: &str, stages: &[(&str, Value)]) -> String {
    let mut text = format!("name: {name}\n\nstages:");
    for (stage, body) in stages {
        text += &format!("\n  {stage}:\n");
        for part in ["uses", "inputs", "with"] {
            match &body[part] {
                Value::Null => {}
                Value::String(kind) => text += &format!("    {part}: {kind}\n"),
                Value::Object(fields) if part == "inputs" => {
                    let ports: Vec<String> = fields.iter().map(|(port, from)| format!("{port}: {from}")).collect();
                    text += &format!("    {part}: {{ {} }}\n", ports.join(", ").replace('"', ""));
                }
                Value::Object(fields) => {
                    text += &format!("    {part}:\n");
                    let given = fields.iter().filter(|(_, value)| !value.is_null());
                    given.for_each(|(field, value)| text += &format!("      {field}: {value}\n"));
                }
                other => text += &format!("    {part}: {other}\n"),
            }
        }
    }
    text
}

/// A pipeline file must not be lost to a slip of the finger.
fn save(path: &Path, yaml: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(yaml.as_bytes()));
    written.map_err(|error| {
        let told = StageError::input(format!("cannot write {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => told.hint("choose another name, or remove the file first"),
            _ => told,
        }
    })?;
    complain(&format!("saved as {}: palinode run {0}\n", path.display()));
    Ok(())
}
