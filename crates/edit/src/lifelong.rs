//! Edits by one backward pass with statistics over a model's whole life (UltraEdit, arXiv 2505.14679).
//!
//! Of every edited projection, its input `h` and the gradient `g` at its output are taken at the tokens that predict the answer, and
//! normalised by running statistics of all edits so far, these included: `ĥ`, `ĝ`. What the weight should map `h` to is
//! `v = −lr ‖ĥ‖² ĝ`, and the change solves `Δᵀ = (hᵀh + I)⁻¹ hᵀv`: least squares with the identity as preservation metric.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use palinode_data::EditRequest;
use palinode_math::{Delta, Diagnostics, Form, Mat, PreservationWeights, Problem, Ridge, solve};
use palinode_model::{Beyond, Decoder, Inner, MlpModule, Text, WeightId, read};
use serde::{Deserialize, Serialize};

use crate::EditError;
use crate::tune::{Predictions, TuneLoss, rows_of};

/// How models are edited.
#[derive(Clone, Debug)]
pub struct LifelongSettings {
    /// The projections.
    pub weights: Vec<WeightId>,
    /// `lr`.
    pub learning_rate: f64,
    /// Requests in a backward pass: a gradient is that of their mean token loss.
    pub mini_batch: usize,
}

/// Running mean and variance of the inputs and gradients of projections of one shape, side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningStatistics {
    /// Rows seen.
    pub count: f64,
    /// Of each column.
    pub mean: Vec<f64>,
    /// Sum of squared deviations of each column.
    pub squares: Vec<f64>,
}

/// What is added where a number is divided by: the machine epsilon of f32.
const EPSILON: f64 = f32::EPSILON as f64;

impl RunningStatistics {
    /// Takes in rows `[n, width]`. The published update: the sum grows by `n` times the variance of the new rows, with `n − 1` below.
    pub fn push(&mut self, rows: &Mat<f64>) {
        let (n, width) = (rows.nrows(), rows.ncols());
        if n == 0 {
            return;
        }
        self.mean.resize(width, 0.0);
        self.squares.resize(width, 0.0);
        let (new, old) = (n as f64, self.count);
        for j in 0..width {
            let mean = (0..n).map(|i| rows[(i, j)]).sum::<f64>() / new;
            let squares: f64 = (0..n).map(|i| (rows[(i, j)] - mean).powi(2)).sum();
            // A single row has no variance.
            let variance = if n > 1 { squares / (new - 1.0) } else { 0.0 };
            let off = mean - self.mean[j];
            self.mean[j] += new * off / (old + new);
            self.squares[j] += new * variance + old * new * off * off / (old + new);
        }
        self.count += new;
    }

    /// The standard deviation of a column.
    pub fn deviation(&self, column: usize) -> f64 {
        (self.squares[column] / (self.count - 1.0 + EPSILON)).max(0.0).sqrt()
    }

    fn normalised(&self, value: f64, column: usize) -> f64 {
        (value - self.mean[column]) / (self.deviation(column) + EPSILON)
    }
}

/// Statistics by the shape of the projections, `inputs x outputs`.
pub type Lifelong = BTreeMap<String, RunningStatistics>;

/// One weight's change.
#[derive(Clone, Debug)]
pub struct LifelongEdit {
    /// The weight.
    pub weight: WeightId,
    /// `Δ`, `[out, in]`.
    pub delta: Delta,
    /// Values of the solve.
    pub diagnostics: Diagnostics,
}

/// Inputs `[n, in]` and gradients `[n, out]` of a projection.
pub struct Taken {
    /// `h`.
    pub keys: Mat<f64>,
    /// `g`.
    pub gradients: Mat<f64>,
}

/// What all edited projections see of requests: one pass forward and one back for each mini-batch. Rows are the answers' tokens, in the
/// order of the requests. The result has an entry for each mini-batch, with one for each weight.
///
/// # Errors
/// [`EditError::Request`] for prompts that cannot be used; what the device failed at.
pub fn take(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    settings: &LifelongSettings,
) -> Result<Vec<Vec<Taken>>, EditError> {
    if let Some(id) = settings.weights.iter().find(|id| id.module == MlpModule::Bias) {
        return Err(EditError::Mismatch(format!("{id} is a bias, and no projection")));
    }
    for id in &settings.weights {
        EditError::unless_dense(decoder.config(), id.layer, "UltraEdit")?;
    }
    requests.chunks(settings.mini_batch.max(1)).map(|some| take_some(decoder, text, some, settings)).collect()
}

/// A projection's output: what its gradient is taken with respect to, and its input.
struct Leaf {
    at: usize,
    output: Tensor<2>,
    keys: Tensor<2>,
}

fn take_some(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    settings: &LifelongSettings,
) -> Result<Vec<Taken>, EditError> {
    let all_requests: Vec<&EditRequest> = requests.iter().collect();
    let (ids, mut reads) = rows_of(text, decoder, &all_requests, TuneLoss::Target)?;
    // The mean over tokens, whosever they are.
    for read in &mut reads {
        read.weight = 1.0;
    }
    let rows = decoder.rows(&ids);
    let answers = rows.places(reads.iter().map(|r| (r.row, r.position)));
    let predictions = Predictions::new(decoder, &rows, &reads, 1.0 / reads.len() as f32);
    let device = decoder.device();
    let (d, f) = (decoder.config().hidden, decoder.config().feed_forward);
    let count = reads.len();
    let zeros = |size: usize| Tensor::<2>::zeros([count, size], &device).autodiff().require_grad();
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut hidden = decoder.embed(&rows);
    for layer in 0..decoder.config().layers {
        let before = hidden.at(&answers);
        let output = decoder.block(layer, &rows, hidden)?;
        hidden = output.hidden;
        let here = || settings.weights.iter().enumerate().filter(move |(_, id)| id.layer == layer);
        if here().any(|(_, id)| id.module != MlpModule::Down) {
            // Position by position, so that the answers' tokens are enough.
            let after = hidden.at(&answers);
            let attended = after.clone() - decoder.added(layer, output.mlp.at(&answers))? - before.clone();
            let mut inner = Inner::default();
            let input = decoder.feed_forward_input(layer, before.clone(), attended.clone())?.without_autodiff();
            for (at, id) in here().filter(|(_, id)| id.module != MlpModule::Down) {
                let leaf = zeros(f);
                match id.module {
                    MlpModule::Gate => inner.gate = Some(leaf.clone()),
                    _ => inner.up = Some(leaf.clone()),
                }
                leaves.push(Leaf { at, output: leaf, keys: input.clone() });
            }
            let changed = decoder.after_attention(layer, before, attended, inner)?.hidden;
            hidden = hidden.plus(&answers, changed - after);
        }
        for (at, _) in here().filter(|(_, id)| id.module == MlpModule::Down) {
            let leaf = zeros(d);
            let adds = if decoder.config().beyond() == Beyond::Nothing {
                leaf.clone()
            } else {
                let mlp = output.mlp.at(&answers).without_autodiff();
                decoder.added(layer, mlp.clone() + leaf.clone())? - decoder.added(layer, mlp)?
            };
            hidden = hidden.plus(&answers, adds);
            leaves.push(Leaf { at, output: leaf, keys: output.key.at(&answers)?.without_autodiff() });
        }
    }
    let (_, total) = predictions.of(decoder, &hidden)?;
    let mut gradients = total.backward();
    let matrix = |tensor: Tensor<2>| -> Result<Mat<f64>, EditError> {
        let width = tensor.dims()[1];
        let values: Vec<f32> = read(tensor)?;
        Ok(Mat::from_fn(count, width, |i, j| f64::from(values[i * width + j])))
    };
    leaves.sort_by_key(|leaf| leaf.at);
    leaves
        .into_iter()
        .map(|Leaf { output: leaf, keys, .. }| {
            let size = leaf.dims()[1];
            let gradient = leaf.grad_remove(&mut gradients).unwrap_or_else(|| Tensor::zeros([count, size], &device));
            Ok(Taken { keys: matrix(keys)?, gradients: matrix(gradient)? })
        })
        .collect()
}

/// The changes of all edited projections for a round of requests. `lifelong` takes in what the round shows.
///
/// # Errors
/// As [`take`]; [`EditError::Math`] with the layer.
pub fn edit_lifelong(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    settings: &LifelongSettings,
    lifelong: &mut Lifelong,
) -> Result<Vec<LifelongEdit>, EditError> {
    solve_lifelong(&take(decoder, text, requests, settings)?, settings, lifelong)
}

/// As [`edit_lifelong`], of what [`take`] took.
///
/// # Errors
/// [`EditError::Math`] with the layer.
pub fn solve_lifelong(
    taken: &[Vec<Taken>],
    settings: &LifelongSettings,
    lifelong: &mut Lifelong,
) -> Result<Vec<LifelongEdit>, EditError> {
    let shape = |of: &Taken| format!("{}x{}", of.keys.ncols(), of.gradients.ncols());
    let pair = |of: &Taken, i: usize, j: usize| {
        let f = of.keys.ncols();
        if j < f { of.keys[(i, j)] } else { of.gradients[(i, j - f)] }
    };
    for of in taken.iter().flatten() {
        let rows = Mat::from_fn(of.keys.nrows(), of.keys.ncols() + of.gradients.ncols(), |i, j| pair(of, i, j));
        lifelong.entry(shape(of)).or_default().push(&rows);
    }
    let mut edits = Vec::with_capacity(settings.weights.len());
    for (w, &weight) in settings.weights.iter().enumerate() {
        let layer = weight.layer;
        let rows: Vec<(&Taken, usize)> =
            taken.iter().flat_map(|batch| (0..batch[w].keys.nrows()).map(move |i| (&batch[w], i))).collect();
        let Some(&(first, _)) = rows.first() else { return Err(EditError::Mismatch("a round of no request".into())) };
        let (f, d) = (first.keys.ncols(), first.gradients.ncols());
        let seen = &lifelong[&shape(first)];
        let scales: Vec<f64> = rows
            .iter()
            .map(|(of, i)| {
                -settings.learning_rate * (0..f).map(|j| seen.normalised(of.keys[(*i, j)], j).powi(2)).sum::<f64>()
            })
            .collect();
        let keys = Mat::from_fn(f, rows.len(), |j, n| rows[n].0.keys[(rows[n].1, j)]);
        let residual = Mat::from_fn(d, rows.len(), |j, n| {
            let (of, i) = rows[n];
            scales[n] * seen.normalised(of.gradients[(i, j)], f + j)
        });
        let at = |source| EditError::Math { layer, source };
        let identity = Ridge::new(f, PreservationWeights { lambda: 1.0, rho: 0.0 }).map_err(at)?;
        let mu = vec![1.0; rows.len()];
        let problem =
            Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu: &mu, form: Form::Auto };
        let solution = solve(&identity, &problem).map_err(at)?;
        edits.push(LifelongEdit { weight, delta: Delta::from(solution.update), diagnostics: solution.diagnostics });
    }
    Ok(edits)
}
