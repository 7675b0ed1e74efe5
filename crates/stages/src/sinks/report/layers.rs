//! What was written into each layer: `batches.json` of updates.

use palinode_engine::{Kind as _, StageKind as _};
use palinode_model::{MlpModule, WeightId};
use palinode_report::{LayerFacts as Row, Layers, Metric, Spread};

use super::found::Found;
use crate::artifacts::update::{BATCHES, BatchFacts, LayerFacts, UpdateKind};
use crate::edit::sequence::Sequence;

/// What is shown of a layer, the first four in the figure: name, heading, what it says, and the value.
type Shown = (&'static str, &'static str, &'static str, fn(&LayerFacts) -> Option<f64>);

const SHOWN: [Shown; 8] = [
    ("relative_norm", "‖Δ‖/‖W‖", "Frobenius norm of the change, relative to the weight's", |l| {
        Some(l.relative_norm)
    }),
    ("remaining", "‖ΔK−R‖/‖R‖", "share of the residual that the layer leaves", |l| {
        Some(l.error_after? / l.error_before?)
    }),
    ("preservation", "tr(ΔCΔᵀ)", "what the change does to keys of ordinary text", |l| l.preservation),
    ("condition", "condition", "condition number of the system solved", |l| l.condition),
    ("norm", "‖Δ‖", "Frobenius norm of the change", |l| Some(l.norm)),
    ("spectral_norm", "σ₁(Δ)", "largest singular value of the change", |l| Some(l.spectral_norm)),
    ("error_before", "‖R‖", "mean residual that stood before the layer", |l| l.error_before),
    ("fraction", "fraction", "the layer's part of the residual that stood", |l| Some(l.fraction)),
];

/// One for each stage that yields updates.
pub fn all(found: &Found<'_>) -> Vec<Layers> {
    let groups = found.by_stage(found.of_kind(UpdateKind::NAME).map(|(at, _)| at));
    let one = |(stage, members): (&str, Vec<usize>)| {
        let metric = |&(name, label, doc, _): &Shown| Metric {
            name: name.to_owned(),
            label: label.to_owned(),
            doc: doc.to_owned(),
            percent: name == "remaining",
            better: None,
        };
        // A sequence tells of its last round only.
        let last = members.iter().any(|&at| found.run.stages[at].uses == Sequence::NAME);
        Layers {
            stage: if last { format!("{stage}, last round") } else { stage.to_owned() },
            metrics: SHOWN.iter().map(metric).collect(),
            repeated: repeated(found, &members),
            rows: folded(found, &members),
        }
    };
    groups.into_iter().map(one).filter(|layers| !layers.rows.is_empty()).collect()
}

/// The axes of repetition that these instances have.
fn repeated(found: &Found<'_>, members: &[usize]) -> Vec<String> {
    let has =
        |axis: &&String| members.iter().any(|&at| found.run.stages[at].cell.iter().any(|(name, _)| name == *axis));
    found.run.replicates.iter().filter(has).cloned().collect()
}

/// The rows of these instances; those that differ along axes of repetition alone are one.
fn folded(found: &Found<'_>, members: &[usize]) -> Vec<Row> {
    let mut all: Vec<Row> = Vec::new();
    for mut row in members.iter().flat_map(|&at| rows(found, at)) {
        row.cell.retain(|(axis, _)| !found.run.replicates.contains(axis));
        let same = |known: &&mut Row| known.cell == row.cell && known.layer == row.layer && known.module == row.module;
        let Some(known) = all.iter_mut().find(same) else {
            all.push(row);
            continue;
        };
        let (before, more) = (known.batches as f64, row.batches as f64);
        for (known, new) in known.values.iter_mut().zip(&row.values) {
            // What one of the two does not tell is not a number.
            known.mean = (before * known.mean + more * new.mean) / (before + more);
            (known.min, known.max) = (known.min.min(new.min), known.max.max(new.max));
        }
        known.batches += row.batches;
    }
    all
}

/// Which weight of a layer.
fn module(weight: WeightId) -> String {
    let name = format!("{}-projection", weight.module.name());
    weight.expert.map_or(name.clone(), |expert| format!("{name}, {}", expert.words()))
}

fn rows(found: &Found<'_>, at: usize) -> Vec<Row> {
    let read = |manifest: &palinode_engine::Manifest| found.read::<Vec<BatchFacts>>(at, &manifest.output, BATCHES);
    let batches = found.manifests[at].as_ref().and_then(read).unwrap_or_default();
    let mut layers: Vec<WeightId> = batches.iter().flat_map(|batch| &batch.layers).map(|facts| facts.weight).collect();
    // A bias is no layer of its own.
    layers.retain(|weight| weight.module != MlpModule::Bias);
    layers.sort_unstable();
    layers.dedup();
    let row = |weight: WeightId| {
        let facts: Vec<&LayerFacts> =
            batches.iter().flat_map(|batch| &batch.layers).filter(|facts| facts.weight == weight).collect();
        let spread = |(_, _, _, value): &Shown| {
            // Not a number where no batch tells it: the report leaves such a field empty.
            let values = || facts.iter().filter_map(|facts| value(facts));
            Spread {
                mean: values().sum::<f64>() / values().count() as f64,
                min: values().fold(f64::INFINITY, f64::min),
                max: values().fold(f64::NEG_INFINITY, f64::max),
            }
        };
        Row {
            cell: found.cell(at),
            layer: weight.layer,
            module: module(weight),
            batches: facts.len(),
            values: SHOWN.iter().map(spread).collect(),
        }
    };
    layers.into_iter().map(row).collect()
}
