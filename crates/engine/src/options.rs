//! How a run is to go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::event::Outcome;
use crate::executor::{Cluster, WorkerCommand};
use crate::machine::Machine;
use crate::scheduler::Backoff;
use palinode_error::Error;
use palinode_pipeline::{Pipeline, Selection};
use palinode_store::{Artifact, Store};
use serde::{Deserialize, Serialize};

/// How a run was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// The folder.
    pub folder: PathBuf,
    /// The words after the program.
    pub words: Vec<String>,
}

impl CommandLine {
    /// The file's name in the folder of a run.
    pub const FILE: &str = "command.json";
}

/// A look at an instance that would run, with its pipeline, its place there, the store, and what became of others: lines that its user should
/// know, or why it must not run.
pub type Gate =
    fn(&Pipeline, usize, &Store, &dyn Fn(usize) -> Option<(Outcome, Arc<Artifact>)>) -> Result<Vec<String>, Error>;

/// How to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The device that stages are asked to use; recorded, not part of any key.
    pub device: String,
    /// Settings that stages read and that change no bit of a result, by name; in no key.
    pub settings: BTreeMap<String, String>,
    /// Whether stages that do not need a failed one still run.
    pub keep_going: bool,
    /// Set it to stop after the unit that is being worked on.
    pub interrupt: Arc<AtomicBool>,
    /// Which stages the run is about.
    pub selection: Selection,
    /// How many stages may work at once; as many as there are cores if not given.
    pub jobs: Option<usize>,
    /// What the stages share.
    pub machine: Machine,
    /// Runs each stage in a process of its own, started like this; if not given, in a thread of this one.
    pub worker: Option<WorkerCommand>,
    /// In how many shares, each a process, the work of one stage is done at most, where it parts; 1 if not given.
    pub shares: usize,
    /// The devices that shares are dealt out to, in turn; all work on `device` where none is named.
    pub share_devices: Vec<String>,
    /// Runs stages in jobs of this cluster.
    pub cluster: Option<Cluster>,
    /// How the run was started, which is written down so that it can be again.
    pub command: Option<CommandLine>,
    /// How long such a process may take to finish its unit once its time is up.
    pub grace: Duration,
    /// How long a failed stage with `retries` waits for its next attempt.
    pub backoff: Backoff,
    /// Looks at every instance once its inputs are there, before it runs.
    pub gate: Option<Gate>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            settings: BTreeMap::new(),
            keep_going: false,
            interrupt: Arc::default(),
            selection: Selection::default(),
            jobs: None,
            machine: Machine::this(),
            worker: None,
            shares: 1,
            share_devices: Vec::new(),
            cluster: None,
            command: None,
            grace: Duration::from_secs(30),
            backoff: Backoff::default(),
            gate: None,
        }
    }
}
