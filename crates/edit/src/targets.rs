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
use std::sync::OnceLock;

use palinode_data::{ContextTemplates, EditRequest};
use palinode_model::{Decoder, Text, is_cpu, worker_pool};

use crate::EditError;
use crate::descent::{Together, descend};
use crate::prompts::{RewritePrompts, contexts, prompt_at, rewrite_prompts_at};
use crate::target::{Step, Target, TargetSettings};

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
    /// The same with copies of weights for products that round factors, once there is something to find.
    copied: OnceLock<Decoder>,
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
    /// [`EditError::Request`] for prompts that cannot be used; [`palinode_model::ModelError::Layer`]; [`EditError::Mismatch`] where products
    /// shall be rounded and kernels of our own do not compute.
    pub fn new(
        decoder: &Decoder,
        text: &Text,
        requests: &'a [EditRequest],
        templates: &ContextTemplates,
        settings: &'a TargetSettings,
        parallel_requests: usize,
    ) -> Result<Self, EditError> {
        decoder.config().check_layer(settings.layer)?;
        let compute = settings.rules.compute;
        if !(compute.is_usual() || decoder.has_kernels()) {
            let message = format!("products in {} are those of a CPU with weights in f32", compute.name());
            return Err(EditError::Mismatch(message));
        }
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
        Ok(Self { decoder, copied: OnceLock::new(), requests, settings, prompts, searches, batches, side_by_side })
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

    /// The decoder to search with. Rounding a weight and copying it together takes a large part of the time of a product in bf16: steps do it once.
    fn ready(&self) -> Result<&Decoder, EditError> {
        let compute = self.settings.rules.compute;
        if let Some(ready) = self.copied.get() {
            return Ok(ready);
        }
        if compute.is_usual() {
            return Ok(&self.decoder);
        }
        let layers = self.settings.layer + 1..self.decoder.config().layers;
        let made = self.decoder.with_copies(layers, compute)?;
        Ok(self.copied.get_or_init(|| made))
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
        let decoder = self.ready()?;
        decoder.within(most, |size| {
            if decoder.streams() {
                let parts: Vec<Together<'_>> = batches.iter().flat_map(|batch| batch.chunks(size)).map(of).collect();
                let found = descend(decoder, &parts, self.settings, worker_pool::MOST, &watch);
                decoder.rest();
                let mut found = found?.into_iter().flatten();
                return Ok(batches.iter().map(|batch| found.by_ref().take(batch.len()).collect()).collect());
            }
            let found = worker_pool::map(batches.iter().collect(), |batch| {
                let alone = |some| descend(decoder, &[of(some)], self.settings, 1, &watch);
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
