//! Keeps the record of the run that goes on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::outline::outline;
use super::record::RunRecord;
use super::{RECORD, RESOLVED};
use crate::cost::Cost;
use crate::event::{Event, Observer};
use crate::report::StageReport;
use palinode_error::Error;
use palinode_error::now_ms;
use palinode_pipeline::Pipeline;
use palinode_store::Store;

/// Hears what happens, tells it on, and writes the record down at the end. In between, the event log says it all.
pub struct Recorder {
    record: Mutex<RunRecord>,
    told: Arc<dyn Observer>,
}

impl Recorder {
    /// Writes the record of a run that begins.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn start(
        run: &str,
        pipeline: &Pipeline,
        device: &str,
        store: &Store,
        told: &Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let dir = store.run_dir(run);
        let record = outline(run, pipeline, device, now_ms());
        store.write_file(&dir.join(RECORD), &record.write())?;
        Ok(Self { record: Mutex::new(record), told: Arc::clone(told) })
    }

    /// Writes the pipeline down as it runs.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn resolved(run: &str, pipeline: &Pipeline, store: &Store) -> Result<(), Error> {
        store.write_file(&store.run_dir(run).join(RESOLVED), pipeline.resolved().as_bytes())
    }

    /// Writes the record of the run that ended, with what its instances yielded.
    ///
    /// # Errors
    /// When the store cannot be written; the event log still says how the run ended.
    pub fn finish(&self, store: &Store, stages: &[StageReport], cost: Cost) -> Result<(), Error> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        for StageReport { instance, outcome, artifact, .. } in stages {
            record.outcome(instance, outcome);
            if let Some(artifact) = artifact {
                record.result(instance, artifact);
            }
        }
        record.ended = record.end();
        record.cost = cost;
        let path: &Path = &store.run_dir(&record.run).join(RECORD);
        store.write_file(path, &record.write())
    }
}

impl Observer for Recorder {
    fn event(&self, event: &Event) {
        // Steps of progress are many and change nothing here.
        if !matches!(event, Event::Progress { .. }) {
            self.record.lock().unwrap_or_else(PoisonError::into_inner).apply(now_ms(), event);
        }
        self.told.event(event);
    }
    fn pace(&self) -> Duration {
        self.told.pace()
    }
}
