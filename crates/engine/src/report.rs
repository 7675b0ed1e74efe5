//! What a run did.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cost::Cost;
use crate::event::Outcome;
use palinode_error::ErrorKind;
use palinode_store::Artifact;

/// What a run did.
#[derive(Debug)]
pub struct RunReport {
    /// Its id.
    pub run: String,
    /// The folder with its event log.
    pub dir: PathBuf,
    /// What happened to each instance, in the order of [`palinode_pipeline::Pipeline::instances`].
    pub stages: Vec<StageReport>,
    /// How long all of it took.
    pub seconds: f64,
    /// What it took of the machine.
    pub cost: Cost,
}

/// What a run did with one instance.
#[derive(Debug)]
pub struct StageReport {
    /// The instance.
    pub instance: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its result, if it has one.
    pub artifact: Option<Arc<Artifact>>,
    /// How long it worked.
    pub seconds: f64,
}

impl RunReport {
    /// Number of stages with an outcome like this.
    pub fn count(&self, like: impl Fn(&Outcome) -> bool) -> usize {
        self.stages.iter().filter(|stage| like(&stage.outcome)).count()
    }

    /// The first failure, which decides the exit code.
    pub fn failure(&self) -> Option<(&StageReport, ErrorKind)> {
        self.stages.iter().find_map(|stage| match &stage.outcome {
            Outcome::Failed { kind, .. } => Some((stage, *kind)),
            _ => None,
        })
    }
}
