//! `targets`: the values that edits should write.

use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{
    FactToken, StepRecord, StopRule, TARGETS_IN_UNIT, TargetRules, TargetSettings, TargetSite, anchor, anchor_norm,
    pieces, target_batch,
};
use palinode_engine::bounds::{Count, NonNegative, Positive};
use palinode_engine::shown::{self, Better, Column, Format, Shown};
use palinode_engine::{
    Artifact, DescribeCx, Error, FieldError, Inputs, Port, PortOf, Renames, StageContext, StageKind, UnitPlan, artifact,
};
use palinode_math::Plan;
use palinode_model::{Compute, Decoder, is_cpu};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::chat::in_chat;
use crate::artifacts::compute::{check, check_here};
use crate::artifacts::model::{Facts, HasModel, Loaded, ModelKind, open};
use crate::artifacts::requests::{RequestsKind, contents, requests};
use crate::artifacts::targets::{DELTA, INITIAL, Losses, PlannedTargets, TRACES, TargetsFacts, TargetsKind, VALUES};
use crate::artifacts::templates::{TemplatesKind, at_port};
use crate::artifacts::tensors::{Named, put};
use crate::edit::batch_limits::{self, BatchTokens};
use crate::edit::lost::{Search, say_lost};
use crate::edit::target_cache::{Kept, TargetCache};
use crate::errors::StageFailure;

/// Steps at most: published searches take 20 to 100.
const MOST_STEPS: usize = 100_000;

/// Parameters of `targets`; the names in brackets are those of the published hyperparameter files.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetsParams {
    /// The place in the model where the target is a value.
    #[serde(default = "block_output")]
    site: TargetSite,
    /// The layer, which has to be the last one of the plan.
    layer: usize,
    /// The token of the prompt where the target is a value, and whose key `solve` writes it at (fact_token).
    #[serde(default, skip_serializing_if = "FactToken::is_usual")]
    fact_token: FactToken,
    /// Evaluations of the loss (v_num_grad_steps); the last one makes no update.
    #[serde(default = "twenty")]
    steps: Count,
    /// Adam's step size (v_lr).
    #[serde(default = "half")]
    learning_rate: Positive,
    /// Weight of the KL term, which preserves the predictions after "{subject} is a" (kl_factor).
    #[serde(default = "sixteenth")]
    kl_factor: NonNegative,
    /// Weight of the term that keeps the change small (v_weight_decay).
    #[serde(default = "usual_decay")]
    weight_decay: NonNegative,
    /// Upper bound of ‖δ‖/‖h₀‖ (clamp_norm_factor).
    #[serde(default = "three_quarters")]
    clamp: Positive,
    /// The search for a target stops when its loss falls below this value.
    #[serde(default = "stop_loss")]
    stop_loss: f64,
    /// What else ends the search for a target.
    #[serde(default, skip_serializing_if = "StopKind::is_usual")]
    stop: StopKind,
    /// For `stop: argmax`: how many evaluations have to find every target token the most probable one. The default is 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argmax_hits: Option<Count>,
    /// The layer after which the loss is read, by the model's final norm and head (v_loss_layer). The default is the last layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_layer: Option<usize>,
    /// Requests with the same subject share a target, optimized on the mean of their losses, and a key, the mean of theirs (MEMIT-Merge).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    merge: bool,
    /// Scales what a target asks of the feed-forward network to the mean norm that such values have on the unedited model, over so many
    /// of the first requests, and skips a request whose value has more than twice that norm (NAS). The default is no scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    norm_anchor: Option<Count>,
    /// Cuts answers into pieces of at most so many tokens, each with a target at the last token before it (AnyEdit). The default is one
    /// target for the whole answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_tokens: Option<Count>,
    /// Requests that are optimised at the same time, at most: bounds memory. Batches are of up to 8 requests on a CPU and of up to 64 on a
    /// GPU; a smaller value makes them smaller, which shows in last digits. Where it is left out, as many batches as the CPU has
    /// cores for, but no more than take half of the memory that the weights leave.
    #[serde(default)]
    parallel_requests: Option<Count>,
    /// What both factors of matrix products in the search's steps are rounded to, on a CPU: `bf16` takes half of the time in products on
    /// AMD's CPUs with AVX-512 BF16, and a third on Intel's with AMX under Linux (`doctor --measure` measures yours). It keeps 8 bits of each factor. h₀, and all that a
    /// search begins from, is computed in f32 all the same.
    #[serde(default, skip_serializing_if = "Compute::is_usual")]
    compute: Compute,
}

/// What ends the search for a target, beside `stop_loss` and `steps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum StopKind {
    /// Nothing else.
    #[default]
    Loss,
    /// `argmax_hits` evaluations, not necessarily in a row, in which every token of the target is the most probable one in all contexts but
    /// the first (ENCORE).
    Argmax,
    /// Every token of the target is the most probable one in all contexts, and the KL term is at most 0.01. While all tokens are, the
    /// likelihood weighs a tenth (PMET).
    Divergence,
}

impl StopKind {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_usual(&self) -> bool {
        *self == Self::Loss
    }
}

/// `argmax_hits` where it is left out, as ENCORE has it for most models.
const HITS: usize = 4;

fn block_output() -> TargetSite {
    TargetSite::BlockOutput
}

fn twenty() -> Count {
    const { Count::new(20) }
}

fn half() -> Positive {
    const { Positive::new(0.5) }
}

fn usual_decay() -> NonNegative {
    const { NonNegative::new(0.5) }
}

fn sixteenth() -> NonNegative {
    const { NonNegative::new(0.0625) }
}

fn three_quarters() -> Positive {
    const { Positive::new(0.75) }
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
            fact_token: self.fact_token(),
            steps: self.steps.get(),
            learning_rate: self.learning_rate.get(),
            kl_factor: self.kl_factor.get(),
            weight_decay: self.weight_decay.get(),
            clamp: self.clamp.get(),
            stop_loss: self.stop_loss,
            rules: TargetRules {
                stop: match self.stop {
                    StopKind::Loss => StopRule::Loss,
                    StopKind::Argmax => StopRule::Argmax(self.argmax_hits.map_or(HITS, Count::get)),
                    StopKind::Divergence => StopRule::Divergence,
                },
                loss_layer: self.loss_layer,
                merge: self.merge,
                compute: self.compute,
            },
        }
    }

    /// What of the later rules differs from the usual, for keys of units that were kept before there were any.
    fn rules(&self) -> Option<Value> {
        let TargetRules { stop, loss_layer, merge, compute: _ } = self.settings().rules;
        let usual = stop == StopRule::Loss && loss_layer.is_none() && !merge;
        let hits = if let StopRule::Argmax(hits) = stop { Some(hits) } else { None };
        (!usual).then(|| json!({ "stop": self.stop, "hits": hits, "loss_layer": loss_layer, "merge": merge }))
    }

    /// The requests whose values on the unedited model anchor norms.
    pub fn norm_anchor(&self) -> Option<usize> {
        self.norm_anchor.map(Count::get)
    }

    /// The parameter that works at one layer alone.
    fn at_one_layer(&self) -> Option<&'static str> {
        let anchor = self.norm_anchor.is_some().then_some("norm_anchor");
        anchor.or(self.answer_tokens.is_some().then_some("answer_tokens"))
    }

    /// What these targets cannot be used for with a plan.
    pub fn check_plan(&self, plan: &Plan) -> Option<FieldError> {
        only_one_layer(self.at_one_layer(), plan)
    }

    /// Mistakes that the model's facts show.
    pub fn check(&self, facts: Option<&Facts>) -> Vec<FieldError> {
        let mut errors =
            facts.map(|facts| facts.check_layers(&[self.layer], |_| "layer".to_owned())).unwrap_or_default();
        if self.steps.get() > MOST_STEPS {
            let message = format!("`steps` is {}", self.steps.get());
            errors.push(FieldError::new("steps", message).expected(format!("a whole number from 1 to {MOST_STEPS}")));
        }
        if self.argmax_hits.is_some() && self.stop != StopKind::Argmax {
            let message = "only `stop: argmax` counts evaluations";
            errors.push(FieldError::new("argmax_hits", message).expected("`stop: argmax`, or no `argmax_hits`"));
        }
        if self.norm_anchor.is_some() && self.site != TargetSite::BlockOutput {
            let message = "norms are anchored where targets are values of the block's output";
            errors.push(FieldError::new("norm_anchor", message).expected("`site: block_output`, or no `norm_anchor`"));
        }
        if self.answer_tokens.is_some() {
            let usual = "pieces of an answer are written at the token before each";
            if !self.fact_token.is_usual() {
                errors.push(FieldError::new("fact_token", usual).expected("no `fact_token`, or no `answer_tokens`"));
            }
            if self.merge {
                let message = "pieces of answers share no target";
                errors.push(FieldError::new("merge", message).expected("no `merge`, or no `answer_tokens`"));
            }
        }
        errors.extend(check(self.compute, facts));
        if let Some(loss) = self.loss_layer {
            let known = facts.map(|facts| facts.check_layers(&[loss], |_| "loss_layer".to_owned()));
            errors.extend(known.unwrap_or_default());
            if loss <= self.layer {
                let message =
                    format!("the loss is read after layer {loss}, but the targets are at layer {}", self.layer);
                errors.push(FieldError::new("loss_layer", message).expected("a layer above `layer`"));
            }
        }
        errors
    }

    /// The layer.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// Whether requests with one subject share a target.
    pub fn merges(&self) -> bool {
        self.merge
    }

    /// The token where targets are values.
    pub fn fact_token(&self) -> FactToken {
        // A piece is written at the last token before it.
        if self.answer_tokens.is_some() { FactToken::Last } else { self.fact_token }
    }

    /// Tokens in a piece of an answer, where answers are cut.
    pub fn answer_tokens(&self) -> Option<usize> {
        self.answer_tokens.map(Count::get)
    }

    /// Whether the search can compute with its parameters where the model is.
    ///
    /// # Errors
    /// On a GPU, if products shall be rounded.
    pub fn check_here(&self, cx: &StageContext, model: &Loaded) -> Result<(), Error> {
        check_here(cx, model, self.compute)
    }

    /// Those that targets were found with.
    ///
    /// # Errors
    /// When they do not read.
    pub fn of(facts: &TargetsFacts) -> Result<Self, Error> {
        Self::deserialize(&facts.with).map_err(|error| Error::internal(format!("stored targets: {error}")))
    }

    /// All that can change a result.
    fn keyed(&self) -> Value {
        let mut with = json!(self);
        if let Some(fields) = with.as_object_mut() {
            fields.retain(|name, _| !Targets::last_digits().contains(&name.as_str()));
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
    pub fn parallel_requests(&self, cx: &StageContext, decoder: &Decoder) -> usize {
        batch_limits::requests(self.parallel_requests.map(Count::get), decoder, self.layer, cx.strict())
    }

    /// The size of a batch, which is what shows of them in last digits.
    pub fn resolved_batch(&self, hardware: Option<&str>) -> Value {
        batch_limits::resolved_batch(self.parallel_requests.map(Count::get), hardware)
    }
}

/// The unedited model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The unedited model.");
/// The facts to write.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The facts to write.");
/// The contexts.
const TEMPLATES: PortOf<TemplatesKind> =
    PortOf::optional("templates", "Contexts in which the edit must hold. The default is the bare prompt alone.");

/// See [`StageKind::DOC`].
pub struct Targets;

impl StageKind for Targets {
    type Params = TargetsParams;
    const NAME: &'static str = "targets";
    const VERSION: u32 = 7;
    const SUMMARY: &'static str = "Finds the value that each edit should write, by gradient descent.";
    const DOC: &'static str = "\
For every request, finds the vector z that makes the model say the new target in every context template, when z replaces \
what the model computes at the subject's last token. z = h₀ + δ, and Adam finds the δ that minimizes

  mean −log p(target) per token  +  kl_factor · KL on \"{subject} is a\"  +  weight_decay · ‖δ‖/‖h₀‖²

Targets do not depend on the objective or the distribution, so every cell of an ablation shares them. Many requests are \
optimized in parallel, each with its own Adam state and early stop. Finished requests survive an interruption.";
    type Output = TargetsKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port(), TEMPLATES.port()]
    }

    fn carries() -> &'static [u32] {
        // Versions 4 and 7 added parameters, which do nothing where they are left out; version 5 differs in last digits.
        &[3, 4, 5, 6]
    }

    fn last_digits() -> &'static [&'static str] {
        &["parallel_requests"]
    }

    fn resolved(params: &TargetsParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("parallel_requests", params.resolved_batch(hardware))]
    }

    fn renamed() -> Renames {
        &[("at_once", "parallel_requests")]
    }

    fn units(_: &TargetsParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        cx.input(REQUESTS).requests.map(units)
    }

    fn parts(params: &TargetsParams, inputs: &Inputs<'_>) -> Result<Option<UnitPlan>, Error> {
        // Requests that share a target may stand anywhere.
        Ok(inputs.get(REQUESTS)?.filter(|_| !params.merge).map(|asked| units(asked.facts.requests)))
    }

    fn describe(params: &TargetsParams, cx: &DescribeCx<'_>) -> Result<PlannedTargets, Vec<FieldError>> {
        let errors = params.check(cx.input(MODEL).model.as_ref());
        if errors.is_empty() {
            Ok(PlannedTargets {
                layer: Some(params.layer),
                fact_token: Some(params.fact_token()),
                one_layer: params.at_one_layer().map(str::to_owned),
            })
        } else {
            Err(errors)
        }
    }

    fn run(params: &TargetsParams, cx: &StageContext) -> Result<Artifact, Error> {
        let given = cx.input(MODEL)?;
        let asked = cx.input(REQUESTS)?;
        let chat = asked.facts.chat.as_ref();
        let model = in_chat(open(cx, &given)?, chat)?;
        params.check_here(cx, &model)?;
        let requests = requests(cx, &asked)?;
        let templates = at_port(cx, TEMPLATES)?;
        let base = given.base();
        let plan = units(requests.len());
        let bar = cx.progress(plan.what, Some(plan.items as u64));
        let parallel_requests = params.parallel_requests(cx, &model.decoder);
        let mut with = json!({
            "base": base, "templates": templates, "site": params.site, "layer": params.layer, "steps": params.steps,
            "learning_rate": params.learning_rate, "kl_factor": params.kl_factor,
            "weight_decay": params.weight_decay, "clamp": params.clamp, "stop_loss": params.stop_loss,
        });
        // Units were kept before there was a choice.
        if !params.fact_token.is_usual() {
            with["fact_token"] = json!(params.fact_token);
        }
        if let Some(chat) = chat {
            with["chat"] = json!(chat);
        }
        if !params.compute.is_usual() {
            with["compute"] = json!(params.compute);
        }
        if let Some(rules) = params.rules() {
            with["rules"] = rules;
        }
        if let Some(tokens) = params.answer_tokens() {
            with["answer_tokens"] = json!(tokens);
        }
        let cache = TargetCache {
            cx,
            model: &model,
            templates: &templates,
            settings: params.settings(),
            with,
            digits: json!({ "batch": target_batch(is_cpu(&model.decoder.device()), parallel_requests) }),
            parallel_requests,
            bar: &bar,
        };
        let mut found: Vec<Kept> = Vec::with_capacity(requests.len());
        let requests = if let Some(tokens) = params.answer_tokens() {
            let chains = pieces(&model.text, &requests, tokens).map_err(StageFailure::stage)?;
            for unit in chains.chunks(TARGETS_IN_UNIT) {
                cx.check_interrupt()?;
                if cx.is_mine() {
                    found.extend(cache.find_pieces(unit)?);
                }
            }
            chains.into_iter().flatten().collect()
        } else {
            requests
        };
        if params.answer_tokens().is_some() {
            // Found above.
        } else if params.merge {
            // Requests that share a target may stand anywhere.
            cx.check_interrupt()?;
            found.extend(cache.find(&requests)?);
        } else {
            for number in 0..plan.units() {
                cx.check_interrupt()?;
                if cx.is_mine() {
                    found.extend(cache.find(&requests[plan.unit(number)])?);
                }
            }
        }
        if cx.share().is_some() {
            return Ok(cx.end_of_share());
        }
        let last = params.layer + 1 == model.decoder.config().layers;
        let searches: Vec<_> = found.iter().map(|kept| Search { trace: &kept.trace, delta: &kept.delta }).collect();
        say_lost(cx, "", &requests, &searches, last)?;
        if let Some(first) = params.norm_anchor() {
            let first = first.min(requests.len());
            let of: Vec<&[f32]> = found[..first].iter().map(|kept| kept.delta.as_slice()).collect();
            let n = anchor_norm(
                &model.decoder,
                &model.text,
                &requests[..first],
                &templates,
                &cache.settings,
                &of,
                BatchTokens::KEYS,
            )
            .map_err(StageFailure::stage)?;
            let mut deltas: Vec<&mut Vec<f32>> = found.iter_mut().map(|kept| &mut kept.delta).collect();
            say_skipped(cx, &requests, &anchored(&model, &requests, &templates, &cache.settings, &mut deltas, n)?);
        }
        let (count, d) = (found.len(), model.decoder.config().hidden);
        let tensors = [
            Named::f32(INITIAL, [count, d], found.iter().flat_map(|t| t.initial.iter().copied())),
            Named::f32(DELTA, [count, d], found.iter().flat_map(|t| t.delta.iter().copied())),
        ];
        // As a value, in which fields are sorted and numbers have the digits of f64: the bytes of this file are in the digest of the targets.
        let losses = |(r, t): (&EditRequest, &Kept)| Losses { id: r.id.clone(), steps: json!(t.trace) };
        let traces: Vec<_> = requests.iter().zip(&found).map(losses).collect();
        let traces = serde_json::to_vec(&traces).map_err(|error| Error::internal(error.to_string()))?;
        let last = |value: fn(&StepRecord) -> f32| {
            let sum = found.iter().filter_map(|t| t.trace.last()).map(|step| f64::from(value(step))).sum::<f64>();
            shown::number(sum / count as f64)
        };
        let steps = found.iter().map(|t| t.trace.len()).sum::<usize>() as f64 / count as f64;
        let metrics = [
            ("steps", shown::number(steps)),
            ("loss", last(|s| s.loss)),
            ("nll", last(|s| s.nll)),
            ("norm", last(|s| s.norm)),
        ];
        let column = |name, label| Column::new(name, label, Format::Number);
        let columns = vec![
            column("steps", "steps"),
            column("loss", "final loss").ranked(Better::Min),
            column("nll", "−log p(new)").ranked(Better::Min),
            column("norm", "‖δ‖"),
        ];
        let facts = TargetsFacts {
            base,
            requests: count,
            asked: contents(&asked)?,
            layer: params.layer,
            site: params.site,
            with: params.keyed(),
            shown: Shown::table(metrics.map(|(name, value)| (name.to_owned(), value)).into(), columns),
        };
        Ok(artifact::<TargetsKind>(&facts)?
            .with_file(VALUES, put(cx, &tensors)?)
            .with_file(TRACES, cx.put_bytes(&traces)?))
    }
}

/// What is found at one layer alone, by the name of its parameter, and a plan with targets at several.
pub fn only_one_layer(parameter: Option<&str>, plan: &Plan) -> Option<FieldError> {
    let parameter = parameter.filter(|_| plan.retargets())?;
    Some(
        FieldError::new("", format!("`{parameter}` works at one layer, and the plan has targets at several"))
            .expected(format!("no `{parameter}`, or a plan with one target layer")),
    )
}

/// Anchors the norms of targets, found on `model`, at `n`; those that are skipped, by index.
pub fn anchored(
    model: &Loaded,
    requests: &[EditRequest],
    templates: &ContextTemplates,
    settings: &TargetSettings,
    deltas: &mut [&mut Vec<f32>],
    n: f64,
) -> Result<Vec<usize>, Error> {
    anchor(&model.decoder, &model.text, requests, templates, settings, deltas, n, BatchTokens::KEYS)
        .map_err(StageFailure::stage)
}

/// Says which requests are not written, since their values are too large.
pub fn say_skipped(cx: &StageContext, requests: &[EditRequest], skipped: &[usize]) {
    if let Some(&first) = skipped.first() {
        cx.warn(format!(
            "{} of {} requests {}, first {}: the values have more than twice the anchored norm",
            skipped.len(),
            requests.len(),
            if skipped.len() == 1 { "is skipped" } else { "are skipped" },
            requests[first].id
        ));
    }
}

/// How so many requests are cut.
fn units(requests: usize) -> UnitPlan {
    UnitPlan::new("requests", requests, TARGETS_IN_UNIT)
}
