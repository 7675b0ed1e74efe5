//! `targets`: the values that edits should write.

use palinode_edit::{StepRecord, TARGETS_IN_UNIT, TargetSettings, TargetSite, target_batch};
use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, FieldError, Port, Renames, StageContext, StageError, StageKind, UnitPlan,
};
use palinode_model::{Decoder, is_cpu};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::model::{Facts, MODEL, base_digest, file, open};
use crate::artifacts::tensors::{Named, Tensors, put};
use crate::edit::batch_limits;
use crate::edit::target_cache::{Kept, TargetCache};
use crate::sources::load_requests::requests;
use crate::sources::templates::at_port;

/// The kind of the artifact.
pub const TARGETS: &str = "targets";
/// The logical name of the values.
const VALUES: &str = "targets.safetensors";
/// The logical name of the losses.
pub const TRACES: &str = "traces.json";

/// Parameters of `targets`; the names in brackets are those of the published hyperparameter files.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetsParams {
    /// The place in the model where the target is a value.
    #[serde(default = "block_output")]
    site: TargetSite,
    /// The layer, which has to be the last one of the plan.
    layer: usize,
    /// Evaluations of the loss (v_num_grad_steps); the last one makes no update.
    #[serde(default = "twenty")]
    steps: usize,
    /// Adam's step size (v_lr).
    #[serde(default = "half")]
    learning_rate: f64,
    /// Weight of the KL term, which preserves the predictions after "{subject} is a" (kl_factor).
    #[serde(default = "sixteenth")]
    kl_factor: f64,
    /// Weight of the term that keeps the change small (v_weight_decay).
    #[serde(default = "half")]
    weight_decay: f64,
    /// Upper bound of ‖δ‖/‖h₀‖ (clamp_norm_factor).
    #[serde(default = "three_quarters")]
    clamp: f64,
    /// The search for a target stops when its loss falls below this value.
    #[serde(default = "stop_loss")]
    stop_loss: f64,
    /// Requests that are optimised at the same time, at most: bounds memory. Batches are of up to 8 requests on a CPU and of up to 64 on a
    /// GPU; a smaller value makes them smaller, which shows in last digits. Where it is left out, as many batches as the CPU has
    /// cores for, but no more than take half of the memory that the weights leave.
    #[serde(default)]
    parallel_requests: Option<usize>,
}

fn block_output() -> TargetSite {
    TargetSite::BlockOutput
}

fn twenty() -> usize {
    20
}

fn half() -> f64 {
    0.5
}

fn sixteenth() -> f64 {
    0.0625
}

fn three_quarters() -> f64 {
    0.75
}

fn stop_loss() -> f64 {
    0.05
}

impl TargetsParams {
    /// As the editing crate has them.
    pub fn settings(&self) -> TargetSettings {
        TargetSettings {
            site: self.site,
            layer: self.layer,
            steps: self.steps,
            learning_rate: self.learning_rate,
            kl_factor: self.kl_factor,
            weight_decay: self.weight_decay,
            clamp: self.clamp,
            stop_loss: self.stop_loss,
        }
    }

    /// Mistakes that parameters and the model's facts show.
    pub fn check(&self, facts: Option<&Facts>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(facts) = facts {
            errors.extend(facts.check_layers(&[self.layer], |_| "layer".to_owned()));
        }
        for (name, zero) in [("steps", self.steps == 0), ("parallel_requests", self.parallel_requests == Some(0))] {
            if zero {
                errors.push(FieldError::new(name, format!("`{name}` is 0")).expected("1 or more"));
            }
        }
        let numbers = [
            ("learning_rate", self.learning_rate, false),
            ("clamp", self.clamp, false),
            ("kl_factor", self.kl_factor, true),
            ("weight_decay", self.weight_decay, true),
        ];
        for (name, value, zero) in numbers {
            if !(value.is_finite() && (value > 0.0 || (zero && value == 0.0))) {
                let expected = if zero { "0 or above" } else { "a number above 0" };
                errors.push(FieldError::new(name, format!("`{name}` is {value}")).expected(expected));
            }
        }
        errors
    }

    /// The layer.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// All that can change a result.
    fn keyed(&self) -> Value {
        let mut with = json!(self);
        if let Some(fields) = with.as_object_mut() {
            fields.retain(|name, _| !Targets::unkeyed().contains(&name.as_str()));
        }
        with
    }

    /// All that can change a unit of rounds, in the form in which units have always been kept: their keys know `parallel_requests` by
    /// its first name and without a value.
    pub fn in_unit_keys(&self) -> Value {
        let mut with = self.keyed();
        with["at_once"] = Value::Null;
        with
    }

    /// Requests of this model that are optimised at the same time.
    pub fn parallel_requests(&self, decoder: &Decoder) -> usize {
        batch_limits::requests(self.parallel_requests, decoder, self.layer)
    }
}

/// See [`StageKind::DOC`].
pub struct Targets;

impl StageKind for Targets {
    type Params = TargetsParams;
    const NAME: &'static str = "targets";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Finds the value that each edit should write, by gradient descent.";
    const DOC: &'static str = "\
For every request, finds the vector z that makes the model say the new target in every context template, when z replaces \
what the model computes at the subject's last token. z = h₀ + δ, and Adam finds the δ that minimizes

  mean −log p(target) per token  +  kl_factor · KL on \"{subject} is a\"  +  weight_decay · ‖δ‖/‖h₀‖²

Targets do not depend on the objective or the distribution, so every cell of an ablation shares them. Many requests are \
optimized in parallel, each with its own Adam state and early stop. Finished requests survive an interruption.";
    const OUTPUT: ArtifactKind = TARGETS;

    fn inputs() -> Vec<Port> {
        vec![
            Port { name: "model", accepts: &[MODEL], required: true, doc: "The unedited model." },
            Port { name: "requests", accepts: &["requests"], required: true, doc: "The facts to write." },
            Port {
                name: "templates",
                accepts: &["templates"],
                required: false,
                doc: "Contexts in which the edit must hold. The default is the bare prompt alone.",
            },
        ]
    }

    fn unkeyed() -> &'static [&'static str] {
        &["parallel_requests"]
    }

    fn renamed() -> Renames {
        &[("at_once", "parallel_requests")]
    }

    fn units(_: &TargetsParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        cx.input("requests")["requests"].as_u64().map(|count| units(count as usize))
    }

    fn describe(params: &TargetsParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let errors = params.check(Facts::at(cx, "model").as_ref());
        let count = &cx.input("requests")["requests"];
        if errors.is_empty() {
            Ok(json!({ "layer": params.layer, "site": params.site, "requests": count }))
        } else {
            Err(errors)
        }
    }

    fn run(params: &TargetsParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let artifact = cx.input("model")?;
        let model = open(cx, artifact)?;
        let asked = cx.input("requests")?;
        let requests = requests(cx, asked)?;
        let templates = at_port(cx, "templates")?;
        let base = base_digest(artifact);
        let plan = units(requests.len());
        let bar = cx.progress(plan.what, Some(plan.items as u64));
        let parallel_requests = params.parallel_requests(&model.decoder);
        let cache = TargetCache {
            cx,
            model: &model,
            templates: &templates,
            settings: params.settings(),
            with: json!({
                "base": base, "templates": templates, "site": params.site, "layer": params.layer, "steps": params.steps,
                "learning_rate": params.learning_rate, "kl_factor": params.kl_factor,
                "weight_decay": params.weight_decay, "clamp": params.clamp, "stop_loss": params.stop_loss,
            }),
            digits: json!({ "batch": target_batch(is_cpu(&model.decoder.device()), parallel_requests) }),
            parallel_requests,
            bar: &bar,
        };
        let mut found: Vec<Kept> = Vec::with_capacity(requests.len());
        for number in 0..plan.units() {
            cx.check_interrupt()?;
            found.extend(cache.find(&requests[plan.unit(number)])?);
        }
        let (count, d) = (found.len(), model.decoder.config().hidden);
        let tensors = [
            Named::f32("initial", [count, d], found.iter().flat_map(|t| t.initial.iter().copied())),
            Named::f32("delta", [count, d], found.iter().flat_map(|t| t.delta.iter().copied())),
        ];
        let traces: Vec<_> =
            requests.iter().zip(&found).map(|(r, t)| json!({ "id": r.id, "steps": t.trace })).collect();
        let traces = serde_json::to_vec(&traces).map_err(|error| StageError::internal(error.to_string()))?;
        let last = |value: fn(&StepRecord) -> f32| {
            found.iter().filter_map(|t| t.trace.last()).map(|step| f64::from(value(step))).sum::<f64>() / count as f64
        };
        let steps = found.iter().map(|t| t.trace.len()).sum::<usize>() as f64 / count as f64;
        let meta = json!({
            "base": base,
            "requests": count,
            "asked": file(asked, crate::sources::load_requests::REQUESTS)?.digest,
            "layer": params.layer,
            "site": params.site,
            "with": params.keyed(),
            "metrics": { "steps": steps, "loss": last(|s| s.loss), "nll": last(|s| s.nll), "norm": last(|s| s.norm) },
            "columns": [
                { "name": "steps", "label": "steps", "format": "number" },
                { "name": "loss", "label": "final loss", "format": "number", "better": "min" },
                { "name": "nll", "label": "−log p(new)", "format": "number", "better": "min" },
                { "name": "norm", "label": "‖δ‖", "format": "number" },
            ],
        });
        Ok(Artifact::new(Self::OUTPUT, meta)
            .with_file(VALUES, put(cx, &tensors)?)
            .with_file(TRACES, cx.put_bytes(&traces)?))
    }
}

/// How so many requests are cut.
fn units(requests: usize) -> UnitPlan {
    UnitPlan::new("requests", requests, TARGETS_IN_UNIT)
}

/// The values `z = h₀ + δ` of an artifact, `[requests, d]` row-major.
pub fn values(cx: &StageContext, artifact: &Artifact) -> Result<Vec<f32>, StageError> {
    let tensors = Tensors::read(cx, file(artifact, VALUES)?)?;
    let ((_, initial), (_, delta)) = (tensors.values("initial")?, tensors.values("delta")?);
    Ok(initial.iter().zip(&delta).map(|(h, d)| *h as f32 + *d as f32).collect())
}
