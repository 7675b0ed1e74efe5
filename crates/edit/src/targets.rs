//! Targets: the value that a fact token should carry, found by gradient descent on an additive vector δ.
//!
//! ```text
//! loss(δ) = mean over rewrite prompts of −log p(target)/T  +  kl_factor · KL(p_δ ‖ p₀)  +  weight_decay · ‖δ‖/‖h₀‖²
//! ```
//!
//! (MEMIT, arXiv 2210.07229, and ROME, arXiv 2202.05262; `z = h₀ + δ`.) Requests are independent: many are optimised at
//! once, each with its own Adam state, early stop and clamp; finished ones leave the batch.
//!
//! The loop is the published one to the letter, where its order shows in results. The loss is evaluated first and the stop is decided on
//! it: the last evaluation makes no update, so that `steps` evaluations make `steps − 1` updates, and δ is the one whose loss was recorded.
//! The clamp projects δ onto the ball after the update, and Adam's moments do not see it. `‖δ‖` has no gradient at 0, where every search
//! begins; the published code starts there too, and its autodiff takes 0, so the gradient of the decay is written by hand.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use palinode_data::{ContextTemplates, EditRequest};
use palinode_model::{Activations, Decoder, Run, Text, cat, is_cpu, read, worker_pool};
use serde::{Deserialize, Serialize};

use crate::losses::{Back, Losses, Preparation, Prepared, TargetLosses};
use crate::prompts::{FactToken, RewritePrompts, contexts, prompt_at, rewrite_prompts_at};
use crate::{EditError, TargetSite};

/// How targets are optimised; names as in the published hyperparameter files where they have one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetSettings {
    /// Where δ is added. At `mlp_output` and `block_output` it has the same effect; the site decides what `h₀` is.
    pub site: TargetSite,
    /// The layer of the site.
    pub layer: usize,
    /// The token that δ is added at.
    pub fact_token: FactToken,
    /// Evaluations of the loss (`v_num_grad_steps`); the last one makes no update.
    pub steps: usize,
    /// Adam's step size (`v_lr`).
    pub learning_rate: f64,
    /// `kl_factor`.
    pub kl_factor: f64,
    /// `v_weight_decay`.
    pub weight_decay: f64,
    /// `‖δ‖` is kept at or below this times `‖h₀‖` (`clamp_norm_factor`).
    pub clamp: f64,
    /// A request stops where its loss falls below this.
    pub stop_loss: f64,
    /// What else is asked of the search.
    pub rules: TargetRules,
}

/// What later methods changed of the search, each on its own; none of it by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TargetRules {
    /// When a request stops, beside its loss.
    pub stop: StopRule,
    /// The loss is read after this layer's block (`v_loss_layer`), by the final norm and the head; the last layer where it is left out.
    pub loss_layer: Option<usize>,
    /// Requests with one subject share a target (MEMIT-Merge).
    pub merge: bool,
}

/// When a search stops, beside a loss that is small enough.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum StopRule {
    /// Never.
    #[default]
    Loss,
    /// After so many evaluations in which every target token was the most probable one in all contexts but the first (ENCORE). They need
    /// not be consecutive. Where there is only one context, it counts.
    Argmax(usize),
    /// Where every target token is the most probable one in all contexts, and `kl_factor · KL` is at most 0.01; as long as they are, the
    /// likelihood weighs a tenth from the next evaluation on (PMET).
    Divergence,
}

/// The likelihood's weight under [`StopRule::Divergence`] once all tokens are said.
const SAID_WEIGHT: f32 = 0.1;
/// `kl_factor · KL` at most where [`StopRule::Divergence`] stops.
const SMALL_DIVERGENCE: f32 = 0.01;

/// One evaluation of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The sum of the three terms.
    pub loss: f32,
    /// Mean negative log-likelihood per target token.
    pub nll: f32,
    /// `kl_factor · KL`.
    pub kl: f32,
    /// `weight_decay · ‖δ‖/‖h₀‖²`.
    pub decay: f32,
    /// `‖δ‖` at the evaluation.
    pub norm: f32,
}

/// A request's target.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// `h₀`, `[d]`.
    pub initial: Vec<f32>,
    /// δ, `[d]`, as of the last recorded loss.
    pub delta: Vec<f32>,
    /// Every evaluation.
    pub trace: Vec<StepRecord>,
}

impl Target {
    /// Whether the search was of no use: it made steps, and its loss is not below the one that it began with.
    pub fn is_lost(trace: &[StepRecord]) -> bool {
        match trace {
            [first, .., last] => last.loss.is_nan() || last.loss >= first.loss,
            _ => false,
        }
    }

    /// `z = h₀ + δ`, `[d]`.
    pub fn value(&self) -> Vec<f32> {
        self.initial.iter().zip(&self.delta).map(|(h, d)| h + d).collect()
    }
}

/// What is told of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The evaluation's number, from 0.
    pub number: usize,
    /// Requests that it finished.
    pub finished: usize,
    /// Mean loss of those that took part.
    pub loss: f32,
}

/// Requests whose targets make up a unit of work; no batch crosses it.
pub const TARGETS_IN_UNIT: usize = 64;

/// Neighbours on the CPU that are sorted by length among themselves. More of them would leave less padding, but the first requests of a
/// data set would then wait for others before one of them is found and kept.
const SORTED: usize = 16;

/// Requests in a batch on the CPU: more of them make its products no faster.
const CPU_BATCH: usize = 8;

/// Requests in a batch on the CPU that are enough to keep a core busy: eight requests or more make two batches.
const CPU_LEAST: usize = 4;

/// The search for the targets of one unit of requests.
///
/// Requests are independent, but rows that are computed together are padded to the same length and multiplied in the same product, which
/// shows in the last digits of each. So what is computed together is decided by the requests alone: the number of cores and the memory
/// decide how many batches run side by side, and that changes no bit. Two things make batches smaller than that: a
/// `parallel_requests` that is less than a batch, and a device that has no memory for a batch.
#[derive(Debug)]
pub struct TargetSearch<'a> {
    decoder: Decoder,
    requests: &'a [EditRequest],
    settings: &'a TargetSettings,
    prompts: Vec<RewritePrompts>,
    /// The requests of each search.
    searches: Vec<Vec<usize>>,
    batches: Vec<Vec<usize>>,
    side_by_side: usize,
}

impl<'a> TargetSearch<'a> {
    /// Reads the prompts of a unit, at most [`TARGETS_IN_UNIT`] requests, and cuts it into batches. No more than `parallel_requests`
    /// are searched for at the same time. Streamed blocks above the layer are held in memory until the search is over, those that have room
    /// and where the model may: each step goes through them, forward and back.
    ///
    /// # Errors
    /// [`EditError::Request`] for prompts that cannot be used; [`palinode_model::ModelError::Layer`].
    pub fn new(
        decoder: &Decoder,
        text: &Text,
        requests: &'a [EditRequest],
        templates: &ContextTemplates,
        settings: &'a TargetSettings,
        parallel_requests: usize,
    ) -> Result<Self, EditError> {
        decoder.config().check_layer(settings.layer)?;
        let of = |request: &EditRequest| {
            let openings: Vec<&str> = contexts(request, templates).into_iter().map(|(context, _)| context).collect();
            rewrite_prompts_at(text, decoder.config(), request, &openings, settings.fact_token)
        };
        let prompts = requests.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        let length = |&i: &usize| prompts[i].rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let searches = searches(requests, settings.rules.merge);
        let lengths: Vec<usize> = searches.iter().map(|of| of.iter().map(length).max().unwrap_or(0)).collect();
        let device = decoder.device();
        let most = target_batch(is_cpu(&device), parallel_requests);
        let batches = batches(&lengths, is_cpu(&device), most);
        // Streamed blocks are read once for all batches that go side by side, whatever the number of cores.
        let workers = if decoder.streams() { batches.len() } else { worker_pool::count(&device, batches.len(), 1) };
        let side_by_side = workers.min(parallel_requests / most).max(1);
        let decoder = match settings.rules.loss_layer {
            Some(last) => decoder.up_to(last)?,
            None => decoder.clone(),
        };
        // Every step goes through the layers above again.
        let decoder = decoder.hold_fitting(settings.layer + 1..decoder.config().layers)?;
        Ok(Self { decoder, requests, settings, prompts, searches, batches, side_by_side })
    }

    /// The same search with vectors in place that earlier ones found: for each request the requests of those, whose prompts its own begin
    /// with, and what was found for them.
    ///
    /// # Errors
    /// [`EditError::Request`] where a prompt does not begin with the earlier one.
    pub fn after(
        mut self,
        text: &Text,
        templates: &ContextTemplates,
        earlier: &[Vec<(&EditRequest, &[f32])>],
    ) -> Result<Self, EditError> {
        let at = self.settings.fact_token;
        for ((prompts, request), earlier) in self.prompts.iter_mut().zip(self.requests).zip(earlier) {
            for (before, vector) in earlier {
                for (row, (template, _)) in contexts(request, templates).into_iter().enumerate() {
                    let begin = prompt_at(text, self.decoder.config(), before, template, at)?;
                    if !prompts.rows[row].ids.starts_with(&begin.ids) {
                        let message = "the tokenizer joins pieces of its answer".to_owned();
                        return Err(EditError::Request { id: request.id.clone(), message });
                    }
                    prompts.earlier.push((row, begin.fact, vector.to_vec()));
                }
            }
        }
        Ok(self)
    }

    /// The targets of all requests, with as many batches at the same time as the machine has cores for. `watch` hears of every step.
    ///
    /// # Errors
    /// As [`TargetSearch::find`].
    pub fn find_all(&self, watch: impl Fn(Step) + Sync) -> Result<Vec<Target>, EditError> {
        let mut found: Vec<Option<Target>> = vec![None; self.requests.len()];
        for some in self.batches.chunks(self.side_by_side) {
            let made = self.find(some, &watch)?;
            for (&i, target) in some.iter().flatten().zip(made.into_iter().flatten()) {
                for &request in &self.searches[i] {
                    found[request] = Some(target.clone());
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// The requests of each search, by index: one, unless requests are merged.
    pub fn searches(&self) -> &[Vec<usize>] {
        &self.searches
    }

    /// The batches, as indices of searches.
    pub fn batches(&self) -> &[Vec<usize>] {
        &self.batches
    }

    /// Bytes that were read so far of the files of a model whose blocks are streamed.
    pub fn streamed_bytes(&self) -> Option<u64> {
        self.decoder.streaming().map(|streaming| streaming.bytes)
    }

    /// How many batches this machine computes at the same time.
    pub fn side_by_side(&self) -> usize {
        self.side_by_side
    }

    /// Finds the targets of some batches of searches at the same time, each in a thread of its own. `watch` hears of every step, from any of them.
    ///
    /// # Errors
    /// [`EditError::Diverged`]; what the device failed at.
    pub fn find(&self, batches: &[Vec<usize>], watch: impl Fn(Step) + Sync) -> Result<Vec<Vec<Target>>, EditError> {
        let most = batches.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let of = |some: &[usize]| Together {
            names: some.iter().map(|&i| self.requests[self.searches[i][0]].id.as_str()).collect(),
            prompts: some.iter().map(|&i| self.searches[i].iter().map(|&r| &self.prompts[r]).collect()).collect(),
        };
        self.decoder.within(most, |size| {
            if self.decoder.streams() {
                let parts: Vec<Together<'_>> = batches.iter().flat_map(|batch| batch.chunks(size)).map(of).collect();
                let found = descend(&self.decoder, &parts, self.settings, worker_pool::MOST, &watch);
                self.decoder.rest();
                let mut found = found?.into_iter().flatten();
                return Ok(batches.iter().map(|batch| found.by_ref().take(batch.len()).collect()).collect());
            }
            let found = worker_pool::map(batches.iter().collect(), |batch| {
                let alone = |some| descend(&self.decoder, &[of(some)], self.settings, 1, &watch);
                let parts = batch.chunks(size).map(alone).collect::<Result<Vec<_>, EditError>>()?;
                Ok(parts.into_iter().flatten().flatten().collect())
            });
            found.into_iter().collect()
        })
    }
}

/// The largest batch of requests: it depends on the kind of device, and on `parallel_requests` where that is smaller.
pub fn target_batch(on_cpu: bool, parallel_requests: usize) -> usize {
    parallel_requests.clamp(1, if on_cpu { CPU_BATCH } else { TARGETS_IN_UNIT })
}

/// The requests of each search, by index, in the order of the first of each.
pub fn searches(requests: &[EditRequest], merge: bool) -> Vec<Vec<usize>> {
    if !merge {
        return (0..requests.len()).map(|i| vec![i]).collect();
    }
    let mut of: Vec<Vec<usize>> = Vec::new();
    let mut known = BTreeMap::new();
    for (i, request) in requests.iter().enumerate() {
        let at = *known.entry(request.subject.trim()).or_insert_with(|| {
            of.push(Vec::new());
            of.len() - 1
        });
        of[at].push(i);
    }
    of
}

/// Cuts requests into batches of at most `most`, those of similar length together: what is shorter is padded. A GPU is best given
/// everything at once; on the CPU a batch is a core's work.
fn batches(lengths: &[usize], on_cpu: bool, most: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..lengths.len()).collect();
    let mut batches = Vec::new();
    for some in all.chunks(if on_cpu { SORTED } else { TARGETS_IN_UNIT }) {
        let mut order = some.to_vec();
        order.sort_by_key(|&i| lengths[i]);
        let count = if on_cpu { order.len().div_ceil(CPU_BATCH).max((order.len() / CPU_LEAST).min(2)) } else { 1 };
        let share = order.len().div_ceil(count.max(1)).min(most);
        batches.extend(order.chunks(share).map(<[usize]>::to_vec));
    }
    batches
}

/// Optimises the targets of requests, unit by unit, as many at the same time as the machine has cores for. `watch` hears of every
/// step, from any thread.
///
/// # Errors
/// As [`TargetSearch::new`] and [`TargetSearch::find`].
pub fn optimise(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    templates: &ContextTemplates,
    settings: &TargetSettings,
    watch: impl Fn(Step) + Sync,
) -> Result<Vec<Target>, EditError> {
    optimise_at_most(decoder, text, requests, templates, settings, TARGETS_IN_UNIT, watch)
}

/// As [`optimise`], no more than `parallel_requests` at the same time.
///
/// # Errors
/// As [`optimise`].
pub fn optimise_at_most(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    templates: &ContextTemplates,
    settings: &TargetSettings,
    parallel_requests: usize,
    watch: impl Fn(Step) + Sync,
) -> Result<Vec<Target>, EditError> {
    decoder.config().check_layer(settings.layer)?;
    let mut targets = Vec::with_capacity(requests.len());
    // Requests that share a target have to be searched for together.
    let unit = if settings.rules.merge { requests.len().max(1) } else { TARGETS_IN_UNIT };
    for unit in requests.chunks(unit) {
        let search = TargetSearch::new(decoder, text, unit, templates, settings, parallel_requests)?;
        targets.extend(search.find_all(&watch)?);
    }
    Ok(targets)
}

/// Requests that are optimised together, by their searches' names and prompts.
struct Together<'a> {
    names: Vec<&'a str>,
    prompts: Vec<Vec<&'a RewritePrompts>>,
}

/// Optimises the targets of batches, which go through the model's blocks side by side: at most `most` at the same time, and each block is
/// asked for once for all of them, there and back. What a batch finds does not depend on the others.
fn descend(
    decoder: &Decoder,
    batches: &[Together<'_>],
    settings: &TargetSettings,
    most: usize,
    watch: &impl Fn(Step),
) -> Result<Vec<Vec<Target>>, EditError> {
    let visits = batches
        .iter()
        .map(|batch| Preparation::new(decoder, &batch.prompts, settings.layer, settings.site))
        .collect::<Result<Vec<_>, EditError>>()?;
    let prepared = decoder.visit_all(visits, decoder.config().layers - 1, most)?;
    let width = decoder.config().hidden * settings.site.vectors();
    let mut descents = prepared
        .into_iter()
        .zip(batches)
        .map(|(prepared, batch)| Ok(Descent::new(prepared?, &batch.names, width, decoder)))
        .collect::<Result<Vec<_>, EditError>>()?;
    loop {
        let mut open: Vec<&mut Descent<'_>> = descents.iter_mut().filter(|descent| !descent.done).collect();
        if open.is_empty() {
            break;
        }
        let entered = open.iter().map(|descent| descent.running.enter(decoder)).collect::<Result<Vec<_>, _>>()?;
        let (deltas, added): (Vec<_>, Vec<_>) = entered.into_iter().map(|[delta, added]| (delta, added)).unzip();
        let suffixes = open.iter().map(|descent| descent.running.losses.suffix());
        let runs = decoder.run_suffixes(suffixes.zip(added).collect(), most)?;
        let mut backs = Vec::with_capacity(open.len());
        for ((descent, delta), (hidden, run)) in open.iter_mut().zip(deltas).zip(runs) {
            backs.push(descent.evaluate(decoder, (delta, &hidden, run), settings, watch)?);
        }
        let (mut kept, mut runs) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
        for (descent, Back { run, delta, slope }) in open.into_iter().zip(backs) {
            if !descent.done {
                kept.push((delta, descent));
                runs.push((run, slope));
            }
        }
        let runs = runs.into_iter().zip(&kept).map(|((run, slope), (_, descent))| {
            let losses = &descent.running.losses;
            (losses.suffix(), run, losses.places(), slope)
        });
        let gradients = decoder.suffixes_back(runs.collect(), most)?;
        for ((delta, descent), at_added) in kept.into_iter().zip(gradients) {
            descent.update(decoder, delta, at_added, settings)?;
        }
    }
    Ok(descents.into_iter().map(|descent| descent.targets).collect())
}

/// A batch on its way down.
struct Descent<'a> {
    names: &'a [&'a str],
    targets: Vec<Target>,
    running: Running,
    /// Evaluations that were made.
    number: usize,
    /// Rows of the last evaluation that go on; none where it finished nobody.
    left: Option<Vec<usize>>,
    done: bool,
}

impl<'a> Descent<'a> {
    /// `width` is the size of a request's vectors together.
    fn new(prepared: Prepared, names: &'a [&'a str], width: usize, decoder: &Decoder) -> Self {
        let d = decoder.config().hidden;
        // What a request's row holds beside its target is dropped.
        let target = |h: &[f32]| Target { initial: h[..d].to_vec(), delta: vec![0.0; d], trace: Vec::new() };
        let targets = prepared.initial.chunks_exact(width).map(target).collect();
        let running = Running::new(prepared.losses, &prepared.initial, width, decoder);
        Self { names, targets, running, number: 0, left: None, done: false }
    }

    /// Takes note of an evaluation, and of the requests that it finishes.
    fn evaluate(
        &mut self,
        decoder: &Decoder,
        run: (Tensor<2>, &Activations, Run),
        settings: &TargetSettings,
        watch: &impl Fn(Step),
    ) -> Result<Back, EditError> {
        let Self { names, targets, running, number, left, done } = self;
        let evaluation = running.evaluate(decoder, run, settings)?;
        let mut finished = Vec::new();
        for (row, request) in running.requests.clone().into_iter().enumerate() {
            let record = evaluation.records[row];
            if !record.loss.is_finite() {
                return Err(EditError::Diverged { id: names[request].to_owned(), steps: *number });
            }
            targets[request].trace.push(record);
            let hits = running.hits(row, settings.rules.stop, &evaluation);
            let last = hits || f64::from(record.loss) < settings.stop_loss || *number + 1 == settings.steps;
            finished.push(last || running.has_said(row, settings.rules.stop, &evaluation));
        }
        let loss = evaluation.records.iter().map(|r| r.loss).sum::<f32>() / evaluation.records.len() as f32;
        let count = finished.iter().filter(|f| **f).count();
        if count > 0 {
            let (d, [_, width]) = (decoder.config().hidden, running.delta.dims());
            let deltas: Vec<f32> = read(running.delta.clone())?;
            for (row, &request) in running.requests.iter().enumerate().filter(|(row, _)| finished[*row]) {
                targets[request].delta.copy_from_slice(&deltas[row * width..][..d]);
            }
        }
        watch(Step { number: *number, finished: count, loss });
        *number += 1;
        *done = count == finished.len();
        *left = (count > 0).then(|| (0..finished.len()).filter(|&row| !finished[row]).collect());
        Ok(evaluation.back)
    }

    /// Goes on with the requests that are left.
    fn update(
        &mut self,
        decoder: &Decoder,
        delta: Tensor<2>,
        at_added: Tensor<2>,
        settings: &TargetSettings,
    ) -> Result<(), EditError> {
        let gradient = self.running.losses.gradient(decoder, delta, at_added)?;
        self.running.update(gradient, settings);
        if let Some(left) = self.left.take() {
            self.running.keep(decoder, &left);
        }
        Ok(())
    }
}

/// The requests that have not stopped yet. Of a site with several vectors, a row holds one behind the other.
struct Running {
    losses: TargetLosses,
    /// Which request each row is.
    requests: Vec<usize>,
    /// `[requests, vectors · d]`.
    delta: Tensor<2>,
    /// Adam's first and second moment, as δ.
    first: Tensor<2>,
    second: Tensor<2>,
    /// Updates made.
    updates: i32,
    /// `‖h₀‖` of each vector, `[requests · vectors, 1]`.
    norms: Tensor<2>,
    /// Evaluations of each request in which all tokens were said.
    said: Vec<usize>,
    /// The likelihood's weight of each request.
    weights: Vec<f32>,
}

struct Evaluation {
    records: Vec<StepRecord>,
    back: Back,
    /// See [`Losses::misses`].
    misses: Option<Vec<[usize; 2]>>,
}

impl Running {
    /// `initial` is `[requests, width]`.
    fn new(losses: TargetLosses, initial: &[f32], width: usize, decoder: &Decoder) -> Self {
        let device = decoder.device();
        let d = decoder.config().hidden;
        let count = initial.len() / width;
        let zeros = Tensor::<2>::zeros([count, width], &device);
        let norms: Vec<f32> = initial
            .chunks_exact(d)
            .map(|h| h.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32)
            .collect();
        let vectors = norms.len();
        Self {
            losses,
            requests: (0..count).collect(),
            first: zeros.clone(),
            second: zeros.clone(),
            delta: zeros,
            updates: 0,
            norms: Tensor::from_data(TensorData::new(norms, [vectors, 1]), &device),
            said: vec![0; count],
            weights: vec![1.0; count],
        }
    }

    /// Rows of δ, one a vector.
    fn vectors(&self, of: &Tensor<2>) -> Tensor<2> {
        let [count, width] = of.dims();
        let vectors = self.norms.dims()[0];
        of.clone().reshape([vectors, count * width / vectors])
    }

    fn enter(&self, decoder: &Decoder) -> Result<[Tensor<2>; 2], EditError> {
        self.losses.enter(decoder, &self.delta)
    }

    fn evaluate(
        &self,
        decoder: &Decoder,
        run: (Tensor<2>, &Activations, Run),
        settings: &TargetSettings,
    ) -> Result<Evaluation, EditError> {
        let stop = settings.rules.stop;
        let weights = (stop == StopRule::Divergence).then(|| {
            let count = self.weights.len();
            Tensor::<2>::from_data(TensorData::new(self.weights.clone(), [count, 1]), &decoder.device())
        });
        let best = stop != StopRule::Loss;
        let Losses { nll, kl, misses, back } =
            self.losses.of(decoder, run, settings.kl_factor, weights.as_ref(), best)?;
        let norm = row_norms(&self.vectors(&self.delta));
        let decay = (norm.clone() / (self.norms.clone() * self.norms.clone())).mul_scalar(settings.weight_decay);
        let count = self.requests.len() as i32;
        let (decay, norm) = (decay.reshape([count, -1]).sum_dim(1), norm.reshape([count, -1]).narrow(1, 0, 1));
        let table: Vec<f32> = read(cat(vec![nll, kl, decay, norm], 1))?;
        let records = table
            .chunks_exact(4)
            .map(|r| StepRecord { loss: r[0] + r[1] + r[2], nll: r[0], kl: r[1], decay: r[2], norm: r[3] })
            .collect();
        Ok(Evaluation { records, back, misses })
    }

    /// Counts an evaluation of a row for [`StopRule::Argmax`]; whether it was the last one.
    fn hits(&mut self, row: usize, rule: StopRule, evaluation: &Evaluation) -> bool {
        let (StopRule::Argmax(most), Some(misses)) = (rule, &evaluation.misses) else { return false };
        let counted = usize::from(self.losses.other_contexts());
        self.said[row] += usize::from(misses[row][counted] == 0);
        self.said[row] >= most
    }

    /// Weighs the next evaluation of a row for [`StopRule::Divergence`]; whether there is none.
    fn has_said(&mut self, row: usize, rule: StopRule, evaluation: &Evaluation) -> bool {
        let (StopRule::Divergence, Some(misses)) = (rule, &evaluation.misses) else { return false };
        let all = misses[row] == [0, 0];
        self.weights[row] = if all { SAID_WEIGHT } else { 1.0 };
        all && evaluation.records[row].kl <= SMALL_DIVERGENCE
    }

    /// One Adam step and the projection onto the ball. Adam's moments do not see the projection, as in the reference.
    fn update(&mut self, gradient: Tensor<2>, settings: &TargetSettings) {
        const B1: f64 = 0.9;
        const B2: f64 = 0.999;
        const EPSILON: f64 = 1e-8;
        // The norm's gradient by hand: it is taken as 0 at δ = 0, where autodiff would divide by zero.
        let shape = self.delta.dims();
        let vectors = self.vectors(&self.delta);
        let norm = row_norms(&vectors);
        let decay = vectors / (norm.clamp_min(f32::MIN_POSITIVE) * self.norms.clone() * self.norms.clone());
        let gradient = gradient + decay.mul_scalar(settings.weight_decay).reshape(shape);
        self.updates += 1;
        self.first = self.first.clone().mul_scalar(B1) + gradient.clone().mul_scalar(1.0 - B1);
        self.second = self.second.clone().mul_scalar(B2) + (gradient.clone() * gradient).mul_scalar(1.0 - B2);
        let correction = (1.0 - B2.powi(self.updates)).sqrt();
        let denominator = self.second.clone().sqrt().div_scalar(correction).add_scalar(EPSILON);
        let step = settings.learning_rate / (1.0 - B1.powi(self.updates));
        let delta = self.delta.clone() - (self.first.clone() / denominator).mul_scalar(step);
        let limit = self.norms.clone().mul_scalar(settings.clamp);
        let vectors = self.vectors(&delta);
        let norm = row_norms(&vectors);
        let shrink = (limit / norm.clamp_min(f32::MIN_POSITIVE)).clamp_max(1.0);
        self.delta = (vectors * shrink).reshape(shape);
    }

    fn keep(&mut self, decoder: &Decoder, rows: &[usize]) {
        let device = self.delta.device();
        let index: Vec<i32> = rows.iter().map(|&r| r as i32).collect();
        let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &device);
        let pick = |t: &Tensor<2>| t.clone().select(0, index.clone());
        self.losses = self.losses.keep(decoder, rows);
        self.requests = rows.iter().map(|&r| self.requests[r]).collect();
        self.delta = pick(&self.delta);
        self.first = pick(&self.first);
        self.second = pick(&self.second);
        let count = self.said.len() as i32;
        self.norms = pick(&self.norms.clone().reshape([count, -1])).reshape([-1, 1]);
        self.said = rows.iter().map(|&r| self.said[r]).collect();
        self.weights = rows.iter().map(|&r| self.weights[r]).collect();
    }
}

/// Euclidean norm of every row, `[n, 1]`.
fn row_norms(x: &Tensor<2>) -> Tensor<2> {
    (x.clone() * x.clone()).sum_dim(1).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch never crosses sixteen neighbours on the CPU, nor a unit anywhere; every request is in one batch.
    #[test]
    fn batches_are_decided_by_the_requests_alone() {
        for n in 0..TARGETS_IN_UNIT {
            let lengths: Vec<usize> = (0..n).map(|i| 5 + i * 7 % 11).collect();
            for most in [1, 3, CPU_BATCH] {
                let cut = batches(&lengths, true, most);
                let mut all: Vec<usize> = cut.iter().flatten().copied().collect();
                all.sort_unstable();
                assert_eq!(all, (0..n).collect::<Vec<_>>());
                for batch in &cut {
                    assert!(batch.len() <= most && batch.iter().all(|i| i / SORTED == batch[0] / SORTED), "{cut:?}");
                }
            }
            assert_eq!(batches(&lengths, false, TARGETS_IN_UNIT).len(), n.min(1));
        }
    }

    /// How many are searched for at the same time does not show in what goes together, down to the size of a batch.
    #[test]
    fn only_fewer_parallel_requests_than_a_batch_change_batches() {
        assert_eq!(target_batch(true, 64), target_batch(true, CPU_BATCH));
        assert_eq!((target_batch(true, 3), target_batch(true, 0), target_batch(false, 100)), (3, 1, TARGETS_IN_UNIT));
    }
}
