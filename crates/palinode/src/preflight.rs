//! A look at a pipeline before hours are spent on it: at its requests, and at what its stages take.

use std::collections::HashSet;
use std::sync::Arc;

use palinode_engine::{
    Artifact, Encoder, Error, ErrorKind, Key, Outcome, Pipeline, RunOptions, Silent, Status, Store, available, plan,
};
use palinode_stages::{BLOCKS, Finding, Findings, Free, Needs, Severity, free_memory, look_at, to_check};

/// Changes when the same requests would yield other findings.
const VERSION: u64 = 5;
/// Findings that an error names one by one.
const NAMED: usize = 3;

/// All that is found about what a run would compute: about the requests of editing stages, and where memory or disk will not do. Nothing is
/// found where all results are in the store. Of requests among which a model is still to choose, a note says what is wrong with some, and
/// [`admit`] looks at those that it chose. What was found about requests is kept, and found again as long as requests, tokenizer and
/// sizes are the same.
///
/// # Errors
/// When a file cannot be read, or the store written.
pub fn preflight(pipeline: &Pipeline, store: &Store, options: &RunOptions) -> Result<Findings, Error> {
    let checks = to_check(pipeline);
    // Of a GPU's memory nothing is known without asking it.
    let memory = free_memory().filter(|_| options.device == "cpu");
    let findings = |run: &[usize]| {
        let mut needs = Needs::of(pipeline, run);
        // Blocks that are read when they are needed are in memory one at a time.
        if options.settings.get(BLOCKS).is_some_and(|blocks| blocks != "resident") {
            needs.weights = 0;
        }
        needs.findings(store.root(), Free { memory, disk: &available })
    };
    // Where all stages together want for nothing, so do those that will run; which those are takes a look at every result.
    let every: Vec<usize> = (0..pipeline.instances.len()).collect();
    if checks.is_empty() && findings(&every).is_empty() {
        return Ok(Findings::new());
    }
    let planned = plan(pipeline, store, &Silent)?;
    let chosen = options.selection.choose(pipeline)?;
    let runs = |at: &usize| !matches!(planned.entries[*at].status, Status::Cached { .. }) && chosen.asked.contains(at);
    let run: Vec<usize> = every.into_iter().filter(runs).collect();
    if run.is_empty() {
        return Ok(Findings::new());
    }
    let (mut all, mut known) = (Findings::new(), HashSet::new());
    for mut check in checks {
        if let Some(Status::Cached { key }) = check.choice().map(|choice| &planned.entries[choice].status)
            && let Some(manifest) = store.manifest(key)?
        {
            check = check.chosen(&manifest.output, store)?;
        }
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
    all.extend(findings(&run));
    Ok(all)
}

/// Looks at the requests of an editing stage that a model chose in this very run, before the stage begins: lines of what spoils scores. For
/// [`RunOptions::gate`].
///
/// # Errors
/// [`ErrorKind::Unworkable`] where some of them cannot be edited; [`ErrorKind::Doubtful`] for any warning where the pipeline is strict about
/// them; when a file cannot be read.
pub fn admit(
    pipeline: &Pipeline,
    at: usize,
    store: &Store,
    became: &dyn Fn(usize) -> Option<(Outcome, Arc<Artifact>)>,
) -> Result<Vec<String>, Error> {
    let Some(check) = look_at(pipeline, at) else { return Ok(Vec::new()) };
    // What was chosen before has been looked at.
    let Some((Outcome::Ran, chosen)) = check.choice().and_then(became) else { return Ok(Vec::new()) };
    let found = check.chosen(&chosen, store)?.findings()?;
    let of = |severity: Severity| {
        let lines = found.iter().filter(|finding| finding.severity == severity).map(line);
        lines.collect::<Vec<String>>()
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let refuse = |kind, lines: &[String], hint: &str| {
        let more = lines.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let named: Vec<&str> = lines.iter().take(NAMED).map(String::as_str).collect();
        Err(Error::new(kind, format!("{}{more}", named.join("; "))).hint(hint.to_owned()))
    };
    if !errors.is_empty() {
        return refuse(
            ErrorKind::Unworkable,
            &errors,
            "mend or leave out these requests, or choose by another condition",
        );
    }
    if pipeline.strict_checks && !warnings.is_empty() {
        return refuse(ErrorKind::Doubtful, &warnings, "mend what they are about, or set `checks: lenient`");
    }
    Ok(warnings)
}

/// A finding in one line.
fn line(finding: &Finding) -> String {
    let about = finding.request.iter().map(|id| format!("request {id}"));
    let place: Vec<String> = about.chain(Some(finding.at.clone()).filter(|at| !at.is_empty())).collect();
    let place = if place.is_empty() { String::new() } else { format!("{}: ", place.join(", ")) };
    format!("{place}{} ({})", finding.words, finding.kind)
}
