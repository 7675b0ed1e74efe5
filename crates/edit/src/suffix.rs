//! The part of a forward pass that depends on δ.
//!
//! δ enters at one site and one token. Nothing before the site depends on it, and attention is causal, so positions
//! before that token never change either: their keys and values in the upper layers are computed once. What is left for
//! every step are the positions from the fact token on, in the layers above the site. Rows are aligned at their first
//! such position: pasts are padded on the left and masked.

use burn::tensor::{Bool, Int, Tensor, TensorData, activation};
use palinode_model::{Batch, Decoder, KeyValues, Rotation, join, read};

use crate::prompts::RewritePrompts;
use crate::{EditError, Prompt, Site, head};

/// Everything that a step needs, for a batch of requests.
pub struct Suffix {
    layer: usize,
    /// Hidden state after the site's block from each row's start on, `[rows, seq, d]`.
    hidden: Tensor<3>,
    /// 1 at each row's fact token, `[rows, seq, 1]`.
    fact: Tensor<3>,
    /// Request of each row.
    owner: Vec<usize>,
    /// Keys and values of earlier positions in the layers above, left-padded.
    past: Vec<KeyValues>,
    /// `[rows, 1, seq, past + seq]`, true where a query must not look.
    mask: Tensor<4, Bool>,
    /// Position of each row's first token.
    starts: Vec<usize>,
    /// Every position whose logits matter.
    reads: Vec<Read>,
    /// Log-probabilities of the first pass at each request's essence row, `[requests, V]`.
    essence: Tensor<2>,
    requests: usize,
    fixed: Fixed,
}

/// What follows from the rows alone and is the same in every step: it is on the device once.
struct Fixed {
    rotation: Option<Rotation>,
    /// Request of each row, `[rows]`.
    owner: Tensor<1, Int>,
    /// Where logits are read among the flattened `[rows · seq]`.
    places: Tensor<1, Int>,
    /// Predicted tokens and their weights, `[predicted, 1]`.
    tokens: Tensor<2, Int>,
    weights: Tensor<2>,
    /// The weights again, in the rows of their requests: `[requests, predicted]`.
    sums: Tensor<2>,
}

impl Fixed {
    fn new(decoder: &Decoder, owner: &[usize], starts: &[usize], reads: &[Read], seq: usize, requests: usize) -> Self {
        let device = decoder.device();
        let positions: Vec<Vec<usize>> = starts.iter().map(|&start| (start..start + seq).collect()).collect();
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
            rotation: decoder.rotation(&positions),
            owner: index(owner.iter().map(|&o| o as i32).collect()),
            places: index(reads.iter().map(|r| (r.row * seq + r.place) as i32).collect()),
            tokens: index(tokens).reshape([predicted, 1]),
            weights: Tensor::from_data(TensorData::new(weights, [predicted, 1]), &device),
            sums: Tensor::from_data(TensorData::new(sums, [requests, predicted]), &device),
        }
    }
}

/// A position whose logits are needed.
#[derive(Clone, Copy)]
struct Read {
    row: usize,
    /// Position within the suffix.
    place: usize,
    /// Predicted token and its weight in the request's loss; none at the essence row.
    predicts: Option<(u32, f32)>,
}

/// What δ costs each request.
pub struct Losses {
    /// Mean negative log-likelihood of the target per token, `[requests, 1]`.
    pub nll: Tensor<2>,
    /// `kl_factor · KL(p_δ ‖ p₀)` at the subject's last token of the essence row, `[requests, 1]`.
    pub kl: Tensor<2>,
    /// Its gradient with respect to δ is that of the sum of both over all requests; its value means nothing.
    pub total: Tensor<1>,
}

/// The clean activations that a target starts from, and the suffix of its computation.
pub struct Prepared {
    /// What each step computes.
    pub suffix: Suffix,
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
    let config = decoder.config();
    let device = decoder.device();
    let mut rows: Vec<&Prompt> = Vec::new();
    let mut owner = Vec::new();
    let mut starts = Vec::new();
    let mut reads = Vec::new();
    let mut first_rows = Vec::new();
    for (request, prompts) in requests.iter().enumerate() {
        first_rows.push(rows.len());
        let length = prompts.target.len();
        let weight = 1.0 / (length * prompts.rows.len()) as f32;
        for row in &prompts.rows {
            let first_read = row.ids.len() - length;
            let start = row.fact.min(first_read);
            for (j, &token) in prompts.target.iter().enumerate() {
                reads.push(Read { row: rows.len(), place: first_read + j - start, predicts: Some((token, weight)) });
            }
            starts.push(start);
            owner.push(request);
            rows.push(row);
        }
        let essence = &prompts.essence;
        reads.push(Read { row: rows.len(), place: 0, predicts: None });
        starts.push(essence.fact);
        owner.push(request);
        rows.push(essence);
    }
    // Reads of the essence come last, in request order, so that the two kinds are two slices.
    reads.sort_by_key(|r| r.predicts.is_none());

    let ids: Vec<&[u32]> = rows.iter().map(|r| r.ids.as_slice()).collect();
    let batch = Batch::new(&ids, &device);
    let width = batch.width();
    let past_width = starts.iter().copied().max().unwrap_or(0);
    let seq = rows.iter().zip(&starts).map(|(r, s)| r.ids.len() - s).max().unwrap_or(0);
    // Indices into the flattened [rows · width]: where each aligned position comes from. Padding reads any place that
    // exists; it is masked or never looked at.
    let index = |values: Vec<i32>| {
        let n = values.len();
        Tensor::<1, Int>::from_data(TensorData::new(values, [n]), &device)
    };
    let past_index = index(
        starts
            .iter()
            .enumerate()
            .flat_map(|(r, &s)| (0..past_width).map(move |j| (r * width + (j + s).saturating_sub(past_width)) as i32))
            .collect(),
    );
    let suffix_index = index(
        starts
            .iter()
            .enumerate()
            .flat_map(|(r, &s)| (0..seq).map(move |j| (r * width + (s + j).min(width - 1)) as i32))
            .collect(),
    );
    let fact_index = index(first_rows.iter().map(|&r| (r * width + rows[r].fact) as i32).collect());

    let (mut hidden, mut initial, mut past) = (None, None, Vec::new());
    let count = rows.len();
    let last = decoder.walk(&batch, config.layers - 1, |l, output| {
        if l == layer {
            initial = Some(site.of(output).select(0, fact_index.clone()));
            hidden = Some(Site::BlockOutput.of(output).select(0, suffix_index.clone()));
        }
        if l > layer && past_width > 0 {
            past.push(KeyValues {
                keys: realign(&output.kv.keys, &past_index, [count, past_width]),
                values: realign(&output.kv.values, &past_index, [count, past_width]),
            });
        }
    });
    let (Some(hidden), Some(initial)) = (hidden, initial) else {
        config.check_layer(layer)?;
        return Err(EditError::Mismatch("no request to prepare".into()));
    };
    let essence_index = index(
        rows.iter()
            .enumerate()
            .filter(|(r, _)| first_rows.contains(&(r + 1)) || r + 1 == count)
            .map(|(r, row)| (r * width + row.fact) as i32)
            .collect(),
    );
    let final_rows = last.reshape([count * width, config.hidden]).select(0, essence_index);
    let essence = activation::log_softmax(decoder.logits(final_rows), 1);

    let mut mask = Vec::with_capacity(count * seq * (past_width + seq));
    for &start in &starts {
        for query in 0..seq {
            mask.extend((0..past_width).map(|j| j < past_width - start));
            mask.extend((0..seq).map(|j| j > query));
        }
    }
    let mut fact = vec![0f32; count * seq];
    for (r, (row, start)) in rows.iter().zip(&starts).enumerate() {
        fact[r * seq + row.fact - start] = 1.0;
    }
    let fixed = Fixed::new(decoder, &owner, &starts, &reads, seq, requests.len());
    let suffix = Suffix {
        layer,
        hidden: hidden.reshape([count, seq, config.hidden]),
        fact: Tensor::from_data(TensorData::new(fact, [count, seq, 1]), &device),
        owner,
        past,
        mask: Tensor::from_data(TensorData::new(mask, [count, 1, seq, past_width + seq]), &device),
        starts,
        reads,
        essence,
        requests: requests.len(),
        fixed,
    };
    Ok(Prepared { suffix, initial: read(initial)? })
}

/// Selects positions of `[rows, heads, width, dim]` by flat index into `rows · width`.
fn realign(x: &Tensor<4>, index: &Tensor<1, Int>, [rows, width]: [usize; 2]) -> Tensor<4> {
    let [batch, heads, seq, dim] = x.dims();
    x.clone()
        .swap_dims(1, 2)
        .reshape([batch * seq, heads * dim])
        .select(0, index.clone())
        .reshape([rows, width, heads, dim])
        .swap_dims(1, 2)
}

impl Suffix {
    /// Losses of every request for δ `[requests, d]`; see [`Losses`].
    pub fn losses(&self, decoder: &Decoder, delta: &Tensor<2>, kl_factor: f64) -> Losses {
        let config = decoder.config();
        let Fixed { rotation, owner, places, tokens, weights, sums } = &self.fixed;
        let [count, seq, d] = self.hidden.dims();
        let shift = delta.clone().select(0, owner.clone()).reshape([count, 1, d]) * self.fact.clone();
        let mut hidden = self.hidden.clone() + shift;
        for layer in self.layer + 1..config.layers {
            let past = self.past.get(layer - self.layer - 1);
            hidden = decoder.block(layer, hidden, rotation.as_ref(), past, Some(&self.mask)).hidden;
        }
        let normed = decoder.final_norm(hidden.reshape([count * seq, d]).select(0, places.clone()));
        let rows = normed.clone().without_autodiff();
        let predicted = self.reads.len() - self.requests;
        let said = head::likelihoods(decoder, &rows.clone().narrow(0, 0, predicted), tokens, weights);
        let kept = head::divergences(decoder, &rows.narrow(0, predicted, self.requests), &self.essence);
        let kl = kept.values.mul_scalar(kl_factor);
        let gradient = join(vec![said.gradient, kept.gradient.mul_scalar(kl_factor)], 0);
        Losses { nll: sums.clone().matmul(said.values), kl, total: (normed * gradient).sum() }
    }

    /// The suffix of some of the requests, in the given order (indices rising).
    pub fn keep(&self, decoder: &Decoder, requests: &[usize]) -> Self {
        let device = self.hidden.device();
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
                rows.push(row as i32);
                owner.push(new);
            }
        }
        let index =
            |values: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(values.to_vec(), [values.len()]), &device);
        let picked = index(&rows);
        let starts: Vec<usize> = rows.iter().map(|&r| self.starts[r as usize]).collect();
        let reads: Vec<Read> = self.reads.iter().filter_map(|r| row_map[r.row].map(|row| Read { row, ..*r })).collect();
        let fixed = Fixed::new(decoder, &owner, &starts, &reads, self.hidden.dims()[1], requests.len());
        let of_requests: Vec<i32> = requests.iter().map(|&r| r as i32).collect();
        Self {
            layer: self.layer,
            hidden: self.hidden.clone().select(0, picked.clone()),
            fact: self.fact.clone().select(0, picked.clone()),
            owner,
            past: self
                .past
                .iter()
                .map(|kv| KeyValues {
                    keys: kv.keys.clone().select(0, picked.clone()),
                    values: kv.values.clone().select(0, picked.clone()),
                })
                .collect(),
            mask: self.mask.clone().select(0, picked.clone()),
            starts,
            reads,
            essence: self.essence.clone().select(0, index(&of_requests)),
            requests: requests.len(),
            fixed,
        }
    }
}
