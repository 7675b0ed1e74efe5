//! `solve`: targets written into weights.

use std::borrow::Cow;
use std::sync::Arc;

use palinode_edit::{Edit, Preservations, apply};
use palinode_engine::{Artifact, ArtifactKind, DescribeCx, FieldError, Port, StageContext, StageError, StageKind};
use palinode_math::{Objective, ObjectiveKind, Plan, PreservationKind, PreservationWeights, Ridge, RomeKey};
use palinode_model::WeightId;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::artifacts::factors::{FACTORS, metrics, mismatch};
use crate::artifacts::model::{Facts, MODEL, UPDATE, base_digest, file, open};
use crate::artifacts::moments::{MISSING, MOMENTS, layers};
use crate::artifacts::update::{Batch, BatchFacts, artifact};
use crate::edit::targets::{TARGETS, TargetsParams, values};
use crate::errors::StageFailure;
use crate::sources::load_requests::{REQUESTS, requests};
use crate::sources::templates::at_port;

/// Parameters of `solve`, as they are written.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// How a layer absorbs its part of an edit.
    objective: ObjectiveKind,
    /// λ, the weight of preservation (mom2_update_weight). An equality constraint without a ridge does not depend on it.
    #[serde(default = "unit")]
    lambda: f64,
    /// ρ, a ridge on the norm of the update.
    #[serde(default)]
    update_norm_lambda: f64,
    /// What the preservation metric is made of. `ridge` needs nothing at the `moments` port, and ignores what is there.
    #[serde(default)]
    preservation: PreservationKind,
    /// ε, added to EMMET's system where a batch holds more than one edit; EMMET(λ, ε) is MEMIT(ελ). Other objectives ignore
    /// it.
    #[serde(default)]
    emmet_lambda: f64,
    /// The key that ROME uses. Other objectives ignore it.
    #[serde(default)]
    rome_key: RomeKey,
    /// Requests in a batch. Every batch is edited onto the unedited model. The default is one batch of all requests; ROME
    /// edits one request at a time.
    #[serde(default)]
    batch_size: Option<usize>,
}

fn unit() -> f64 {
    1.0
}

/// Parameters of `solve`, without those that the objective ignores: what does not matter must not be in a key.
#[derive(Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct SolveParams {
    objective: ObjectiveKind,
    lambda: f64,
    update_norm_lambda: f64,
    /// Left out where it is the one that there was before there were others, so that keys stay as they were.
    #[serde(skip_serializing_if = "by_moments")]
    preservation: PreservationKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    emmet_lambda: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rome_key: Option<RomeKey>,
    batch_size: Option<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn by_moments(preservation: &PreservationKind) -> bool {
    *preservation == PreservationKind::Moments
}

impl From<Written> for SolveParams {
    fn from(written: Written) -> Self {
        let objective = written.objective;
        Self {
            objective,
            lambda: written.lambda,
            update_norm_lambda: written.update_norm_lambda,
            preservation: written.preservation,
            emmet_lambda: (objective == ObjectiveKind::Emmet).then_some(written.emmet_lambda),
            rome_key: (objective == ObjectiveKind::Rome).then_some(written.rome_key),
            batch_size: written.batch_size.or((objective == ObjectiveKind::Rome).then_some(1)),
        }
    }
}

impl JsonSchema for SolveParams {
    fn schema_name() -> Cow<'static, str> {
        "SolveParams".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

impl SolveParams {
    /// The objective.
    pub fn objective(&self) -> Objective {
        Objective::new(self.objective, self.emmet_lambda.unwrap_or(0.0), self.rome_key.unwrap_or_default())
    }

    /// The weight of the MEMIT that this objective is, where it is one.
    pub fn effective_lambda(&self) -> Option<(String, Value)> {
        let lambda = self.objective().effective_lambda(self.lambda)?;
        Some(("effective_lambda".to_owned(), json!(lambda)))
    }

    /// λ and ρ.
    pub fn weights(&self) -> PreservationWeights {
        PreservationWeights { lambda: self.lambda, rho: self.update_norm_lambda }
    }

    /// Whether the metric is made of second moments.
    pub fn needs_moments(&self) -> bool {
        self.preservation == PreservationKind::Moments
    }

    /// The metric of some layers, with keys of size `f`, of the model `base`.
    pub fn metrics(
        &self,
        cx: &StageContext,
        base: &Artifact,
        layers: &[usize],
        f: usize,
    ) -> Result<Preservations, StageError> {
        match self.preservation {
            PreservationKind::Moments => {
                let moments = cx.input("moments")?;
                same_model(base, moments, "second moments")?;
                metrics(cx, moments, layers, self.weights())
            }
            PreservationKind::Ridge => {
                let ridge = Arc::new(Ridge::new(f, self.weights()).map_err(StageFailure::stage)?);
                Ok(layers.iter().map(|&layer| (WeightId::down(layer), Arc::clone(&ridge) as _)).collect())
            }
        }
    }

    /// Mistakes of what the metric is made of, which the `moments` port shows.
    pub fn check_moments(&self, stage: &str, cx: &DescribeCx<'_>) -> Vec<FieldError> {
        if !self.needs_moments() {
            return Vec::new();
        }
        if !cx.connected("moments") {
            return vec![
                FieldError::new("", format!("`{stage}` needs the input `moments`"))
                    .expected("`moments:` and a stage that yields `moments` or `factors`, or `preservation: ridge`")
                    .hint("with `preservation: ridge` the edit preserves no corpus, and needs no second moments"),
            ];
        }
        mismatch(cx.input("moments"), self.weights()).into_iter().collect()
    }

    /// Requests in a batch, of so many.
    pub fn batch_size(&self, of: usize) -> usize {
        self.batch_size.unwrap_or(of).max(1)
    }

    /// Mistakes that parameters alone show.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut number = |name: &str, value: f64, zero: bool| {
            if !(value.is_finite() && (value > 0.0 || (zero && value == 0.0))) {
                let expected = if zero { "0 or above" } else { "a number above 0" };
                errors.push(FieldError::new(name, format!("`{name}` is {value}")).expected(expected));
            }
        };
        number("lambda", self.lambda, false);
        number("update_norm_lambda", self.update_norm_lambda, true);
        number("emmet_lambda", self.emmet_lambda.unwrap_or(0.0), true);
        match self.batch_size {
            Some(0) => errors.push(FieldError::new("batch_size", "`batch_size` is 0").expected("1 or more")),
            Some(size) if size > 1 && self.objective == ObjectiveKind::Rome => errors.push(
                FieldError::new("batch_size", format!("rome edits one fact at a time, but `batch_size` is {size}"))
                    .expected("1, or no `batch_size`")
                    .hint("emmet is rome's constraint for a batch"),
            ),
            _ => {}
        }
        errors
    }
}

/// See [`StageKind::DOC`].
pub struct Solve;

impl StageKind for Solve {
    type Params = SolveParams;
    const NAME: &'static str = "solve";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Writes targets into weights: rome, memit or emmet, with any plan.";
    const DOC: &'static str = "\
Changes the down-projections of the plan's layers. After the change, each request's key yields its target, and the layer \
computes nearly the same as before for the keys of the corpus. With P = λC + ρI, keys K and residuals R,

  Δ = R (KᵀP⁻¹K + diag μ)⁻¹ KᵀP⁻¹

where μ = 0 is ROME (one edit) and EMMET (a batch), μ = 1 is MEMIT, and μ = ε is EMMET with `emmet_lambda`, which equals \
MEMIT with the weight ελ. A request's own `strength` replaces the objective's μ. With `preservation: ridge` there are no second \
moments: P is (λ + ρ)I, the change has the smallest norm that does the edit, and nothing keeps it away from what the corpus \
uses. That is a baseline, and a way to edit without a corpus.

`batch_size` splits the requests. Every batch is edited onto the unedited model and evaluated alone, as in the papers. The \
result is an edited model, which can be evaluated and exported. It holds the changes as low-rank factors, never as whole \
weights.";
    const OUTPUT: ArtifactKind = UPDATE;

    fn inputs() -> Vec<Port> {
        let port = |name, accepts, doc| Port { name, accepts, required: true, doc };
        vec![
            port("model", &[MODEL] as &[_], "The unedited model."),
            port("requests", &["requests"], "The facts to write."),
            Port {
                required: false,
                ..port(
                    "moments",
                    &[MOMENTS, FACTORS],
                    "Second moments of every layer in the plan, or their factors; `preservation: ridge` needs none.",
                )
            },
            port("targets", &[TARGETS], "Values at the plan's last layer."),
            port("plan", &["plan"], "Which layers absorb which part."),
            Port { required: false, ..port("templates", &["templates"], "Contexts over which keys are averaged.") },
        ]
    }

    fn describe(params: &SolveParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let mut errors = params.check();
        errors.extend(params.check_moments(Self::NAME, cx));
        errors.extend(check_plan(params, cx));
        if let (Some(plan), Some(layer)) = (planned(cx), cx.input("targets")["layer"].as_u64())
            && layer as usize != plan.target_layer
        {
            errors.push(target_layer_off(layer as usize, &plan));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let requests = cx.input("requests")["requests"].as_u64();
        let batches = requests.map(|n| params.batch_size.map_or(1, |size| (n as usize).div_ceil(size)));
        Ok(json!({ "model": cx.input("model")["model"], "batches": batches }))
    }

    fn run(params: &SolveParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let base = cx.input("model")?;
        let targets = cx.input("targets")?;
        let asked = cx.input("requests")?;
        same_model(base, targets, "targets")?;
        if targets.meta["asked"] != json!(file(asked, REQUESTS)?.digest) {
            return Err(StageError::input("the targets were found for other requests")
                .hint("connect `targets` and `solve` to the same requests"));
        }
        let model = open(cx, base)?;
        let requests = requests(cx, asked)?;
        let templates = at_port(cx, "templates")?;
        let plan = crate::edit::distribute::plan(&cx.input("plan")?.meta)?;
        let found_with: TargetsParams = serde_json::from_value(targets.meta["with"].clone())
            .map_err(|error| StageError::internal(format!("stored targets: {error}")))?;
        let d = model.decoder.config().hidden;
        let values = values(cx, targets)?;
        let edited: Vec<usize> = plan.steps.iter().map(|step| step.layer).collect();
        let metrics = params.metrics(cx, base, &edited, model.decoder.config().feed_forward)?;
        let fractions: Vec<f64> = plan.steps.iter().map(|step| step.fraction).collect();
        let objective = params.objective();
        let edit = Edit {
            objective,
            plan: &plan,
            templates: &templates,
            targets: found_with.settings(),
            parallel_requests: found_with.parallel_requests(&model.decoder),
            tokens: 4096,
        };
        let size = params.batch_size(requests.len());
        let bar = cx.progress("requests", Some(requests.len() as u64));
        let mut batches = Vec::new();
        for (b, batch) in requests.chunks(size).enumerate() {
            cx.check_interrupt()?;
            let start = b * size;
            let end = start + batch.len();
            let edits = apply(&model.decoder, &model.text, batch, &values[start * d..end * d], &metrics, &edit)
                .map_err(StageFailure::stage)?;
            batches.push(Batch::of(start, end, edits, &fractions));
            bar.inc(batch.len() as u64);
        }
        let mut made = artifact(cx, base, &batches)?;
        let mut averages = averages(&batches);
        averages.extend(params.effective_lambda());
        made.meta = json!({
            "model": base.meta["model"],
            "base": base_digest(base),
            "asked": targets.meta["asked"],
            "requests": requests.iter().map(|r| &r.id).collect::<Vec<_>>(),
            "objective": params,
            "plan": plan,
            "batches": batches.len(),
            "metrics": averages,
            "columns": columns(),
        });
        Ok(made)
    }
}

/// How the objective's values are shown.
pub fn columns() -> Value {
    json!([
                { "name": "preservation", "label": "preservation", "format": "number", "better": "min" },
                { "name": "error_after", "label": "‖ΔK−R‖", "format": "number", "better": "min" },
                { "name": "distance_before", "label": "‖z−h‖ before", "format": "number" },
                { "name": "distance_after", "label": "after", "format": "number", "better": "min" },
                { "name": "norm", "label": "‖Δ‖", "format": "number" },
                { "name": "relative_norm", "label": "‖Δ‖/‖W‖", "format": "percent" },
                { "name": "condition", "label": "condition", "format": "number" },
                { "name": "effective_lambda", "label": "effective λ", "format": "number" },
    ])
}

fn planned(cx: &DescribeCx<'_>) -> Option<Plan> {
    serde_json::from_value(cx.input("plan")["plan"].clone()).ok()
}

/// Mistakes that the plan shows beside the model and the second moments.
pub fn check_plan(params: &SolveParams, cx: &DescribeCx<'_>) -> Vec<FieldError> {
    let Some(plan) = planned(cx) else { return Vec::new() };
    let mut errors = Vec::new();
    if let Some(facts) = Facts::at(cx, "model") {
        let edited: Vec<usize> = plan.steps.iter().map(|step| step.layer).collect();
        errors.extend(facts.check_layers(&edited, |_| String::new()));
    }
    if let Some(have) = layers(cx.input("moments")).filter(|_| params.needs_moments()) {
        for step in plan.steps.iter().filter(|step| !have.contains(&step.layer)) {
            let message = format!("there is no second moment of layer {}, which the plan edits", step.layer);
            errors.push(FieldError::new("", message).hint(MISSING));
        }
    }
    errors
}

/// Targets at another layer than the plan's last.
pub fn target_layer_off(layer: usize, plan: &Plan) -> FieldError {
    let message =
        format!("the targets are values at layer {layer}, but the plan wants them at layer {}", plan.target_layer);
    FieldError::new("", message).hint(if plan.retargets() {
        "set `layer` of the targets to the first of the plan's `layers`"
    } else {
        "set `layer` of the targets to the last of the plan's `layers`"
    })
}

/// Fails unless something was measured on this model.
pub fn same_model(model: &Artifact, other: &Artifact, what: &str) -> Result<(), StageError> {
    if other.meta["base"] == json!(base_digest(model)) {
        return Ok(());
    }
    Err(StageError::input(format!("the {what} were measured on another model"))
        .hint("connect every `model` port of the pipeline to the same stage"))
}

/// Values of the objective, averaged over batches. Costs and norms add up over a batch's layers (norms as the root of the sum
/// of squares); the error is what the last step left of its part; the distances are measured at the targets' layer.
pub fn averages(batches: &[Batch]) -> Map<String, Value> {
    type Value<'a> = &'a dyn Fn(&BatchFacts) -> Option<f64>;
    let mut metrics = Map::new();
    let mut put = |name: &str, value: Value<'_>| {
        // What one of the batches cannot tell has no mean.
        if let Some(sum) = batches.iter().map(|batch| value(&batch.facts)).sum::<Option<f64>>() {
            metrics.insert(name.to_owned(), json!(sum / batches.len().max(1) as f64));
        }
    };
    let most = |values: Option<Vec<f64>>| Some(values?.into_iter().fold(0.0, f64::max));
    put("preservation", &|batch| batch.layers.iter().map(|l| l.preservation).sum());
    put("error_after", &|batch| batch.layers.last().map_or(Some(0.0), |l| l.error_after));
    put("norm", &|batch| Some(batch.layers.iter().map(|l| l.norm.powi(2)).sum::<f64>().sqrt()));
    put("relative_norm", &|batch| most(Some(batch.layers.iter().map(|l| l.relative_norm).collect())));
    put("condition", &|batch| most(batch.layers.iter().map(|l| l.condition).collect()));
    put("distance_before", &|batch| batch.distance_before);
    put("distance_after", &|batch| batch.distance_after);
    metrics
}
