//! A look at the requests of a pipeline before hours are spent on them.

use std::collections::HashSet;

use palinode_engine::{Encoder, Error, Key, Pipeline, RunOptions, Silent, Status, Store, plan};
use palinode_stages::{Findings, to_check};

/// Changes when the same requests would yield other findings.
const VERSION: u64 = 1;

/// All that is found about the requests of editing stages that a run would compute: nothing where their results are in the store. What was
/// found is kept, and found again as long as requests, tokenizer and sizes are the same.
///
/// # Errors
/// When a file cannot be read, or the store written.
pub fn preflight(pipeline: &Pipeline, store: &Store, options: &RunOptions) -> Result<Findings, Error> {
    let checks = to_check(pipeline);
    if checks.is_empty() {
        return Ok(Findings::new());
    }
    let planned = plan(pipeline, store, &Silent)?;
    let chosen = options.selection.choose(pipeline)?;
    let (mut all, mut known) = (Findings::new(), HashSet::new());
    for check in checks {
        let Some(at) = pipeline.instances.iter().position(|instance| instance.name == check.instance.name) else {
            continue;
        };
        if matches!(planned.entries[at].status, Status::Cached { .. }) || !chosen.asked.contains(&at) {
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
    Ok(all)
}
