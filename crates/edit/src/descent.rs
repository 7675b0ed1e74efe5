//! The descent of a target search: the loss of many requests at once, and Adam's steps down from it. See `targets`.

use burn::tensor::{Tensor, TensorData};
use palinode_model::{Activations, Decoder, Run, cat, read};

use crate::EditError;
use crate::losses::{Back, Losses, Preparation, Prepared, TargetLosses};
use crate::prompts::RewritePrompts;
use crate::target::{Step, StepRecord, StopRule, Target, TargetSettings};

/// The likelihood's weight under [`StopRule::Divergence`] once all tokens are said.
const SAID_WEIGHT: f32 = 0.1;
/// `kl_factor · KL` at most where [`StopRule::Divergence`] stops.
const SMALL_DIVERGENCE: f32 = 0.01;

/// Requests that are optimised together, by their searches' names and prompts.
pub struct Together<'a> {
    pub names: Vec<&'a str>,
    pub prompts: Vec<Vec<&'a RewritePrompts>>,
}

/// Optimises the targets of batches, which go through the model's blocks side by side: at most `most` at the same time, and each block is
/// asked for once for all of them, there and back. What a batch finds does not depend on the others.
pub fn descend(
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
        .map(|(prepared, batch)| Ok(Descent::new(prepared?, &batch.names, width, decoder, settings.steps)))
        .collect::<Result<Vec<_>, EditError>>()?;
    // Once there is what a search begins from.
    let decoder = &decoder.clone().with_compute(settings.rules.compute);
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

/// A batch on its way to smaller losses.
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
    /// For at most so many steps. `width` is the size of a request's vectors together.
    fn new(prepared: Prepared, names: &'a [&'a str], width: usize, decoder: &Decoder, steps: usize) -> Self {
        let d = decoder.config().hidden;
        // What a request's row holds beside its target is dropped.
        let target = |h: &[f32]| Target { initial: h[..d].to_vec(), delta: vec![0.0; d], trace: Vec::new() };
        let targets = prepared.initial.chunks_exact(width).map(target).collect();
        let running = Running::new(prepared.losses, &prepared.initial, width, decoder);
        Self { names, targets, running, number: 0, left: None, done: steps == 0 }
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
