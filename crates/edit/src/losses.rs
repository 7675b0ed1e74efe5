//! What a vector δ costs each request.
//!
//! δ enters at one site and one token of every prompt of a request. What it can change is the prompts' [`Suffix`], which each step runs
//! again; logits are computed only where they are read.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use palinode_model::{
    Activations, Beyond, BlockOutput, Decoder, Inner, ModelError, Places, Rows, Run, Suffix, SuffixBuilder, Visit, cat,
    log_softmax, read,
};

use crate::prompts::RewritePrompts;
use crate::{EditError, Prompt, Site, TargetSite, head};

/// Everything that a step needs, for a batch of requests.
pub struct TargetLosses {
    suffix: Suffix,
    entry: Entry,
    /// Request of each row.
    owner: Vec<usize>,
    /// Every position whose logits matter.
    reads: Vec<Read>,
    /// Log-probabilities of the first pass at each essence row, `[essences, V]`.
    essence: Tensor<2>,
    requests: usize,
    fixed: Fixed,
}

/// How δ gets into the suffix.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it for each batch")]
enum Entry {
    /// It is added to the hidden state after the layer: `[requests, d]`.
    Hidden,
    /// It is added to the down-projection's output, behind which a norm or a multiplier stands: `[requests, d]`. Clean values at each row's
    /// fact token, `[rows, d]`.
    Projection {
        layer: usize,
        /// The projection's output.
        mlp: Tensor<2>,
        /// What that adds to the hidden state.
        adds: Tensor<2>,
    },
    /// Of `[requests, 2d]`, the first half is added to the feed-forward's output, and the second half to the attention's before it, which
    /// the feed-forward of the layer sees where it comes after the attention. Clean values at each row's fact token, `[rows, d]`.
    WithAttention {
        layer: usize,
        /// Before the block.
        before: Tensor<2>,
        /// What attention adds.
        attended: Tensor<2>,
        /// After the block, computed from those two.
        after: Tensor<2>,
    },
}

impl Entry {
    /// What each row's hidden state gets, `[rows, d]`, for δ of each row.
    fn added(&self, decoder: &Decoder, delta: Tensor<2>) -> Result<Tensor<2>, EditError> {
        match self {
            Self::Hidden => Ok(delta),
            Self::Projection { layer, mlp, adds } => Ok(decoder.added(*layer, mlp.clone() + delta)? - adds.clone()),
            Self::WithAttention { layer, before, attended, after } => {
                let [rows, both] = delta.dims();
                let d = both / 2;
                let (mlp, attention) = (delta.clone().slice([0..rows, 0..d]), delta.slice([0..rows, d..both]));
                let attended = attended.clone() + attention;
                let plain = decoder.config().beyond() == Beyond::Nothing;
                let down = if plain { None } else { Some(mlp.clone()) };
                let inner = Inner { down, ..Inner::default() };
                let changed = decoder.after_attention(*layer, before.clone(), attended, inner)?.hidden;
                let changed = changed - after.clone();
                Ok(if plain { changed + mlp } else { changed })
            }
        }
    }

    /// The gradient with respect to δ of each row, given that with respect to what each row's hidden state gets, `[rows, d]`.
    fn back(&self, decoder: &Decoder, delta: Tensor<2>, slope: Tensor<2>) -> Result<Tensor<2>, EditError> {
        match self {
            Self::Hidden => Ok(slope),
            Self::Projection { .. } | Self::WithAttention { .. } => {
                let delta = delta.autodiff().require_grad();
                // With the slope as a constant, this has exactly that gradient; its value means nothing.
                let total = (self.added(decoder, delta.clone())? * slope).sum();
                let zeros = delta.clone().without_autodiff().zeros_like();
                Ok(delta.grad_remove(&mut total.backward()).unwrap_or(zeros))
            }
        }
    }

    fn keep(&self, rows: &Tensor<1, Int>) -> Self {
        let pick = |t: &Tensor<2>| t.clone().select(0, rows.clone());
        match self {
            Self::Hidden => Self::Hidden,
            Self::Projection { layer, mlp, adds } => {
                Self::Projection { layer: *layer, mlp: pick(mlp), adds: pick(adds) }
            }
            Self::WithAttention { layer, before, attended, after } => Self::WithAttention {
                layer: *layer,
                before: pick(before),
                attended: pick(attended),
                after: pick(after),
            },
        }
    }
}

/// What follows from the rows alone and is the same in every step: it is on the device once.
struct Fixed {
    /// Request of each row, `[rows]`.
    owner: Tensor<1, Int>,
    /// Where logits are read.
    places: Places,
    /// Predicted tokens and their weights, `[predicted, 1]`.
    tokens: Tensor<2, Int>,
    weights: Tensor<2>,
    /// The weights again, in the rows of their requests: `[requests, predicted]`.
    sums: Tensor<2>,
    /// Tokens that are predicted; the other reads are those of essences.
    predicted: usize,
    /// What each essence row weighs in its request's mean, `[essences, 1]`, and the same in the rows of their requests, `[requests, essences]`;
    /// none where each has one.
    still: Option<(Tensor<2>, Tensor<2>)>,
}

/// A position whose logits are needed.
#[derive(Clone, Copy)]
struct Read {
    row: usize,
    position: usize,
    /// Whether the row is the first of its request's contexts.
    first: bool,
    /// Predicted token and its weight in the request's loss; none at the essence row.
    predicts: Option<(u32, f32)>,
}

/// Losses of a step.
pub struct Losses {
    /// Mean negative log-likelihood of the target per token, `[requests, 1]`.
    pub nll: Tensor<2>,
    /// `kl_factor · KL(p_δ ‖ p₀)` at the subject's last token of the essence row, or the mean of several, `[requests, 1]`.
    pub kl: Tensor<2>,
    /// Predicted tokens of each request that are not the most probable ones, in the first of its contexts and in the others; only where it
    /// was asked for.
    pub misses: Option<Vec<[usize; 2]>>,
    /// The way back to δ.
    pub back: Back,
}

/// By which the gradient of a step's losses finds back to δ.
pub struct Back {
    /// The suffix's.
    pub run: Run,
    /// δ of each row.
    pub delta: Tensor<2>,
    /// Gradient of the sum of both losses over all requests with respect to what the head read.
    pub slope: Tensor<2>,
}

/// The clean activations that a target starts from, and the losses of what is added to them.
pub struct Prepared {
    /// What each step computes.
    pub losses: TargetLosses,
    /// `h₀`: the site's activation at the fact token of the first rewrite prompt, `[requests, d]`, row-major. Where a vector at the
    /// attention's output is searched for too, that output follows in each row: `[requests, 2d]`.
    pub initial: Vec<f32>,
}

/// One pass over whole prompts without δ, which keeps what later steps reuse. A decoder makes it for many batches at the same time:
/// [`Decoder::visit_all`].
pub struct Preparation<'a> {
    layer: usize,
    site: Site,
    at_projection: bool,
    with_attention: bool,
    requests: usize,
    rows: Vec<&'a Prompt>,
    /// Request of each row.
    owner: Vec<usize>,
    starts: Vec<usize>,
    reads: Vec<Read>,
    /// The first rewrite prompt of each request, and its essences.
    firsts: Vec<usize>,
    essences: Vec<usize>,
    /// What earlier searches found for the same rows: where it is added, and the vectors.
    earlier: (Vec<(usize, usize)>, Vec<f32>),
    begun: Option<Begun>,
}

/// What a pass has seen.
struct Begun {
    suffix: SuffixBuilder,
    first_facts: Places,
    essence_facts: Places,
    all_facts: Places,
    initial: Option<Tensor<2>>,
    /// Hidden state before the block of the layer, where it is needed.
    before: Option<Tensor<2>>,
    /// Hidden state after it and the down-projection's output, likewise.
    after: Option<[Tensor<2>; 2]>,
}

impl<'a> Preparation<'a> {
    /// Of `searches`, each of one or more requests that share a δ: their losses' mean is what it costs, and the first one's first prompt has
    /// its `h₀`.
    ///
    /// # Errors
    /// [`palinode_model::ModelError::Layer`]; [`EditError::Mismatch`] for no request.
    pub fn new(
        decoder: &Decoder,
        searches: &[Vec<&'a RewritePrompts>],
        layer: usize,
        at_site: TargetSite,
    ) -> Result<Self, EditError> {
        decoder.config().check_layer(layer)?;
        let site = Site::of_target(at_site, decoder.config());
        let at_projection = site == Site::MlpOutput && decoder.config().beyond() != Beyond::Nothing;
        let mut rows: Vec<&Prompt> = Vec::new();
        let mut owner = Vec::new();
        let mut starts = Vec::new();
        let mut reads = Vec::new();
        let (mut firsts, mut essences) = (Vec::new(), Vec::new());
        let (mut injected, mut vectors) = (Vec::new(), Vec::new());
        for (request, members) in searches.iter().enumerate() {
            firsts.push(rows.len());
            for prompts in members {
                for (row, position, vector) in &prompts.earlier {
                    injected.push((rows.len() + row, *position));
                    vectors.extend_from_slice(vector);
                }
                let length = prompts.target.len();
                let weight = 1.0 / (length * prompts.rows.len() * members.len()) as f32;
                for (context, row) in prompts.rows.iter().enumerate() {
                    let first_read = row.ids.len() - length;
                    for (j, &token) in prompts.target.iter().enumerate() {
                        let predicts = Some((token, weight));
                        reads.push(Read { row: rows.len(), position: first_read + j, first: context == 0, predicts });
                    }
                    // Nothing before δ and nothing before the first read is needed again.
                    starts.push(row.fact.min(first_read));
                    owner.push(request);
                    rows.push(row);
                }
            }
            let Some(first) = members.first() else { return Err(EditError::Mismatch("a search of no request".into())) };
            for essence in &first.essences {
                essences.push(rows.len());
                reads.push(Read { row: rows.len(), position: essence.fact, first: false, predicts: None });
                starts.push(essence.fact);
                owner.push(request);
                rows.push(essence);
            }
        }
        if rows.is_empty() {
            return Err(EditError::Mismatch("no request to prepare".into()));
        }
        // Reads of the essence come last, in request order, so that the two kinds are two slices.
        reads.sort_by_key(|r| r.predicts.is_none());
        Ok(Self {
            layer,
            site,
            at_projection,
            with_attention: at_site.vectors() == 2,
            requests: searches.len(),
            rows,
            owner,
            starts,
            reads,
            firsts,
            essences,
            earlier: (injected, vectors),
            begun: None,
        })
    }

    /// What steps need of what was seen.
    fn prepared(self, decoder: &Decoder, last: &Activations) -> Result<Prepared, EditError> {
        let layer = self.layer;
        let begun = self.begun.ok_or_else(|| EditError::Mismatch("no request to prepare".into()))?;
        let mut initial = begun.initial.ok_or_else(|| EditError::Mismatch("no request to prepare".into()))?;
        let (mut attended, mut mlp) = (None, None);
        if let Some([after, out]) = begun.after {
            let adds = decoder.added(layer, out.clone())?;
            // Every arrangement of a block adds attention and feed-forward to what came in.
            attended = begun.before.clone().map(|before| after - adds.clone() - before);
            mlp = Some((out, adds));
        }
        let entry = match (begun.before, attended, mlp) {
            (Some(before), Some(attended), _) => {
                let index: Vec<i32> = self.firsts.iter().map(|&row| row as i32).collect();
                let index = Tensor::from_data(TensorData::new(index, [self.firsts.len()]), &decoder.device());
                initial = cat(vec![initial, attended.clone().select(0, index)], 1);
                let after = decoder.after_attention(layer, before.clone(), attended.clone(), Inner::default())?.hidden;
                Entry::WithAttention { layer, before, attended, after }
            }
            (_, _, Some((mlp, adds))) if self.at_projection => Entry::Projection { layer, mlp, adds },
            _ => Entry::Hidden,
        };
        let essence = log_softmax(decoder.logits(last.at(&begun.essence_facts)));
        let suffix = begun.suffix.finish(decoder)?;
        let fixed = Fixed::new(decoder, &suffix, &self.owner, &self.reads, self.requests);
        let losses = TargetLosses {
            suffix,
            entry,
            owner: self.owner,
            reads: self.reads,
            essence,
            requests: self.requests,
            fixed,
        };
        Ok(Prepared { losses, initial: read(initial)? })
    }
}

impl Visit for Preparation<'_> {
    type Found = Result<Prepared, EditError>;

    fn begin(&mut self, decoder: &Decoder) -> Rows {
        let ids: Vec<&[u32]> = self.rows.iter().map(|row| row.ids.as_slice()).collect();
        let facts: Vec<usize> = self.rows.iter().map(|row| row.fact).collect();
        let mut batch = decoder.rows(&ids);
        let facts_of = |some: &[usize]| batch.places(some.iter().map(|&row| (row, facts[row])));
        let (first_facts, essence_facts) = (facts_of(&self.firsts), facts_of(&self.essences));
        let all_facts = batch.places(facts.iter().copied().enumerate());
        let before = (self.with_attention && self.layer == 0).then(|| decoder.embed(&batch).at(&all_facts));
        let (injected, vectors) = std::mem::take(&mut self.earlier);
        if !injected.is_empty() {
            let shape = [injected.len(), decoder.config().hidden];
            let values = Tensor::from_data(TensorData::new(vectors, shape), &decoder.device());
            batch = batch.injecting(self.layer, injected, values, self.at_projection);
        }
        let starts = std::mem::take(&mut self.starts);
        let suffix = SuffixBuilder::new(decoder, &batch, starts, &facts, self.layer);
        let (initial, after) = (None, None);
        self.begun = Some(Begun { suffix, first_facts, essence_facts, all_facts, initial, before, after });
        batch
    }

    fn see(&mut self, at: usize, output: &BlockOutput) -> Result<(), ModelError> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        if self.with_attention && at + 1 == self.layer {
            begun.before = Some(output.hidden.at(&begun.all_facts));
        }
        if at == self.layer {
            begun.initial = Some(self.site.at(output, &begun.first_facts)?);
            if self.at_projection || self.with_attention {
                begun.after = Some([output.hidden.at(&begun.all_facts), output.mlp.at(&begun.all_facts)]);
            }
        }
        begun.suffix.see(at, output)
    }

    fn finish(self, decoder: &Decoder, last: &Activations) -> Result<Self::Found, ModelError> {
        Ok(self.prepared(decoder, last))
    }
}

impl Fixed {
    fn new(decoder: &Decoder, suffix: &Suffix, owner: &[usize], reads: &[Read], requests: usize) -> Self {
        let device = decoder.device();
        let still: Vec<usize> = reads.iter().filter(|r| r.predicts.is_none()).map(|r| owner[r.row]).collect();
        let predicted = reads.len() - still.len();
        let (tokens, weights): (Vec<i32>, Vec<f32>) =
            reads[..predicted].iter().filter_map(|r| r.predicts).map(|(token, weight)| (token as i32, weight)).unzip();
        let mut sums = vec![0f32; requests * predicted];
        for (i, r) in reads[..predicted].iter().enumerate() {
            sums[owner[r.row] * predicted + i] = weights[i];
        }
        let index = |values: Vec<i32>| {
            let n = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [n]), &device)
        };
        Self {
            owner: index(owner.iter().map(|&o| o as i32).collect()),
            places: suffix.places(decoder, reads.iter().map(|r| (r.row, r.position))),
            tokens: index(tokens).reshape([predicted, 1]),
            weights: Tensor::from_data(TensorData::new(weights, [predicted, 1]), &device),
            sums: Tensor::from_data(TensorData::new(sums, [requests, predicted]), &device),
            predicted,
            still: (still.len() > requests).then(|| {
                let count = |request: usize| still.iter().filter(|&&of| of == request).count() as f32;
                let each: Vec<f32> = still.iter().map(|&request| 1.0 / count(request)).collect();
                let mut rows = vec![0f32; requests * still.len()];
                for (i, &request) in still.iter().enumerate() {
                    rows[request * still.len() + i] = each[i];
                }
                let n = still.len();
                let tensor = |values: Vec<f32>, shape| Tensor::from_data(TensorData::new(values, shape), &device);
                (tensor(each, [n, 1]), tensor(rows, [requests, n]))
            }),
        }
    }
}

impl TargetLosses {
    /// What can change.
    pub fn suffix(&self) -> &Suffix {
        &self.suffix
    }

    /// Where the head reads.
    pub fn places(&self) -> &Places {
        &self.fixed.places
    }

    /// δ `[requests, d]`, or `[requests, 2d]` where a vector is added to attention too, as it enters the suffix: of each row, and what is
    /// added to the hidden state.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn enter(&self, decoder: &Decoder, delta: &Tensor<2>) -> Result<[Tensor<2>; 2], EditError> {
        let delta = delta.clone().select(0, self.fixed.owner.clone());
        let added = self.entry.added(decoder, delta.clone())?;
        Ok([delta, added])
    }

    /// Losses of every request, of the hidden state that the suffix has with `delta` of each row; see [`Losses`]. `nll_weights`
    /// `[requests, 1]` multiply the likelihoods, where they are given. With `best`, misses are told.
    ///
    /// # Errors
    /// What the device failed at.
    pub fn of(
        &self,
        decoder: &Decoder,
        (delta, hidden, run): (Tensor<2>, &Activations, Run),
        kl_factor: f64,
        nll_weights: Option<&Tensor<2>>,
        best: bool,
    ) -> Result<Losses, EditError> {
        let Fixed { places, tokens, weights, sums, predicted, still, .. } = &self.fixed;
        let predicted = *predicted;
        let rows = decoder.final_norm(hidden.at(places));
        // Row i of `sums` has the weights of request i's tokens, and zeros.
        let (weights, sums) = match nll_weights {
            None => (weights.clone(), sums.clone()),
            Some(of) => {
                let each: Vec<i32> = self.reads[..predicted].iter().map(|r| self.owner[r.row] as i32).collect();
                let each = Tensor::<1, Int>::from_data(TensorData::new(each, [predicted]), &decoder.device());
                (weights.clone() * of.clone().select(0, each), sums.clone() * of.clone())
            }
        };
        let (said, shortfalls) =
            head::likelihoods(decoder, &rows.clone().narrow(0, 0, predicted), tokens, &weights, best)?;
        let kept = head::divergences(decoder, &rows.narrow(0, predicted, self.reads.len() - predicted), &self.essence);
        let (divergence, slope) = match still {
            None => (kept.values, kept.gradient),
            Some((each, of)) => (of.clone().matmul(kept.values), kept.gradient * each.clone()),
        };
        let kl = divergence.mul_scalar(kl_factor);
        let slope = cat(vec![said.gradient, slope.mul_scalar(kl_factor)], 0);
        let misses = shortfalls.map(|shortfalls| self.misses(shortfalls)).transpose()?;
        Ok(Losses { nll: sums.matmul(said.values), kl, misses, back: Back { run, delta, slope } })
    }

    /// The gradient with respect to δ, of its shape, of the sum of both losses over all requests, given δ of each row and the gradient with
    /// respect to what was added to the hidden state.
    ///
    /// # Errors
    /// What reading a streamed block failed at; what the device failed at.
    pub fn gradient(&self, decoder: &Decoder, delta: Tensor<2>, at_added: Tensor<2>) -> Result<Tensor<2>, EditError> {
        let zeros = Tensor::zeros([self.requests, delta.dims()[1]], &decoder.device());
        let at_delta = self.entry.back(decoder, delta, at_added)?;
        // Each request's δ is added to all of its rows.
        Ok(zeros.select_assign(0, self.fixed.owner.clone(), at_delta, IndexingUpdateOp::Add))
    }

    fn misses(&self, shortfalls: Tensor<2>) -> Result<Vec<[usize; 2]>, EditError> {
        let shortfalls: Vec<f32> = read(shortfalls)?;
        let mut misses = vec![[0; 2]; self.requests];
        for (r, shortfall) in self.reads.iter().zip(shortfalls) {
            // What is not a number is a miss.
            if shortfall.is_nan() || shortfall > 0.0 {
                misses[self.owner[r.row]][usize::from(!r.first)] += 1;
            }
        }
        Ok(misses)
    }

    /// Whether requests have contexts beside the first.
    pub fn other_contexts(&self) -> bool {
        self.reads.iter().any(|r| r.predicts.is_some() && !r.first)
    }

    /// The same for some of the requests, in the given order (indices rising).
    pub fn keep(&self, decoder: &Decoder, requests: &[usize]) -> Self {
        let mut renamed = vec![None; self.requests];
        for (new, &old) in requests.iter().enumerate() {
            renamed[old] = Some(new);
        }
        let mut row_map = vec![None; self.owner.len()];
        let mut rows = Vec::new();
        let mut owner = Vec::new();
        for (row, &old) in self.owner.iter().enumerate() {
            if let Some(new) = renamed[old] {
                row_map[row] = Some(rows.len());
                rows.push(row);
                owner.push(new);
            }
        }
        let suffix = self.suffix.keep(decoder, &rows);
        let picked: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let entry = self.entry.keep(&Tensor::from_data(TensorData::new(picked, [rows.len()]), &decoder.device()));
        let reads: Vec<Read> = self.reads.iter().filter_map(|r| row_map[r.row].map(|row| Read { row, ..*r })).collect();
        let fixed = Fixed::new(decoder, &suffix, &owner, &reads, requests.len());
        let still = self.reads.iter().filter(|r| r.predicts.is_none()).enumerate();
        let kept: Vec<i32> =
            still.filter(|(_, r)| renamed[self.owner[r.row]].is_some()).map(|(i, _)| i as i32).collect();
        let count = kept.len();
        let kept = Tensor::from_data(TensorData::new(kept, [count]), &decoder.device());
        let essence = self.essence.clone().select(0, kept);
        Self { suffix, entry, owner, reads, essence, requests: requests.len(), fixed }
    }
}
