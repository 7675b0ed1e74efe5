//! Edit by edit: `records.jsonl` of scores, beside the requests that were asked for.

use palinode_engine::Kind as _;
use palinode_engine::shown::Shown;
use palinode_eval::{Comparison, RecordScores, Summary};
use palinode_report::{Edit, Edits, Metric};
use serde::Deserialize;

use super::found::Found;
use super::measured;
use crate::artifacts::measurements::{RECORDS, ScoresKind};

/// A record before and after the edit; of an unedited model there is only the first.
#[derive(Deserialize)]
struct Record {
    id: String,
    before: RecordScores,
    after: Option<RecordScores>,
}

/// Every edit in every cell that was scored.
pub fn all(found: &Found<'_>) -> Edits {
    let members: Vec<usize> = found.of_kind(ScoresKind::NAME).map(|(at, _)| at).collect();
    if members.is_empty() {
        return Edits::default();
    }
    let metrics = metrics(found, &members);
    let mut edits = Edits { cells: found.names(&members), rows: Vec::new(), metrics };
    for (cell, &at) in members.iter().enumerate() {
        let Some(manifest) = &found.manifests[at] else { continue };
        let records: Vec<Record> = found.read_lines(at, &manifest.output, RECORDS).unwrap_or_default();
        let requests = found.requests(at);
        let before: Vec<RecordScores> = records.iter().map(|record| record.before.clone()).collect();
        let after: Vec<RecordScores> = records.iter().filter_map(|record| record.after.clone()).collect();
        let summary = if after.is_empty() { Summary::of(&before) } else { Summary::between(&before, &after) };
        for (i, record) in records.iter().enumerate() {
            let of = |value: fn(&Comparison) -> Option<f64>| {
                [Some(&record.before), record.after.as_ref()].map(|scores| scores?.rewrite.first().and_then(value))
            };
            let request = requests.get(i).filter(|request| request.id == record.id);
            let own: Vec<_> = summary.record(i).collect();
            let value =
                |wanted: &Metric| own.iter().find(|(known, _)| known.name == wanted.name).map(|(_, value)| *value);
            edits.rows.push(Edit {
                cell,
                id: record.id.clone(),
                prompt: record.before.rewrite.first().map(|asked| asked.prompt.clone()).unwrap_or_default(),
                subject: request.map(|request| request.subject.clone()).unwrap_or_default(),
                new: request.map(|request| request.target_new.clone()).unwrap_or_default(),
                old: request.and_then(|request| request.target_true.clone()),
                p_new: of(|asked| Some(asked.new.probability())),
                p_old: of(|asked| asked.old.as_ref().map(palinode_eval::Score::probability)),
                values: edits.metrics.iter().map(value).collect(),
            });
        }
    }
    edits
}

/// The metrics of an edit: those that are reported of the unedited model too, and belong to single records.
fn metrics(found: &Found<'_>, members: &[usize]) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for manifest in members.iter().filter_map(|&at| found.manifests[at].as_ref()) {
        let all = measured::metrics(&Shown::of(&manifest.output.meta));
        let twice = |metric: &&Metric| all.iter().any(|other| other.name == format!("before_{}", metric.name));
        let chosen: Vec<&Metric> = match all.iter().filter(twice).collect::<Vec<_>>() {
            none if none.is_empty() => all.iter().filter(|metric| metric.percent).skip(1).take(3).collect(),
            some => some,
        };
        for metric in chosen {
            if metrics.iter().all(|known| known.name != metric.name) {
                metrics.push(metric.clone());
            }
        }
    }
    metrics
}
