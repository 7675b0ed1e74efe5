//! What is known of a run before it begins.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cost::Cost;

use super::record::{Ended, FORMAT, Places, RunRecord, StageRecord, StageState};
use palinode_fingerprint::Digest;
use palinode_pipeline::{Instance, Pipeline};
use palinode_store::Holder;

/// The record of a run that begins now.
pub fn outline(run: &str, pipeline: &Pipeline, device: &str, started_ms: u64) -> RunRecord {
    let Holder { pid, host, .. } = Holder::this(None);
    RunRecord {
        format: FORMAT,
        run: run.to_owned(),
        pipeline: pipeline.name.clone(),
        file: pipeline.source.name.clone(),
        file_digest: Digest::of(pipeline.source.text.as_bytes()),
        base: pipeline.base.clone(),
        device: device.to_owned(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        pid,
        host,
        started_ms,
        finished_ms: None,
        ended: Ended::Not,
        replicates: pipeline.replicates.clone(),
        stages: pipeline.instances.iter().map(stage).collect(),
        cost: Cost::default(),
        places: Places::default(),
    }
}

fn stage(instance: &Instance) -> StageRecord {
    StageRecord {
        instance: instance.name.clone(),
        stage: instance.stage.clone(),
        uses: instance.kind.info().name.to_owned(),
        cell: instance.cell.clone(),
        state: StageState::Waiting,
        key: None,
        seconds: 0.0,
        content: None,
        metrics: BTreeMap::new(),
        columns: Value::Null,
        published: Vec::new(),
    }
}
