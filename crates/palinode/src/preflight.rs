//! A look at a pipeline before hours are spent on it: at its requests, and at what its stages take.

use std::collections::HashSet;

use palinode_engine::{Encoder, Error, Key, Pipeline, RunOptions, Silent, Status, Store, available, plan};
use palinode_stages::{BLOCKS, Findings, Free, Needs, free_memory, to_check};

/// Changes when the same requests would yield other findings.
const VERSION: u64 = 4;

/// All that is found about what a run would compute: about the requests of editing stages, and where memory or disk will not do. Nothing is
/// found where all results are in the store. What was found about requests is kept, and found again as long as requests, tokenizer and
/// sizes are the same.
///
/// # Errors
/// When a file cannot be read, or the store written.
pub fn preflight(pipeline: &Pipeline, store: &Store, options: &RunOptions) -> Result<Findings, Error> {
    let planned = plan(pipeline, store, &Silent)?;
    let chosen = options.selection.choose(pipeline)?;
    let runs = |at: &usize| !matches!(planned.entries[*at].status, Status::Cached { .. }) && chosen.asked.contains(at);
    let run: Vec<usize> = (0..pipeline.instances.len()).filter(runs).collect();
    if run.is_empty() {
        return Ok(Findings::new());
    }
    let (mut all, mut known) = (Findings::new(), HashSet::new());
    for check in to_check(pipeline) {
        if !run.iter().any(|&at| pipeline.instances[at].name == check.instance.name) {
            continue;
        }
        let mut encoder = Encoder::new("palinode.preflight");
        encoder.uint(VERSION).value(&check.with);
        for path in &check.files {
            encoder.str(&store.digest_of(path, &|_, _| {})?.digest.to_string());
        }
        let key = Key(encoder.finish());
        let kept = store.get_unit(&key).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let found: Findings = if let Some(found) = kept {
            found
        } else {
            let found = check.findings()?;
            let bytes = serde_json::to_vec(&found).map_err(|error| Error::internal(error.to_string()))?;
            store.put_unit(&key, &bytes)?;
            found
        };
        for finding in found {
            if known.insert(finding.clone()) {
                all.push(finding);
            }
        }
    }
    let mut needs = Needs::of(pipeline, &run);
    // Blocks that are read when they are needed are in memory one at a time.
    if options.settings.get(BLOCKS).is_some_and(|blocks| blocks != "resident") {
        needs.weights = 0;
    }
    // Of a GPU's memory nothing is known without asking it.
    let memory = free_memory().filter(|_| options.device == "cpu");
    all.extend(needs.findings(store.root(), Free { memory, disk: &available }));
    Ok(all)
}
