//! What makes an edit doubtful, in words with the figures.
//!
//! Scores are means, and a mean hides the edit that did nothing. Three things make an edit worth a second look: it did not take, it took by
//! changing a weight beyond recognition, or it moved what it should have left alone. Each is said where the scores are.

use std::collections::BTreeMap;

use palinode_data::{EditRequest, superseded};
use palinode_engine::Error;
use palinode_engine::bounds::{NonNegative, Positive};
use palinode_eval::{Answer, Comparison, Group, METRICS, RecordScores, Summary};
use palinode_model::{Decoder, MlpModule, WeightId, read};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::update::Batch;
use crate::errors::StageFailure;
use crate::judge::evaluate::samples::Part;

/// Records that are named, at most: a list of all would hide the figure.
const NAMED: usize = 5;

/// When an edit is called doubtful.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Doubt {
    /// The share of edits that may fail to take. An edit takes if the new target becomes more likely than the true one or, where
    /// there is none, if it becomes the most probable text.
    untaken: NonNegative,
    /// How many times its own norm a weight may change.
    relative_norm: Positive,
    /// The share of prompts about other subjects that may lose their answer.
    moved: NonNegative,
}

impl Default for Doubt {
    fn default() -> Self {
        const { Self { untaken: NonNegative::new(0.0), relative_norm: Positive::new(3.0), moved: NonNegative::new(0.1) } }
    }
}

impl Doubt {
    /// Whether nothing was said of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is doubtful of edits whose prompts were scored before and after, of which `failed` did not take; nothing where all is well.
    pub fn findings(
        &self,
        failed: &[&str],
        (before, after): (&[RecordScores], &[RecordScores]),
        norms: &BTreeMap<WeightId, f64>,
    ) -> Vec<String> {
        let mut findings = Vec::new();
        if failed.len() as f64 > self.untaken.get() * after.len() as f64 {
            let edits = match after.len() {
                1 => "the edit".to_owned(),
                all => format!("{} of {all} edits", failed.len()),
            };
            let named = named(failed);
            findings.push(format!("{edits} did not take, and the model still prefers another answer: {named}"));
        }
        for Large { weight, norm, others } in large(norms, self.relative_norm.get()) {
            let others = match others {
                0 => String::new(),
                1 => "; so it is with another expert of the layer".to_owned(),
                others => format!("; so it is with {others} other experts of the layer"),
            };
            findings.push(format!(
                "{}: the edit changed the weight by {norm:.1} times its norm, so that little of the weight is left{others}",
                weight.words()
            ));
        }
        let (moved, had) = moved(before, after);
        if moved as f64 > self.moved.get() * had as f64 {
            findings.push(format!(
                "{moved} of {had} prompts about other subjects lost their answer ({:.1}\u{a0}%)",
                100.0 * moved as f64 / had as f64
            ));
        }
        findings
    }
}

/// The edits that did not take, by the names of their requests. Superseded ones are none of them: see [`superseded_in`].
pub fn untaken<'a>(requests: &'a [EditRequest], after: &[RecordScores], superseded: &[usize]) -> Vec<&'a str> {
    let scored = after.iter().zip(requests).enumerate();
    let failed = scored.filter(|(i, (record, _))| !superseded.contains(i) && !record.rewrite.iter().all(took));
    failed.map(|(_, (_, request))| request.id.as_str()).collect()
}

/// The edits, by index, that a later edit of the same model takes back. Batches are edits of models of their own.
pub fn superseded_in(parts: &[Part<'_>], requests: &[EditRequest]) -> Vec<usize> {
    let of_part = |(_, range): &Part<'_>| {
        let by = superseded(&requests[range.clone()]);
        let gone = by.into_iter().enumerate().filter(|(_, by)| by.is_some());
        gone.map(|(i, _)| range.start + i).collect::<Vec<_>>()
    };
    parts.iter().flat_map(of_part).collect()
}

/// The others' scores.
pub fn without(scores: &[RecordScores], gone: &[usize]) -> Vec<RecordScores> {
    scores.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, record)| record.clone()).collect()
}

/// What superseded edits mean for the scores, in words.
pub fn superseded_words(gone: &[usize], requests: &[EditRequest], current: &Summary, groups: &[Group]) -> String {
    let names: Vec<&str> = gone.iter().map(|&i| requests[i].id.as_str()).collect();
    let first = METRICS.iter().filter(|metric| groups.contains(&metric.group)).find_map(|metric| {
        let value = current.get(metric.name)?;
        Some(format!("; without them {} is {:.1}\u{a0}%", metric.label, 100.0 * value))
    });
    format!(
        "{} of {} edits {} superseded: a later edit says something else of the same fact ({}){}",
        gone.len(),
        requests.len(),
        if gone.len() == 1 { "is" } else { "are" },
        named(&names),
        first.unwrap_or_default()
    )
}

fn took(compared: &Comparison) -> bool {
    match &compared.old {
        Some(old) => compared.new.nll < old.nll,
        None => compared.new.correct(),
    }
}

/// Prompts about other subjects that kept their answer before the edit and not after it, and how many had one before.
fn moved(before: &[RecordScores], after: &[RecordScores]) -> (usize, usize) {
    let kept = |compared: &Comparison| compared.old.as_ref().is_some_and(|old| old.nll < compared.new.nll);
    let (mut moved, mut had) = (0, 0);
    for (before, after) in before.iter().zip(after) {
        for (was, is) in before.neighborhood.iter().zip(&after.neighborhood).filter(|(was, _)| kept(was)) {
            had += 1;
            moved += usize::from(!kept(is));
            debug_assert_eq!(was.prompt, is.prompt, "both are scores of the same prompt");
        }
        let answers = |record: &RecordScores| -> Vec<Vec<u32>> {
            let said = |answer: &Answer| answer.score.said.clone();
            record.locality.values().flatten().map(said).collect()
        };
        let (was, is) = (answers(before), answers(after));
        had += was.len();
        moved += was.iter().zip(&is).filter(|(was, is)| was != is).count();
    }
    (moved, had)
}

fn named(records: &[&str]) -> String {
    let mut text = if records.len() == 1 { "record ".to_owned() } else { "records ".to_owned() };
    text.push_str(&records[..records.len().min(NAMED)].join(", "));
    if records.len() > NAMED {
        text.push_str(", …");
    }
    text
}

/// A weight that was changed too much.
struct Large {
    weight: WeightId,
    norm: f64,
    /// Other experts of its layer of which the same is true, by less.
    others: usize,
}

/// The weights whose relative norm is above a limit; of the experts of a layer the one that was changed most.
fn large(norms: &BTreeMap<WeightId, f64>, limit: f64) -> Vec<Large> {
    let mut found: Vec<Large> = Vec::new();
    for (&weight, &norm) in norms.iter().filter(|(_, norm)| **norm > limit) {
        let beside = |known: &&mut Large| {
            let both = (known.weight.expert, weight.expert);
            matches!(both, (Some(_), Some(_)))
                && (known.weight.layer, known.weight.module) == (weight.layer, weight.module)
        };
        match found.iter_mut().find(beside) {
            Some(known) => {
                known.others += 1;
                if norm > known.norm {
                    (known.weight, known.norm) = (weight, norm);
                }
            }
            None => found.push(Large { weight, norm, others: 0 }),
        }
    }
    found
}

/// `‖Δ‖_F / ‖W‖_F` of every weight that some batches change: of each the largest, since every batch is an edit of its own. A bias may be near
/// 0 in a sound model, and has none.
pub fn relative_norms(unedited: &Decoder, edits: &[Batch]) -> Result<BTreeMap<WeightId, f64>, Error> {
    let mut norms: BTreeMap<WeightId, f64> = BTreeMap::new();
    let changes = edits.iter().flat_map(|batch| &batch.updates);
    for (weight, delta) in changes.filter(|(weight, _)| weight.module != MlpModule::Bias) {
        let norm = norms.entry(*weight).or_default();
        *norm = norm.max(delta.frobenius());
    }
    for (weight, norm) in &mut norms {
        let values = unedited.weight(*weight).map_err(StageFailure::stage)?;
        let squares = read::<f32, _, _>((values.clone() * values).sum()).map_err(StageFailure::stage)?;
        *norm /= f64::from(squares[0]).sqrt();
    }
    Ok(norms)
}

#[cfg(test)]
mod tests {
    use palinode_model::ExpertId;

    use super::*;

    /// Of a mixture's layer the expert that was changed most stands for the others.
    #[test]
    fn experts_of_a_layer_are_said_once() {
        let expert = |layer, expert| WeightId::of_expert(layer, ExpertId::Routed(expert));
        let shared = WeightId::of_expert(1, ExpertId::Shared);
        let norms = [
            (WeightId::down(0), 4.0),
            (expert(1, 0), 5.0),
            (expert(1, 2), 7.0),
            (expert(1, 3), 1.0),
            (shared, 3.5),
            (expert(2, 0), 3.5),
        ];
        let said = Doubt::default().findings(&[], (&[], &[]), &norms.into_iter().collect());
        let rest = "times its norm, so that little of the weight is left";
        assert_eq!(
            said,
            [
                format!("layer 0, down-projection: the edit changed the weight by 4.0 {rest}"),
                format!(
                    "layer 1, expert 2, down-projection: the edit changed the weight by 7.0 {rest}; so it is with 2 other experts of the layer"
                ),
                format!("layer 2, expert 0, down-projection: the edit changed the weight by 3.5 {rest}"),
            ]
        );
    }
}
