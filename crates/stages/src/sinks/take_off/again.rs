//! An update over several layers solved again without some of its edits: from the first layer on, with keys and residuals measured anew.
//!
//! Of a sequence, this is its last round: it is solved on the model that the rounds before left. Where earlier rounds are preserved
//! (`history`), their keys are measured again on the model that each of them met, since they are not kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palinode_data::EditRequest;
use palinode_edit::{Edit, Preservations, apply, keys_of, pieces, with_edits};
use palinode_engine::{Accept, Artifact, Error, Hint, Store};
use palinode_math::{Delta, History, LowRank, Plan, Preservation};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text, WeightId, select_device};
use serde::Deserialize as _;

use super::refused::Refused;
use crate::artifacts::chat::in_chat;
use crate::artifacts::factors::MomentsOrFactors;
use crate::artifacts::model::{CHAT_TEMPLATE, Loaded, SETTINGS, TOKENIZER, folder_name, read_config};
use crate::artifacts::moments::file_name;
use crate::artifacts::solved::Solved;
use crate::edit::batch_limits::BatchTokens;
use crate::edit::solve::SolveParams;
use crate::edit::targets::TargetsParams;
use crate::errors::StageFailure;
use crate::machine::devices::chosen_device;
use crate::sinks::export::ledger::Entry;

/// Searches at the same time, where a plan's later layers have targets of their own.
const SEARCHES: usize = 8;

/// What a solve needs that the ledger does not have.
pub struct Again<'a> {
    /// A model's folder.
    pub model: Option<&'a Path>,
    /// Changes that make of it the model that the update was made for.
    pub changes: Vec<(WeightId, Delta)>,
    /// The folder of the store that may have the second moments.
    pub store: &'a Path,
}

/// A round of a sequence.
struct Round {
    /// Its edits, by place.
    edits: Range<usize>,
    /// What it changed.
    changes: Vec<(WeightId, Delta)>,
}

/// The rounds before the last one, which end before the edit `last`.
fn earlier(entry: &Entry, last: usize) -> Result<Vec<Round>, Error> {
    let wrong = |what: &str| Error::input(format!("the ledger does not read: {what}"));
    let (mut start, mut ranks, mut rounds) = (0, vec![0; entry.changes.len()], Vec::new());
    for round in entry.facts.rounds.iter().filter(|round| round.edits <= last) {
        let mut changes = Vec::with_capacity(entry.changes.len());
        for ((weight, delta), before) in entry.changes.iter().zip(&mut ranks) {
            let rank = *round.rank.get(&weight.to_string()).ok_or_else(|| wrong("a round without its rank"))?;
            let Delta::LowRank(low) = delta else { return Err(wrong("a round that is no product of factors")) };
            if rank < *before || rank > low.left.ncols() {
                return Err(wrong("rounds that overlap"));
            }
            changes.push((*weight, Delta::LowRank(low.first(rank).after(*before))));
            *before = rank;
        }
        if round.edits < start {
            return Err(wrong("rounds that overlap"));
        }
        rounds.push(Round { edits: start..round.edits, changes });
        start = round.edits;
    }
    if start == last { Ok(rounds) } else { Err(wrong("rounds that do not end where the last one begins")) }
}

/// The sum of rounds, as one change of each weight.
fn sum(rounds: &[Round]) -> Vec<(WeightId, LowRank)> {
    let mut sums: Vec<(WeightId, LowRank)> = Vec::new();
    for (weight, delta) in rounds.iter().flat_map(|round| &round.changes) {
        let Delta::LowRank(low) = delta else { continue };
        match sums.iter_mut().find(|(of, _)| of == weight) {
            Some((_, sum)) => *sum = sum.beside(low),
            None => sums.push((*weight, low.clone())),
        }
    }
    sums
}

/// The model after some rounds.
fn after(model: &Decoder, rounds: &[Round]) -> Result<Decoder, Error> {
    let sums: Vec<(WeightId, Delta)> = sum(rounds).into_iter().map(|(weight, low)| (weight, low.into())).collect();
    with_edits(model, sums.iter().map(|(weight, delta)| (*weight, delta))).map_err(StageFailure::stage)
}

/// The changes, and what their solve left. The edits before `last` are those of earlier rounds, which stay as they are.
pub fn solved_again(
    entry: &Entry,
    solved: &Solved,
    (gone, last): (&[usize], usize),
    (params, plan): (&SolveParams, &Plan),
    again: &Again<'_>,
) -> Result<(Vec<(WeightId, Delta)>, Solved), Error> {
    let refused = Refused { entry, gone };
    let Some(from) = entry.facts.from.as_ref().filter(|_| !solved.targets.is_empty()) else {
        return Err(refused.lacks("the ledger does not have its targets", |run| Hint::Say(run.into())));
    };
    let Some(folder) = again.model else {
        return Err(refused.lacks("there is no model to measure on", |run| Hint::NameBase { run }));
    };
    let found_with = TargetsParams::deserialize(&from.targets)
        .map_err(|error| Error::input(format!("the ledger does not read: parameters of targets: {error}")))?;
    let rounds = earlier(entry, last)?;
    let config = read_config(&folder.join("config.json")).map_err(StageFailure::stage)?;
    let mut metrics = metrics(&refused, params, plan, from.moments.as_ref(), again, &config)?;
    let dtype = serde_json::from_value(entry.facts.provenance.model["dtype"].clone()).unwrap_or_default();
    let names = Checkpoint::files(folder).map_err(StageFailure::stage)?;
    let paths: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
    let checkpoint = Arc::new(Checkpoint::open(&paths).map_err(StageFailure::stage)?);
    let device = select_device(chosen_device()).map_err(StageFailure::stage)?;
    let decoder = Decoder::load_as(&checkpoint, &config, &device, dtype).map_err(StageFailure::stage)?;
    let decoder = with_edits(&decoder, again.changes.iter().map(|(weight, delta)| (*weight, delta)));
    let decoder = decoder.map_err(StageFailure::stage)?;
    let loaded = Arc::new(Loaded { decoder, text: text(folder, config.vocab)? });
    let model = in_chat(loaded, from.chat.as_ref())?;

    let edit = Edit {
        objective: params.objective(),
        plan,
        templates: &from.templates,
        targets: found_with.settings(),
        parallel_requests: SEARCHES,
        tokens: BatchTokens::KEYS,
    };
    if let Some(weight) = params.history().filter(|_| !rounds.is_empty()) {
        metrics = preserving(metrics, weight, entry, &rounds, (&model, &found_with, &edit))?;
    }
    let all: Vec<EditRequest> = entry.facts.edits[last..].iter().map(|edit| edit.request.clone()).collect();
    let stays: Vec<usize> = (last..entry.facts.edits.len()).filter(|at| !gone.contains(at)).collect();
    let (asked, values) = asked(all, &model.text, solved, |at| !gone.contains(&(last + at)), &found_with)?;
    let decoder = after(&model.decoder, &rounds)?;
    let applied = apply(&decoder, &model.text, &asked, &values, &metrics, &edit).map_err(StageFailure::stage)?;
    let staying: Vec<EditRequest> = stays.iter().map(|&at| entry.facts.edits[at].request.clone()).collect();
    let chains = chains(&model.text, &staying, &found_with)?;
    let mut left = Solved::of(&applied, chains.as_deref(), 0, solved.columns.merged, &values);
    // Places among all edits: the caller tells those among what is left.
    left.columns.requests.iter_mut().flatten().for_each(|at| *at = stays[*at]);
    let before = sum(&rounds);
    let with_earlier = |weight: WeightId, delta: Delta| match (before.iter().find(|(of, _)| *of == weight), delta) {
        (Some((_, sum)), Delta::LowRank(own)) => (weight, Delta::LowRank(sum.beside(&own))),
        (_, delta) => (weight, delta),
    };
    Ok((applied.layers.into_iter().map(|edit| with_earlier(edit.weight, edit.delta)).collect(), left))
}

/// The metrics that also preserve what earlier rounds wrote.
fn preserving(
    metrics: Preservations,
    weight: f64,
    entry: &Entry,
    rounds: &[Round],
    (model, found_with, edit): (&Loaded, &TargetsParams, &Edit<'_>),
) -> Result<Preservations, Error> {
    let of = |(id, base)| Ok((id, History::new(base, weight).map_err(StageFailure::stage)?));
    let mut histories = metrics.into_iter().map(of).collect::<Result<BTreeMap<WeightId, History>, Error>>()?;
    for (at, round) in rounds.iter().enumerate() {
        let decoder = after(&model.decoder, &rounds[..at])?;
        let requests: Vec<EditRequest> =
            entry.facts.edits[round.edits.clone()].iter().map(|edit| edit.request.clone()).collect();
        let pieces = chains(&model.text, &requests, found_with)?;
        let requests = pieces.map_or(requests, |chains| chains.into_iter().flatten().collect());
        let keys = keys_of(&decoder, &model.text, &requests, &round.changes, edit).map_err(StageFailure::stage)?;
        for (id, keys) in keys {
            if let Some(history) = histories.get_mut(&id) {
                history.remember(keys.as_ref()).map_err(StageFailure::stage)?;
            }
        }
    }
    Ok(histories.into_iter().map(|(id, history)| (id, Arc::new(history) as Arc<dyn Preservation>)).collect())
}

type Chains = Option<Vec<Vec<EditRequest>>>;

/// The pieces of each answer, where answers are cut.
fn chains(text: &Text, requests: &[EditRequest], with: &TargetsParams) -> Result<Chains, Error> {
    match with.answer_tokens() {
        Some(tokens) => pieces(text, requests, tokens).map(Some).map_err(StageFailure::stage),
        None => Ok(None),
    }
}

/// Of all requests that were solved, those that stay, or the pieces of their answers, and the value of each.
fn asked(
    all: Vec<EditRequest>,
    text: &Text,
    solved: &Solved,
    stays: impl Fn(usize) -> bool,
    with: &TargetsParams,
) -> Result<(Vec<EditRequest>, Vec<f32>), Error> {
    let chains = chains(text, &all, with)?.unwrap_or_else(|| all.into_iter().map(|request| vec![request]).collect());
    let count: usize = chains.iter().map(Vec::len).sum();
    let d = solved.targets.len() / count.max(1);
    let (mut asked, mut values, mut at) = (Vec::new(), Vec::new(), 0);
    for (place, chain) in chains.into_iter().enumerate() {
        let own = at * d..(at + chain.len()) * d;
        at += chain.len();
        if stays(place) {
            values.extend_from_slice(&solved.targets[own]);
            asked.extend(chain);
        }
    }
    Ok((asked, values))
}

/// The metric of every layer of the plan, from the second moments that the solve had.
fn metrics(
    refused: &Refused<'_>,
    params: &SolveParams,
    plan: &Plan,
    moments: Option<&Artifact>,
    again: &Again<'_>,
    config: &DecoderConfig,
) -> Result<Preservations, Error> {
    let f = |step: &palinode_math::Step| config.key_size(step.layer);
    if !params.needs_moments() {
        let ridge =
            |step: &palinode_math::Step| Ok((WeightId::down(step.layer), params.metric(step.layer, f(step), None)?));
        return plan.steps.iter().map(ridge).collect();
    }
    let Some(moments) = moments else {
        return Err(refused.lacks("the ledger does not say of which second moments", |run| Hint::Say(run.into())));
    };
    let facts = MomentsOrFactors::facts(&moments.kind, &moments.meta)
        .map_err(|error| Error::input(format!("the ledger does not read: second moments: {error}")))?;
    let missing = |layer: usize| {
        let store = again.store.display();
        refused.lacks(&format!("the second moments of layer {layer} are not in the store {store}"), |run| {
            Hint::NameStore { run }
        })
    };
    let store = Store::beside(again.store).ok();
    let one = |step: &palinode_math::Step| {
        let file = moments.files.get(&file_name(step.layer)).ok_or_else(|| missing(step.layer))?;
        let path = store.as_ref().map_or(Ok(None), |store| store.find(file))?.ok_or_else(|| missing(step.layer))?;
        let metric = params.metric(step.layer, f(step), Some((&facts, path)))?;
        Ok((WeightId::down(step.layer), metric))
    };
    plan.steps.iter().map(one).collect()
}

/// The tokenizer of a model's folder.
fn text(folder: &Path, vocab: usize) -> Result<Text, Error> {
    let mut text = Text::open(&folder.join(TOKENIZER)).map_err(StageFailure::stage)?;
    let there = |name| folder_name(name).map(|name| folder.join(name)).filter(|path| path.is_file());
    if let Some(settings) = there(SETTINGS) {
        text = text.with_settings(&settings).map_err(StageFailure::stage)?;
    }
    if let Some(template) = there(CHAT_TEMPLATE) {
        text = text.with_template(&template).map_err(StageFailure::stage)?;
    }
    Ok(text.within(vocab))
}
