//! An objective and a plan turned into changes of weights.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use palinode_data::{ContextTemplates, EditRequest};
use palinode_math::{
    Delta, Diagnostics, Form, LowRank, Mat, MathError, Objective, Plan, Preservation, Problem, RomeKey, Solution,
    System, from_row_major, mean_column_norm, solve,
};
use palinode_model::{Beyond, Decoder, DecoderConfig, MlpModule, ModelError, Text, WeightId, read};

use crate::{EditError, Prompt, Site, Tap, TargetSettings, optimise_at_most, probe, prompts, searches};

/// The preservation metric of every edited layer's down-projection, over that layer's keys: of a mixture of experts, those of all experts.
pub type Preservations = BTreeMap<WeightId, Arc<dyn Preservation>>;

/// What to do to a batch of requests.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    /// How one layer absorbs its residual.
    pub objective: Objective,
    /// Which layers absorb which part.
    pub plan: &'a Plan,
    /// Context templates over which keys are averaged.
    pub templates: &'a ContextTemplates,
    /// How targets are found, for plans whose later steps find their own; the site is where the given ones are values.
    pub targets: TargetSettings,
    /// Requests whose targets are searched for at the same time; changes nothing but the use of cores and memory.
    pub parallel_requests: usize,
    /// Bound on a batch's rectangle of tokens.
    pub tokens: usize,
}

/// One weight's change.
#[derive(Clone, Debug)]
pub struct LayerEdit {
    /// The weight.
    pub weight: WeightId,
    /// `Δ`, `[d, f]`.
    pub delta: Delta,
    /// Values of the objective.
    pub diagnostics: Diagnostics,
    /// `‖W‖_F` before the change.
    pub weight_norm: f64,
    /// The layer's part of the residual that stood.
    pub fraction: f64,
    /// What the solve left, to tell the change without some of the edits.
    pub system: System,
}

/// A batch of edits.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The layers' changes, in the order of the plan; of a mixture of experts, one for each expert that a key is routed to.
    pub layers: Vec<LayerEdit>,
    /// `K`, `f × B`, of each layer, as it was measured for its step, averaged over templates. Requests that share a column have their mean.
    /// The weight is the layer's down-projection, all experts together.
    pub keys: Vec<(WeightId, Mat<f64>)>,
    /// Mean `‖z − h‖` over requests, at the bare prompt, before any change.
    pub distance_before: f64,
    /// The same after the last change, for the targets that it aimed at.
    pub distance_after: f64,
    /// Requests that say the same as an earlier one, with that one, by index: hard constraints are imposed once.
    pub repeated: Vec<(usize, usize)>,
    /// The requests of each column of the systems, by index. Several where they share a key and a target.
    pub columns: Vec<Vec<usize>>,
    /// `μ` of each column.
    pub mu: Vec<f64>,
}

/// Edits a batch of requests onto `decoder`, which stays as it is. `targets` are the values `z`, `[requests, d]`
/// row-major; `metrics` has the preservation metric of every layer in the plan.
///
/// # Errors
/// [`EditError::Mismatch`] where inputs do not belong together, [`EditError::Math`] with the layer.
pub fn apply(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    targets: &[f32],
    metrics: &Preservations,
    edit: &Edit<'_>,
) -> Result<Applied, EditError> {
    let config = decoder.config();
    let (d, batch) = (config.hidden, requests.len());
    let last = edit.plan.target_layer;
    config.check_layer(last)?;
    // Where a norm stands between a projection and the hidden state, the layers' outputs are no parts of one sum.
    if let (Beyond::Norm, Some((layer, aim))) = (config.beyond(), edit.plan.passed_on()) {
        return Err(EditError::BehindNorm { family: config.family.name().to_owned(), layer, aim });
    }
    let at = |layer: usize| move |source: MathError| EditError::Math { layer, source };
    let mut aim = last;
    let mut values = from_row_major("targets", targets, batch, d).map_err(at(last))?.transpose().to_owned();
    let strengths: Vec<Option<f64>> = requests.iter().map(|r| r.strength).collect();
    let mu = edit.objective.mu(&strengths).map_err(at(last))?;
    let rows = Rows::new(text, decoder, requests, edit)?;
    let (columns, repeated) = columns_of(requests, &mu, edit.targets.rules.merge);

    let site = Site::of_target(edit.targets.site, config);
    let missing = |model: &Decoder, layer: usize, values: &Mat<f64>| -> Result<Mat<f64>, EditError> {
        let now = probe(model, &rows.bare(), &[Tap { layer, site }], edit.tokens)?.remove(0);
        let now = from_row_major("current values", &now, batch, d).map_err(at(layer))?;
        Ok(values - now.transpose())
    };
    let mut edited = decoder.clone();
    let mut residual = missing(&edited, aim, &values)?;
    let distance_before = mean_column_norm(residual.as_ref());
    let later: Vec<Tap> = edit
        .plan
        .steps
        .iter()
        .filter(|step| step.refresh.forward)
        .map(|step| step.layer)
        .map(|layer| Tap { layer, site })
        .collect();
    let mut forward = injected(decoder, &rows.bare(), (aim, site), &residual, &later, edit.tokens)?.into_iter();
    let mut taken = 0.0;
    let mut layers = Vec::with_capacity(edit.plan.steps.len());
    let mut all_keys = Vec::with_capacity(edit.plan.steps.len());
    for (i, step) in edit.plan.steps.iter().enumerate() {
        let layer = step.layer;
        let weight = WeightId::down(layer);
        let metric = metrics
            .get(&weight)
            .ok_or_else(|| EditError::Mismatch(format!("there is no preservation metric of layer {layer}")))?;
        let (average, bare) = rows.keys(if step.refresh.keys { &edited } else { decoder }, layer, edit.tokens)?;
        if step.refresh.targets {
            let own =
                found(&edited, text, requests, &Edit { targets: TargetSettings { layer, ..edit.targets }, ..*edit })?;
            values = from_row_major("targets", &own, batch, d).map_err(at(layer))?.transpose().to_owned();
            aim = layer;
            residual = missing(&edited, aim, &values)?;
        } else if step.refresh.forward {
            let own = forward.next().ok_or_else(|| EditError::Mismatch("a step without its targets".into()))?;
            values = from_row_major("targets", &own, batch, d).map_err(at(layer))?.transpose().to_owned();
            aim = layer;
            residual = missing(&edited, aim, &values)?;
        } else if i > 0 && step.refresh.residual {
            residual = missing(&edited, aim, &values)?;
        } else {
            // Not measured again: what the step before took is taken to be done.
            residual = Mat::from_fn(d, batch, |r, c| (1.0 - taken) * residual[(r, c)]);
        }
        taken = step.fraction;
        // What stands between the projection and where the residual was measured.
        let multiplier = site.multiplier(config);
        let share = Mat::from_fn(d, batch, |r, c| step.fraction * residual[(r, c)] / multiplier);
        let (keys, direction) = match edit.objective {
            Objective::Rome { key: RomeKey::Bare } => (&bare, None),
            Objective::Rome { key: RomeKey::Reference } => (&bare, Some(average.as_ref())),
            _ => (&average, None),
        };
        let problem = Problem { keys: keys.as_ref(), direction, residual: share.as_ref(), mu: &mu, form: Form::Auto };
        let solution = if columns.len() == batch {
            solve(metric.as_ref(), &problem)
        } else {
            let of = |all: &Mat<f64>| mean_columns(all, &columns);
            let (keys, share) = (of(keys), of(&share));
            let mu: Vec<f64> = columns.iter().map(|of| mu[of[0]]).collect();
            // Only ROME has a direction, and one edit.
            solve(metric.as_ref(), &Problem { keys: keys.as_ref(), residual: share.as_ref(), mu: &mu, ..problem })
        };
        let solution = solution.map_err(|e| name_edits(e, config, layer, requests, &columns))?;
        let made = changes_of(&edited, layer, &solution, metric.as_ref(), step.fraction)?;
        edited = with_edits(&edited, made.iter().map(|edit| (edit.weight, &edit.delta)))?;
        layers.extend(made);
        all_keys.push((weight, if columns.len() == batch { average } else { mean_columns(&average, &columns) }));
    }
    let distance_after = mean_column_norm(missing(&edited, aim, &values)?.as_ref());
    let mu = columns.iter().map(|of| mu[of[0]]).collect();
    let mut columns = columns;
    for &(later, earlier) in &repeated {
        columns.iter_mut().filter(|of| of[0] == earlier).for_each(|of| of.push(later));
    }
    Ok(Applied { layers, keys: all_keys, distance_before, distance_after, repeated, columns, mu })
}

/// What a layer's solve changes, weight by weight: its down-projection, or those of the experts that a key is routed to.
fn changes_of(
    edited: &Decoder,
    layer: usize,
    solution: &Solution,
    metric: &dyn Preservation,
    fraction: f64,
) -> Result<Vec<LayerEdit>, EditError> {
    let of = |weight: WeightId, update: LowRank, diagnostics: Diagnostics| -> Result<LayerEdit, EditError> {
        let before = edited.weight(weight)?;
        // A sum for each row, and those in f64: a weight has millions of numbers.
        let squares = read::<f32, _, _>((before.clone() * before).sum_dim(1))?;
        let weight_norm = squares.into_iter().map(f64::from).sum::<f64>().sqrt();
        let (delta, system) = (Delta::from(update), solution.system.clone());
        Ok(LayerEdit { weight, delta, diagnostics, weight_norm, fraction, system })
    };
    let Some(experts) = edited.config().mixture(layer) else {
        return Ok(vec![of(WeightId::down(layer), solution.update.clone(), solution.diagnostics)?]);
    };
    let parts = experts.ids().zip(experts.parts());
    let changed = parts.filter_map(|(id, range)| Some((id, solution.part(metric, range)?)));
    changed.map(|(id, (update, diagnostics))| of(WeightId::of_expert(layer, id), update, diagnostics)).collect()
}

/// The keys that [`apply`] measured for an edit whose changes are known, in the order of the plan: of each weight `[f, columns]`, as in
/// [`Applied::keys`]. `decoder` is the model that was edited.
///
/// # Errors
/// As [`apply`].
pub fn keys_of(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    changes: &[(WeightId, Delta)],
    edit: &Edit<'_>,
) -> Result<Vec<(WeightId, Mat<f64>)>, EditError> {
    let strengths: Vec<Option<f64>> = requests.iter().map(|r| r.strength).collect();
    let at = edit.plan.target_layer;
    let mu = edit.objective.mu(&strengths).map_err(|source| EditError::Math { layer: at, source })?;
    let rows = Rows::new(text, decoder, requests, edit)?;
    let (columns, _) = columns_of(requests, &mu, edit.targets.rules.merge);
    let mut edited = decoder.clone();
    let mut found = Vec::with_capacity(changes.len());
    for step in &edit.plan.steps {
        let layer = step.layer;
        decoder.config().check_layer(layer)?;
        EditError::unless_dense(decoder.config(), layer, "an edit")?;
        let weight = WeightId::down(layer);
        let (_, delta) = changes
            .iter()
            .find(|(of, _)| *of == weight)
            .ok_or_else(|| EditError::Mismatch(format!("there is no change of layer {layer}")))?;
        let (average, _) = rows.keys(if step.refresh.keys { &edited } else { decoder }, layer, edit.tokens)?;
        edited = with_edits(&edited, std::iter::once((weight, delta)))?;
        found.push((weight, if columns.len() == requests.len() { average } else { mean_columns(&average, &columns) }));
    }
    Ok(found)
}

/// The requests of each column of the system, and those that repeat an earlier one.
fn columns_of(requests: &[EditRequest], mu: &[f64], merge: bool) -> (Vec<Vec<usize>>, Vec<(usize, usize)>) {
    if merge {
        return (searches(requests, true), Vec::new());
    }
    let (once, repeated) = once(requests, mu);
    (once.into_iter().map(|request| vec![request]).collect(), repeated)
}

/// Activations of every tap at the prompts' fact tokens, with `added` `d × B` added to the `site` of `layer` there: one row-major
/// `[prompts, d]` a tap, all of them above `layer`.
fn injected(
    decoder: &Decoder,
    prompts: &[Prompt],
    (layer, site): (usize, Site),
    added: &Mat<f64>,
    taps: &[Tap],
    tokens: usize,
) -> Result<Vec<Vec<f32>>, EditError> {
    let d = decoder.config().hidden;
    let mut found = vec![vec![0f32; prompts.len() * d]; taps.len()];
    let Some(last) = taps.iter().map(|tap| tap.layer).max() else { return Ok(found) };
    let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.ids.len()).collect();
    for group in decoder.batches(&lengths, tokens) {
        let ids: Vec<&[u32]> = group.iter().map(|&i| prompts[i].ids.as_slice()).collect();
        let rows = decoder.rows(&ids);
        let facts = rows.places(group.iter().enumerate().map(|(row, &i)| (row, prompts[i].fact)));
        let change: Vec<f32> = group.iter().flat_map(|&i| (0..d).map(move |r| added[(r, i)] as f32)).collect();
        let change = Tensor::<2>::from_data(TensorData::new(change, [group.len(), d]), &decoder.device());
        let mut hidden = decoder.embed(&rows);
        for at in 0..=last {
            let output = decoder.block(at, &rows, hidden)?;
            for (tap, all) in taps.iter().zip(&mut found).filter(|(tap, _)| tap.layer == at) {
                let values: Vec<f32> = read(tap.site.at(&output, &facts)?)?;
                for (row, &i) in values.chunks_exact(d).zip(&group) {
                    all[i * d..][..d].copy_from_slice(row);
                }
            }
            hidden = if at == layer {
                let change = match site {
                    Site::MlpOutput => {
                        let mlp = output.mlp.at(&facts);
                        decoder.added(at, mlp.clone() + change.clone())? - decoder.added(at, mlp)?
                    }
                    _ => change.clone(),
                };
                output.hidden.plus(&facts, change)
            } else {
                output.hidden
            };
        }
    }
    Ok(found)
}

/// The mean of each group of columns, `[rows, groups]`.
fn mean_columns(all: &Mat<f64>, groups: &[Vec<usize>]) -> Mat<f64> {
    Mat::from_fn(all.nrows(), groups.len(), |r, g| {
        groups[g].iter().map(|&c| all[(r, c)]).sum::<f64>() / groups[g].len() as f64
    })
}

/// The requests that are solved for, and those that repeat one of them: a constraint that is imposed twice makes the system singular, and
/// says nothing that it does not say once. Of soft requests each counts, as in least squares.
fn once(requests: &[EditRequest], mu: &[f64]) -> (Vec<usize>, Vec<(usize, usize)>) {
    let mut first = BTreeMap::new();
    let (mut once, mut repeated) = (Vec::new(), Vec::new());
    for (i, request) in requests.iter().enumerate() {
        let target = request.continuation(&request.filled_prompt(), &request.target_new);
        let earlier = *first.entry((&request.prompt, &request.subject, target, mu[i] > 0.0)).or_insert(i);
        if earlier != i && mu[i] == 0.0 { repeated.push((i, earlier)) } else { once.push(i) }
    }
    (once, repeated)
}

/// Targets found on the model as it stands, `[requests, d]` row-major.
fn found(decoder: &Decoder, text: &Text, requests: &[EditRequest], edit: &Edit<'_>) -> Result<Vec<f32>, EditError> {
    let found =
        optimise_at_most(decoder, text, requests, edit.templates, &edit.targets, edit.parallel_requests, |_| {})?;
    Ok(found.iter().flat_map(crate::Target::value).collect())
}

/// The model with changes added to its weights, in the order given.
///
/// # Errors
/// [`ModelError::Weight`] for a weight that the model does not have; what reading a streamed block failed at.
pub fn with_edits<'a>(
    decoder: &Decoder,
    edits: impl IntoIterator<Item = (WeightId, &'a Delta)>,
) -> Result<Decoder, ModelError> {
    let config = decoder.config();
    let mut model = decoder.clone();
    // Experts of a layer lie side by side in one weight, which is changed once for several of them: up to the second change of one of them, so
    // that numbers are rounded after each change, as those of other weights are. By where an expert's rows begin.
    let mut waiting: BTreeMap<usize, BTreeMap<usize, &Delta>> = BTreeMap::new();
    for (weight, delta) in edits {
        let Some(rows) = rows_of_expert(config, weight) else {
            let change = tensor(&model, delta);
            model = model.with_change(weight, change)?;
            continue;
        };
        let [out, input] = [config.hidden, rows.len()];
        if delta.shape() != [out, input] {
            let (name, found) = (format!("the change of {weight}"), delta.shape().to_vec());
            return Err(ModelError::Shape { name, expected: vec![out, input], found });
        }
        let layer = waiting.entry(weight.layer).or_default();
        if layer.contains_key(&rows.start) {
            model = with_experts(&model, weight.layer, &std::mem::take(layer))?;
        }
        layer.insert(rows.start, delta);
    }
    for (layer, changes) in waiting {
        model = with_experts(&model, layer, &changes)?;
    }
    Ok(model)
}

/// Where the down-projection of an expert lies in the weight of all of them.
fn rows_of_expert(config: &DecoderConfig, weight: WeightId) -> Option<Range<usize>> {
    let experts = config.mixture(weight.layer).filter(|_| weight.module == MlpModule::Down)?;
    experts.parts().get(experts.part(weight.expert?)?).cloned()
}

/// The model with changes of some experts of a layer, by where their rows begin.
fn with_experts(model: &Decoder, layer: usize, changes: &BTreeMap<usize, &Delta>) -> Result<Decoder, ModelError> {
    let shape = [model.config().key_size(layer), model.config().hidden];
    let mut values = vec![0f32; shape[0] * shape[1]];
    for (&start, delta) in changes {
        let own = delta.transposed_f32();
        values[start * shape[1]..][..own.len()].copy_from_slice(&own);
    }
    model.with_change(WeightId::down(layer), Tensor::from_data(TensorData::new(values, shape), &model.device()))
}

/// `Δᵀ`, `[in, out]` in f32, on the model's device.
fn tensor(decoder: &Decoder, delta: &Delta) -> Tensor<2> {
    let [out, input] = delta.shape();
    Tensor::from_data(TensorData::new(delta.transposed_f32(), [input, out]), &decoder.device())
}

fn name_edits(
    error: MathError,
    config: &DecoderConfig,
    layer: usize,
    requests: &[EditRequest],
    columns: &[Vec<usize>],
) -> EditError {
    if let (MathError::Part { part, tokens, size }, Some(experts)) = (&error, config.mixture(layer)) {
        let (expert, hint) = (experts.id(*part).words(), error.hint());
        return EditError::Expert { layer, expert, tokens: *tokens, size: *size, hint };
    }
    let named = match &error {
        MathError::Collision { pairs } => pairs.first().copied(),
        _ => None,
    };
    let Some((a, b, cosine)) = named else { return EditError::Math { layer, source: error } };
    let name = |column: usize| {
        let request = &requests[columns[column][0]];
        format!("{} ({:?})", request.id, request.filled_prompt())
    };
    EditError::Collision { layer, first: name(a), second: name(b), cosine, hint: error.hint() }
}

/// Prompts of every request in every context, the bare one first.
struct Rows {
    prompts: Vec<Prompt>,
    /// Of each request, the weights of its contexts in their average.
    weights: Vec<Vec<f64>>,
}

impl Rows {
    fn new(text: &Text, decoder: &Decoder, requests: &[EditRequest], edit: &Edit<'_>) -> Result<Self, EditError> {
        let (mut prompts, mut weights) = (Vec::new(), Vec::with_capacity(requests.len()));
        for request in requests {
            let contexts = prompts::contexts(request, edit.templates);
            for (context, _) in &contexts {
                prompts.push(prompts::prompt_at(text, decoder.config(), request, context, edit.targets.fact_token)?);
            }
            weights.push(contexts.into_iter().map(|(_, weight)| weight).collect());
        }
        Ok(Self { prompts, weights })
    }

    /// The first prompt of each request.
    fn firsts(&self) -> Vec<usize> {
        let next = |at: &mut usize, weights: &Vec<f64>| {
            *at += weights.len();
            Some(*at - weights.len())
        };
        self.weights.iter().scan(0, next).collect()
    }

    fn bare(&self) -> Vec<Prompt> {
        self.firsts().into_iter().map(|first| self.prompts[first].clone()).collect()
    }

    /// Keys averaged over templates, and keys of the bare prompts; both `f × B`.
    fn keys(&self, decoder: &Decoder, layer: usize, tokens: usize) -> Result<(Mat<f64>, Mat<f64>), EditError> {
        let f = decoder.config().key_size(layer);
        let all = probe(decoder, &self.prompts, &[Tap { layer, site: Site::Key }], tokens)?.remove(0);
        let firsts = self.firsts();
        let at = |i: usize, b: usize, t: usize| f64::from(all[(firsts[b] + t) * f + i]);
        let batch = firsts.len();
        let average =
            Mat::from_fn(f, batch, |i, b| self.weights[b].iter().enumerate().map(|(t, w)| w * at(i, b, t)).sum());
        Ok((average, Mat::from_fn(f, batch, |i, b| at(i, b, 0))))
    }
}
