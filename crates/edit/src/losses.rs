//! What a vector δ costs each request.
//!
//! δ enters at one site and one token of every prompt of a request. What it can change is the prompts' [`Suffix`], which each step runs
//! again; logits are computed only where they are read.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use palinode_model::{Decoder, Places, Run, Suffix, cat, log_softmax, read};

use crate::prompts::RewritePrompts;
use crate::{EditError, Prompt, Site, head};

/// Everything that a step needs, for a batch of requests.
pub struct TargetLosses {
    suffix: Suffix,
    /// Request of each row.
    owner: Vec<usize>,
    /// Every position whose logits matter.
    reads: Vec<Read>,
    /// Log-probabilities of the first pass at each request's essence row, `[requests, V]`.
    essence: Tensor<2>,
    requests: usize,
    fixed: Fixed,
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
}

/// A position whose logits are needed.
#[derive(Clone, Copy)]
struct Read {
    row: usize,
    position: usize,
    /// Predicted token and its weight in the request's loss; none at the essence row.
    predicts: Option<(u32, f32)>,
}

/// Losses of a step.
pub struct Losses {
    /// Mean negative log-likelihood of the target per token, `[requests, 1]`.
    pub nll: Tensor<2>,
    /// `kl_factor · KL(p_δ ‖ p₀)` at the subject's last token of the essence row, `[requests, 1]`.
    pub kl: Tensor<2>,
    /// The way back to δ.
    pub back: Back,
}

/// By which the gradient of a step's losses finds back to δ.
pub struct Back {
    run: Run,
    /// Gradient of the sum of both losses over all requests with respect to what the head read.
    slope: Tensor<2>,
}

/// The clean activations that a target starts from, and the losses of what is added to them.
pub struct Prepared {
    /// What each step computes.
    pub losses: TargetLosses,
    /// `h₀`: the site's activation at the fact token of the first rewrite prompt, `[requests, d]`, row-major.
    pub initial: Vec<f32>,
}

/// One pass over whole prompts without δ; keeps what later steps reuse.
pub fn prepare(
    decoder: &Decoder,
    requests: &[&RewritePrompts],
    layer: usize,
    site: Site,
) -> Result<Prepared, EditError> {
    let mut rows: Vec<&Prompt> = Vec::new();
    let mut owner = Vec::new();
    let mut starts = Vec::new();
    let mut reads = Vec::new();
    // The first rewrite prompt of each request, and its essence.
    let (mut firsts, mut essences) = (Vec::new(), Vec::new());
    for (request, prompts) in requests.iter().enumerate() {
        firsts.push(rows.len());
        let length = prompts.target.len();
        let weight = 1.0 / (length * prompts.rows.len()) as f32;
        for row in &prompts.rows {
            let first_read = row.ids.len() - length;
            for (j, &token) in prompts.target.iter().enumerate() {
                reads.push(Read { row: rows.len(), position: first_read + j, predicts: Some((token, weight)) });
            }
            // Nothing before δ and nothing before the first read is needed again.
            starts.push(row.fact.min(first_read));
            owner.push(request);
            rows.push(row);
        }
        let essence = &prompts.essence;
        essences.push(rows.len());
        reads.push(Read { row: rows.len(), position: essence.fact, predicts: None });
        starts.push(essence.fact);
        owner.push(request);
        rows.push(essence);
    }
    // Reads of the essence come last, in request order, so that the two kinds are two slices.
    reads.sort_by_key(|r| r.predicts.is_none());

    let ids: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).collect();
    let facts: Vec<usize> = rows.iter().map(|row| row.fact).collect();
    let batch = decoder.rows(&ids);
    let facts_of = |some: &[usize]| batch.places(some.iter().map(|&row| (row, facts[row])));
    let (first_facts, essence_facts) = (facts_of(&firsts), facts_of(&essences));
    let mut initial = None;
    let (suffix, last) = decoder.suffix(&batch, starts, &facts, layer, |at, output| {
        if at == layer {
            initial = Some(site.of(output).at(&first_facts));
        }
        Ok(())
    })?;
    let initial = initial.ok_or_else(|| EditError::Mismatch("no request to prepare".into()))?;
    let essence = log_softmax(decoder.logits(last.at(&essence_facts)));
    let fixed = Fixed::new(decoder, &suffix, &owner, &reads, requests.len());
    let losses = TargetLosses { suffix, owner, reads, essence, requests: requests.len(), fixed };
    Ok(Prepared { losses, initial: read(initial)? })
}

impl Fixed {
    fn new(decoder: &Decoder, suffix: &Suffix, owner: &[usize], reads: &[Read], requests: usize) -> Self {
        let device = decoder.device();
        let predicted = reads.len() - requests;
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
        }
    }
}

impl TargetLosses {
    /// Losses of every request for δ `[requests, d]`; see [`Losses`].
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn of(&self, decoder: &Decoder, delta: &Tensor<2>, kl_factor: f64) -> Result<Losses, EditError> {
        let Fixed { owner, places, tokens, weights, sums } = &self.fixed;
        let (hidden, run) = self.suffix.run(decoder, delta.clone().select(0, owner.clone()))?;
        let rows = decoder.final_norm(hidden.at(places));
        let predicted = self.reads.len() - self.requests;
        let said = head::likelihoods(decoder, &rows.clone().narrow(0, 0, predicted), tokens, weights);
        let kept = head::divergences(decoder, &rows.narrow(0, predicted, self.requests), &self.essence);
        let kl = kept.values.mul_scalar(kl_factor);
        let slope = cat(vec![said.gradient, kept.gradient.mul_scalar(kl_factor)], 0);
        Ok(Losses { nll: sums.clone().matmul(said.values), kl, back: Back { run, slope } })
    }

    /// The gradient with respect to δ, `[requests, d]`, of the sum of both losses over all requests.
    ///
    /// # Errors
    /// What reading a streamed block failed at; what the device failed at.
    pub fn gradient(&self, decoder: &Decoder, back: Back) -> Result<Tensor<2>, EditError> {
        let Fixed { owner, places, .. } = &self.fixed;
        let at_added = self.suffix.back(decoder, back.run, places, back.slope)?;
        let zeros = Tensor::zeros([self.requests, decoder.config().hidden], &decoder.device());
        // Each request's δ is added to all of its rows.
        Ok(zeros.select_assign(0, owner.clone(), at_added, IndexingUpdateOp::Add))
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
        let reads: Vec<Read> = self.reads.iter().filter_map(|r| row_map[r.row].map(|row| Read { row, ..*r })).collect();
        let fixed = Fixed::new(decoder, &suffix, &owner, &reads, requests.len());
        let kept: Vec<i32> = requests.iter().map(|&r| r as i32).collect();
        let kept = Tensor::from_data(TensorData::new(kept, [requests.len()]), &decoder.device());
        let essence = self.essence.clone().select(0, kept);
        Self { suffix, owner, reads, essence, requests: requests.len(), fixed }
    }
}
