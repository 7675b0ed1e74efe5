//! Where facts are kept: facts and `prompts.jsonl` of traces.

use std::collections::BTreeMap;

use palinode_engine::Kind as _;
use palinode_eval::TraceKind;
use palinode_report::{Effects, PromptEffects, Traced};
use serde::Deserialize;

use super::found::Found;
use crate::artifacts::trace::{PROMPTS, TraceArtifact, TraceFacts};

/// Prompts that have maps of their own.
const SINGLE: usize = 3;
/// What these show of a prompt.
const MAPS: [TraceKind; 3] = [TraceKind::Hidden, TraceKind::Mlp, TraceKind::Attention];

/// A line of `prompts.jsonl`.
#[derive(Deserialize)]
struct Line {
    tokens: Vec<String>,
    subject_tokens: [usize; 2],
    answer: String,
    p: f64,
    p_noisy: Option<f64>,
    #[serde(default)]
    p_restored: BTreeMap<String, Vec<Vec<f64>>>,
}

/// One for each result that differs from the others.
pub fn all(found: &Found<'_>) -> Vec<Traced> {
    let members = found.distinct(found.of_kind(TraceArtifact::NAME).map(|(at, _)| at));
    members.into_iter().filter_map(|at| one(found, at)).collect()
}

fn one(found: &Found<'_>, at: usize) -> Option<Traced> {
    let artifact = &found.manifests[at].as_ref()?.output;
    let facts: TraceFacts = serde_json::from_value(artifact.meta.clone()).ok()?;
    let trace = facts.trace;
    let lines: Vec<Line> = found.read_lines(at, artifact, PROMPTS).unwrap_or_default();
    let windows = if trace.effects.iter().any(|of| matches!(of.restored, TraceKind::Mlp | TraceKind::Attention)) {
        format!(" Windows are of {} layers.", trace.window)
    } else {
        String::new()
    };
    let times = trace.noise / trace.deviation.max(f64::MIN_POSITIVE);
    Some(Traced {
        instance: found.run.stages[at].instance.clone(),
        prompts: trace.prompts,
        how: format!(
            "Noise of {times:.3} standard deviations of the subjects' embeddings, {} draws.{windows}",
            trace.draws
        )
        .replace(".000", ""),
        clean: trace.clean,
        noisy: trace.noisy,
        effects: trace
            .effects
            .into_iter()
            .map(|of| Effects {
                restored: of.restored.label().to_owned(),
                role: of.role.label().to_owned(),
                prompts: of.prompts,
                effect: of.effect,
                interval: of.interval,
            })
            .collect(),
        single: lines.into_iter().filter(|line| line.p_noisy.is_some()).take(SINGLE).map(single).collect(),
    })
}

fn single(mut line: Line) -> PromptEffects {
    let [start, end] = line.subject_tokens;
    let mark = |(at, token): (usize, &String)| {
        let token = token.trim();
        if (start..end).contains(&at) { format!("{token}*") } else { token.to_owned() }
    };
    PromptEffects {
        tokens: line.tokens.iter().enumerate().map(mark).collect(),
        answer: line.answer,
        clean: line.p,
        noisy: line.p_noisy.unwrap_or(f64::NAN),
        maps: MAPS
            .iter()
            .filter_map(|kind| Some((kind.label().to_owned(), line.p_restored.remove(kind.name())?)))
            .collect(),
    }
}
