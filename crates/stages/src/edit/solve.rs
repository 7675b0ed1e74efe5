//! `solve`: targets written into weights.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use palinode_data::{EditRequest, batches};
use palinode_edit::{Edit, EditError, FactToken, Preservations, apply, pieces, target_batch};
use palinode_engine::bounds::{Count, NonNegative};
use palinode_engine::shown::{self, Better, Column, Format, Shown, Values};
use palinode_engine::{
    Artifact, DescribeCx, Error, FieldError, Given, Port, PortOf, StageContext, StageKind, UnitPlan,
};
use palinode_math::{
    Objective, ObjectiveKind, Plan, Preservation, PreservationKind, PreservationWeights, Ridge, RomeKey,
};
use palinode_model::{DecoderConfig, WeightId, is_cpu};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Number, json};

use crate::artifacts::chat::in_chat;
use crate::artifacts::factors::{Made, MetricFacts, MomentsOrFactors, factor_at, factored, metrics, mismatch};
use crate::artifacts::model::{Facts, HasModel, ModelKind, decides_nothing, open};
use crate::artifacts::moments::{MISSING, known, moment_at};
use crate::artifacts::plan::PlanKind;
use crate::artifacts::requests::{RequestsKind, contents, requests};
use crate::artifacts::solved::{MadeFrom, Solved, add, bare};
use crate::artifacts::targets::{TargetsKind, values};
use crate::artifacts::templates::{TemplatesKind, at_port};
use crate::artifacts::update::{
    Batch, BatchFacts, PlannedUpdate, ProjectorFacts, UpdateFacts, UpdateKind, from_bytes, put, to_bytes,
};
use crate::edit::batch_limits::BatchTokens;
use crate::edit::preservation::{Preset, ProjectorParams};
use crate::edit::targets::{TargetsParams, only_one_layer};
use crate::errors::StageFailure;
use crate::units;

/// Parameters of `solve`, as they are written.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// How a layer absorbs its part of an edit.
    objective: ObjectiveKind,
    /// λ, the weight of preservation (mom2_update_weight). An equality constraint without a ridge does not depend on it.
    /// The default is 1, or the preset's. 0 needs a `projector`.
    #[serde(default)]
    lambda: Option<NonNegative>,
    /// ρ, a ridge on the norm of the update. The default is 0, or the preset's.
    #[serde(default)]
    update_norm_lambda: Option<NonNegative>,
    /// The published preservation of a method: values for `lambda`, `update_norm_lambda`, `projector` and `history`, each of which can be
    /// given beside it.
    #[serde(default)]
    preset: Option<Preset>,
    /// Allow only changes along the directions that the corpus hardly uses (AlphaEdit).
    #[serde(default)]
    projector: Option<ProjectorParams>,
    /// In a `sequence`: also preserve what earlier rounds wrote, by adding this times Σ KₚKₚᵀ of their keys to the metric.
    /// The default is 0, which preserves none of it, or the preset's.
    #[serde(default)]
    history: Option<NonNegative>,
    /// What the preservation metric is made of. `ridge` needs nothing at the `moments` port, and ignores what is there.
    #[serde(default)]
    preservation: PreservationKind,
    /// ε, added to EMMET's system where a batch holds more than one edit; EMMET(λ, ε) is MEMIT(ελ). Other objectives ignore
    /// it.
    #[serde(default)]
    emmet_lambda: NonNegative,
    /// The key that ROME uses. Other objectives ignore it.
    #[serde(default)]
    rome_key: RomeKey,
    /// Requests in a batch. Every batch is edited onto the unedited model. The default is one batch of all requests; ROME
    /// edits one request at a time.
    #[serde(default)]
    batch_size: Option<Count>,
    /// The token whose keys are edited. It is the one that the targets were found at, and need not be given here; another one is a
    /// mistake.
    #[serde(default)]
    fact_token: Option<FactToken>,
}

/// Parameters of `solve`, without those that the objective ignores: what does not matter must not be in a key.
#[derive(Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct SolveParams {
    objective: ObjectiveKind,
    lambda: NonNegative,
    update_norm_lambda: NonNegative,
    /// Left out where it is the one that there was before there were others, so that keys stay as they were.
    #[serde(skip_serializing_if = "by_moments")]
    preservation: PreservationKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    projector: Option<ProjectorParams>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<NonNegative>,
    /// Whether the history is a parameter by itself, and not of a preset.
    #[serde(skip)]
    history_given: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    emmet_lambda: Option<NonNegative>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rome_key: Option<RomeKey>,
    batch_size: Option<Count>,
    /// Says nothing that the targets do not say.
    #[serde(skip_serializing)]
    fact_token: Option<FactToken>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn by_moments(preservation: &PreservationKind) -> bool {
    *preservation == PreservationKind::Moments
}

impl From<Written> for SolveParams {
    fn from(written: Written) -> Self {
        let objective = written.objective;
        let preset = written.preset.map(Preset::values);
        Self {
            objective,
            lambda: written.lambda.or(preset.as_ref().map(|p| p.lambda)).unwrap_or(const { NonNegative::new(1.0) }),
            update_norm_lambda: written
                .update_norm_lambda
                .or(preset.as_ref().map(|p| p.update_norm_lambda))
                .unwrap_or_default(),
            preservation: written.preservation,
            history_given: written.history.is_some_and(|weight| weight.get() > 0.0),
            history: written
                .history
                .or(preset.as_ref().map(|_| const { NonNegative::new(1.0) }))
                .filter(|weight| weight.get() > 0.0),
            projector: written.projector.or(preset.and_then(|p| p.projector)),
            emmet_lambda: (objective == ObjectiveKind::Emmet).then_some(written.emmet_lambda),
            rome_key: (objective == ObjectiveKind::Rome).then_some(written.rome_key),
            batch_size: written.batch_size.or((objective == ObjectiveKind::Rome).then_some(const { Count::new(1) })),
            fact_token: written.fact_token,
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
        let epsilon = self.emmet_lambda.unwrap_or_default().get();
        Objective::new(self.objective, epsilon, self.rome_key.unwrap_or_default())
    }

    /// The weight of the MEMIT that this objective is, where it is one.
    pub fn effective_lambda(&self) -> Option<(String, Option<Number>)> {
        if self.projector.is_some() {
            return None;
        }
        let lambda = self.objective().effective_lambda(self.lambda.get())?;
        Some((EFFECTIVE_LAMBDA.to_owned(), shown::number(lambda)))
    }

    /// λ and ρ.
    pub fn weights(&self) -> PreservationWeights {
        PreservationWeights { lambda: self.lambda.get(), rho: self.update_norm_lambda.get() }
    }

    /// Whether the metric is made of second moments.
    pub fn needs_moments(&self) -> bool {
        self.preservation == PreservationKind::Moments
    }

    /// What a key of an earlier round weighs, where those are preserved.
    pub fn history(&self) -> Option<f64> {
        self.history.map(NonNegative::get)
    }

    /// Mistakes of parameters that only rounds give a meaning.
    pub fn check_single(&self) -> Option<FieldError> {
        self.history_given.then(|| {
            FieldError::new("history", "`solve` edits every batch onto the unedited model: there are no earlier rounds")
                .expected("no `history`, or the stage `sequence`")
        })
    }

    /// The metric of some layers of the model `base`, which has this shape; and where a projector cut, if there is one.
    pub fn metrics(
        &self,
        cx: &StageContext,
        base: &Given<'_, ModelKind>,
        moments: Option<&Given<'_, MomentsOrFactors>>,
        layers: &[usize],
        config: &DecoderConfig,
    ) -> Result<(Preservations, Option<Vec<ProjectorFacts>>), Error> {
        match self.preservation {
            PreservationKind::Moments => {
                let moments = moments.ok_or_else(|| Error::internal("nothing is connected to port `moments`"))?;
                same_model(base, &moments.facts.base, "second moments")?;
                if let Some(projector) = &self.projector {
                    let (metrics, facts) = projector.metrics(cx, moments, layers, self.weights())?;
                    return Ok((metrics, Some(facts)));
                }
                Ok((metrics(cx, moments, layers, self.weights())?, None))
            }
            PreservationKind::Ridge => {
                let ridge = |&layer: &usize| {
                    let ridge = Ridge::new(config.key_size(layer), self.weights()).map_err(StageFailure::stage)?;
                    Ok((WeightId::down(layer), Arc::new(ridge) as _))
                };
                Ok((layers.iter().map(ridge).collect::<Result<_, Error>>()?, None))
            }
        }
    }

    /// The metric of one layer, of the file that the second moments or factors at the `moments` port have of it. `None` stands for none,
    /// where keys have the size `f`.
    ///
    /// # Errors
    /// As [`SolveParams::metrics`].
    pub fn metric(
        &self,
        layer: usize,
        f: usize,
        stored: Option<(&MetricFacts, PathBuf)>,
    ) -> Result<Arc<dyn Preservation>, Error> {
        let weights = self.weights();
        let Some((facts, path)) = stored else {
            return Ok(Arc::new(Ridge::new(f, weights).map_err(StageFailure::stage)?));
        };
        let unit = factored(weights);
        let made = if facts.fixed.is_some() {
            Made::Whole(factor_at(&path, layer, unit)?)
        } else {
            let known = known(&facts.layers, layer)?;
            if let Some(projector) = &self.projector {
                let moment = moment_at(&path, known)?;
                return Ok(Arc::new(projector.metric(&moment, weights)?));
            }
            Made::of_file(known, path, unit)?
        };
        Ok(made.with(weights.lambda))
    }

    /// Mistakes of what the metric is made of, which the `moments` port shows.
    pub fn check_moments(
        &self,
        stage: &str,
        moments: PortOf<MomentsOrFactors>,
        cx: &DescribeCx<'_>,
    ) -> Vec<FieldError> {
        if !self.needs_moments() {
            return Vec::new();
        }
        if !cx.connected(moments) {
            return vec![
                FieldError::new("", format!("`{stage}` needs the input `moments`"))
                    .expected("`moments:` and a stage that yields `moments` or `factors`, or `preservation: ridge`")
                    .hint("with `preservation: ridge` the edit preserves no corpus, and needs no second moments"),
            ];
        }
        match (self.projector.is_some(), cx.input(moments).fixed) {
            (true, None) => Vec::new(),
            (true, Some(_)) => vec![
                FieldError::new("projector", "a projector needs the second moments themselves, and gets their factors")
                    .expected("a stage that yields `moments` at the `moments` port")
                    .hint("connect `moments` to the stage that measures or loads them, without `factor`"),
            ],
            (false, fixed) => mismatch(fixed, self.weights()).into_iter().collect(),
        }
    }

    /// Whether the targets are values at another token than the keys that these parameters ask for.
    pub fn check_fact_token(&self, targets: Option<FactToken>) -> Option<FieldError> {
        let (own, found) = (self.fact_token?, targets?);
        (own != found).then(|| {
            let message =
                format!("the targets are values at {}, and the keys would be at {}", found.name(), own.name());
            FieldError::new("fact_token", message)
                .expected(format!("{}, as at the targets, or no `fact_token`", found.name()))
        })
    }

    /// A projector has the spectrum of a layer's whole second moment, and a mixture of experts has one for each expert.
    pub fn check_experts(&self, model: Option<&Facts>, plan: Option<&Plan>) -> Vec<FieldError> {
        let (Some(model), Some(plan), Some(_)) = (model, plan, &self.projector) else { return Vec::new() };
        let edited: Vec<usize> = plan.steps.iter().map(|step| step.layer).collect();
        model.check_dense(&edited, "a projector", |_| "projector".to_owned())
    }

    /// Records in a batch, of so many; most records are one request.
    pub fn batch_size(&self, of: usize) -> usize {
        self.batch_size.map_or(of.max(1), Count::get)
    }

    /// The batches of these requests; none cuts a record.
    pub fn batches(&self, requests: &[EditRequest]) -> Vec<Range<usize>> {
        batches(requests, self.batch_size(requests.len()))
    }

    /// μ of each request (0: a hard constraint), where a batch is one of these.
    pub fn mu(&self, requests: &[EditRequest]) -> Vec<f64> {
        let of = |batch: Range<usize>| {
            let strengths: Vec<Option<f64>> = requests[batch].iter().map(|request| request.strength).collect();
            // What is no objective fails by itself.
            self.objective().mu(&strengths).unwrap_or_else(|_| vec![1.0; strengths.len()])
        };
        self.batches(requests).into_iter().flat_map(of).collect()
    }

    /// Mistakes that parameters alone show.
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(size) = self.batch_size.map(Count::get).filter(|size| *size > 1)
            && self.objective == ObjectiveKind::Rome
        {
            errors.push(
                FieldError::new("batch_size", format!("rome edits one fact at a time, but `batch_size` is {size}"))
                    .expected("1, or no `batch_size`")
                    .hint("emmet is rome's constraint for a batch"),
            );
        }
        let (lambda, rho) = (self.lambda.get(), self.update_norm_lambda.get());
        match &self.projector {
            None if lambda == 0.0 => errors.push(
                FieldError::new("lambda", "`lambda` is 0: nothing of the corpus would be preserved")
                    .expected("a number above 0, or 0 with a `projector`"),
            ),
            None => {}
            Some(_) if self.preservation == PreservationKind::Ridge => errors.push(
                FieldError::new(
                    "projector",
                    "`preservation: ridge` has no second moments, so no direction is used less than another",
                )
                .expected("`preservation: moments` with a `projector`, or `ridge` without one"),
            ),
            Some(projector) => {
                errors.extend(projector.check());
                if lambda == 0.0 && rho == 0.0 {
                    errors.push(
                        FieldError::new(
                            "update_norm_lambda",
                            "`lambda` and `update_norm_lambda` are 0: no change would cost anything",
                        )
                        .expected("a number above 0 for one of them; AlphaEdit's code has `update_norm_lambda: 10`"),
                    );
                }
            }
        }
        errors
    }
}

/// The unedited model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The unedited model.");
/// The facts to write.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The facts to write.");
/// What the metric is made of.
const MOMENTS: PortOf<MomentsOrFactors> = PortOf::optional(
    "moments",
    "Second moments of every layer in the plan, or their factors; `preservation: ridge` needs none.",
);
/// The targets.
const TARGETS: PortOf<TargetsKind> = PortOf::required("targets", "Values at the plan's last layer.");
/// The plan.
const PLAN: PortOf<PlanKind> = PortOf::required("plan", "Which layers absorb which part.");
/// The contexts.
const TEMPLATES: PortOf<TemplatesKind> = PortOf::optional("templates", "Contexts over which keys are averaged.");

/// The metric that tells the weight of the MEMIT that an objective is.
pub const EFFECTIVE_LAMBDA: &str = "effective_lambda";

/// See [`StageKind::DOC`].
pub struct Solve;

impl StageKind for Solve {
    type Params = SolveParams;
    const NAME: &'static str = "solve";
    const VERSION: u32 = 7;
    const SUMMARY: &'static str = "Writes targets into weights: rome, memit or emmet, with any plan.";
    const DOC: &'static str = "\
Changes the down-projections of the plan's layers. After the change, each request's key yields its target, and the layer \
computes nearly the same as before for the keys of the corpus. With P = λC + ρI, keys K and residuals R,

  Δ = R (KᵀP⁻¹K + diag μ)⁻¹ KᵀP⁻¹

where μ = 0 is ROME (one edit) and EMMET (a batch), μ = 1 is MEMIT, and μ = ε is EMMET with `emmet_lambda`, which equals \
MEMIT with the weight ελ. A request's own `strength` replaces the objective's μ. With `preservation: ridge` there are no second \
moments: P is (λ + ρ)I, the change has the smallest norm that does the edit, and nothing keeps it away from what the corpus \
uses. That is a baseline, and a way to edit without a corpus.

With a `projector`, Δ = R (KᵀQK + diag μ)⁻¹ KᵀQ with Q = U (Uᵀ(λC + ρI)U)⁻¹ Uᵀ, where the columns of U are the eigenvectors of C with \
the smallest eigenvalues: the change leaves alone what the corpus uses most. AlphaEdit is `objective: memit` with `lambda: 0`, a ridge \
and a projector. A `preset` fills in the published numbers of a method.

`batch_size` splits the requests, by records: the edits of one record (MQuAKE, or `group`) stay together. Every batch is edited onto the unedited model and evaluated alone, as in the papers. The \
result is an edited model, which can be evaluated and exported. It holds the changes as low-rank factors, never as whole \
weights.";
    type Output = UpdateKind;

    fn hands_on() -> Option<&'static str> {
        Some(MODEL.name)
    }

    fn decides_nothing(file: &str) -> bool {
        decides_nothing(file)
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port(), MOMENTS.port(), TARGETS.port(), PLAN.port(), TEMPLATES.port()]
    }

    fn describe(params: &SolveParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        let mut errors = params.check();
        errors.extend(params.check_single());
        errors.extend(params.check_moments(Self::NAME, MOMENTS, cx));
        let (model, plan) = (cx.input(MODEL).model, cx.input(PLAN).plan);
        let moments = cx.input(MOMENTS).layers.filter(|_| params.needs_moments());
        errors.extend(plan.as_ref().map(|plan| check_plan(plan, model.as_ref(), moments)).unwrap_or_default());
        errors.extend(params.check_experts(model.as_ref(), plan.as_ref()));
        errors.extend(plan.as_ref().and_then(|plan| only_one_layer(cx.input(TARGETS).one_layer.as_deref(), plan)));
        if let (Some(plan), Some(layer)) = (plan, cx.input(TARGETS).layer)
            && layer != plan.target_layer
        {
            errors.push(target_layer_off(layer, &plan));
        }
        errors.extend(params.check_fact_token(cx.input(TARGETS).fact_token));
        if !errors.is_empty() {
            return Err(errors);
        }
        let records = cx.input(REQUESTS).records();
        let batches = records.map(|n| params.batch_size.map_or(1, |size| n.div_ceil(size.get())));
        Ok(PlannedUpdate { model, batches, low_rank: None })
    }

    fn units(params: &SolveParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        let planned = cx.input(REQUESTS);
        let what = if planned.records.is_some() { "records" } else { "requests" };
        let records = planned.records()?;
        Some(UnitPlan::new(what, records, params.batch_size(records)))
    }

    fn carries() -> &'static [u32] {
        // Distances and norms may differ in last digits from version 2, and all that a model computes from version 4; version 3 had no
        // projector. What version 6 left tells nothing of the change without one of its edits.
        &[2, 3, 4, 5, 6]
    }

    fn run(params: &SolveParams, cx: &StageContext) -> Result<Artifact, Error> {
        let base = cx.input(MODEL)?;
        let targets = cx.input(TARGETS)?;
        let asked = cx.input(REQUESTS)?;
        same_model(&base, &targets.facts.base, "targets")?;
        if targets.facts.asked != contents(&asked)? {
            return Err(Error::input("the targets were found for other requests")
                .hint("connect `targets` and `solve` to the same requests"));
        }
        let model = in_chat(open(cx, &base)?, asked.facts.chat.as_ref())?;
        let requests = requests(cx, &asked)?;
        let templates = at_port(cx, TEMPLATES)?;
        let plan = cx.input(PLAN)?.facts.plan;
        let found_with = TargetsParams::of(&targets.facts)?;
        if plan.retargets() {
            found_with.check_here(cx, &model)?;
        }
        let d = model.decoder.config().hidden;
        let values = values(cx, &targets)?;
        let edited: Vec<usize> = plan.steps.iter().map(|step| step.layer).collect();
        let moments = cx.input_opt(MOMENTS)?;
        let (metrics, projectors) = params.metrics(cx, &base, moments.as_ref(), &edited, model.decoder.config())?;
        let objective = params.objective();
        let edit = Edit {
            objective,
            plan: &plan,
            templates: &templates,
            targets: found_with.settings(),
            parallel_requests: found_with.parallel_requests(cx, &model.decoder),
            tokens: BatchTokens::KEYS,
        };
        let split = params.batches(&requests);
        let bar = cx.progress("requests", Some(requests.len() as u64));
        let mut batches = Vec::new();
        // Of a batch that is all of the requests, the unit would be the result.
        let kept = split.len() > 1;
        let of = json!({
            "base": base.base(), "moments": moments.as_ref().map(|moments| moments.digest()),
            "plan": cx.input(PLAN)?.digest(), "templates": templates, "with": params, "found_with": found_with.in_unit_keys(), "chat": asked.facts.chat,
        });
        let digits = json!({
            "batch": target_batch(is_cpu(&model.decoder.device()), edit.parallel_requests), "tokens": edit.tokens,
        });
        // Where answers are cut, a request has several targets.
        let chains = match found_with.answer_tokens() {
            Some(tokens) => Some(pieces(&model.text, &requests, tokens).map_err(StageFailure::stage)?),
            None => None,
        };
        let mut taken = 0;
        for Range { start, end } in split {
            cx.check_interrupt()?;
            let batch = &requests[start..end];
            let asked: Cow<'_, [EditRequest]> = match &chains {
                Some(chains) => chains[start..end].iter().flatten().cloned().collect::<Vec<_>>().into(),
                None => batch.into(),
            };
            let values = &values[taken * d..(taken + asked.len()) * d];
            taken += asked.len();
            let key = units::key(cx, &json!({ "of": of, "from": start, "block": batch, "values": values }), &digits);
            let known = if kept { cx.get_unit(&key).and_then(|bytes| from_bytes(bytes).ok()) } else { None };
            if let Some(known) = known {
                bar.keep(batch.len() as u64);
                batches.push(known);
                continue;
            }
            let edits =
                apply(&model.decoder, &model.text, &asked, values, &metrics, &edit).map_err(StageFailure::stage)?;
            tell_repeated(cx, &asked, &edits.repeated);
            let own = chains.as_ref().map(|chains| &chains[start..end]);
            // Only what sees earlier layers is ever solved again.
            let again = if plan.is_apart() { &[] } else { values };
            let solved = Solved::of(&edits, own, 0, edit.targets.rules.merge, again);
            let made = Batch { solved: Some(solved), ..Batch::of(start, end, edits) };
            if kept {
                cx.put_unit(&key, &to_bytes(&made)?)?;
            }
            batches.push(made);
            bar.inc(batch.len() as u64);
        }
        let mut metrics = averages(&batches);
        metrics.extend(params.effective_lambda());
        let facts = UpdateFacts {
            model: base.facts.model.clone(),
            base: base.base(),
            asked: Some(targets.facts.asked),
            requests: Some(requests.iter().map(|request| request.id.clone()).collect()),
            objective: json!(params),
            plan: json!(plan),
            batches: batches.len(),
            rounds: None,
            care: None,
            projectors,
            shown: Shown::table(metrics, columns()),
        };
        let made = put(cx, &base, &batches, &facts)?;
        let from = MadeFrom {
            requests: requests.iter().map(bare).collect(),
            templates,
            targets: targets.facts.with.clone(),
            chat: asked.facts.chat.clone(),
            moments: moments.map(|moments| Artifact::clone(&moments)),
        };
        add(cx, made, from, batches.iter().map(|batch| batch.solved.as_ref()))
    }
}

/// Says which requests of a batch were merged.
pub fn tell_repeated(cx: &StageContext, batch: &[EditRequest], repeated: &[(usize, usize)]) {
    if let Some(&(later, earlier)) = repeated.first() {
        let (what, later, earlier) = match repeated.len() {
            1 => ("a request says", &batch[later].id, &batch[earlier].id),
            _ => ("requests say", &batch[later].id, &batch[earlier].id),
        };
        cx.warn(format!(
            "{} {what} the same as an earlier one and count once, first {later} (as {earlier})",
            repeated.len()
        ));
    }
}

/// How the objective's values are shown.
pub fn columns() -> Vec<Column> {
    let number = |name, label| Column::new(name, label, Format::Number);
    vec![
        number("preservation", "preservation").ranked(Better::Min),
        number("error_after", "‖ΔK−R‖").ranked(Better::Min),
        number("distance_before", "‖z−h‖ before"),
        number("distance_after", "after").ranked(Better::Min),
        number("norm", "‖Δ‖"),
        Column::new("relative_norm", "‖Δ‖/‖W‖", Format::Percent),
        number("condition", "condition"),
        number(EFFECTIVE_LAMBDA, "effective λ"),
    ]
}

/// Mistakes that the plan shows beside the model and the second moments.
pub fn check_plan(plan: &Plan, model: Option<&Facts>, moments: Option<Vec<usize>>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(facts) = model {
        let edited: Vec<usize> = plan.steps.iter().map(|step| step.layer).collect();
        errors.extend(facts.check_layers(&edited, |_| String::new()));
        if let (true, Some((layer, aim))) = (facts.norms_behind, plan.passed_on()) {
            let error = EditError::BehindNorm { family: facts.family.clone(), layer, aim };
            let hint = error.hint().unwrap_or_default();
            errors.push(FieldError::new("", error.to_string()).hint(hint));
        }
    }
    if let Some(have) = moments {
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

/// Fails unless something that was measured on the model of the digest `base` was measured on this one.
pub fn same_model(model: &impl HasModel, base: &str, what: &str) -> Result<(), Error> {
    if base == model.base() {
        return Ok(());
    }
    Err(Error::input(format!("the {what} were measured on another model"))
        .hint("connect every `model` port of the pipeline to the same stage"))
}

/// Values of the objective, averaged over batches. Costs and norms add up over a batch's layers (norms as the root of the sum
/// of squares); the error is what the last step left of its part; the distances are measured at the targets' layer.
pub fn averages(batches: &[Batch]) -> Values {
    let mut metrics = Values::new();
    let mut put = |name: &str, value: &dyn Fn(&BatchFacts) -> Option<f64>| {
        // What one of the batches cannot tell has no mean.
        if let Some(sum) = batches.iter().map(|batch| value(&batch.facts)).sum::<Option<f64>>() {
            metrics.insert(name.to_owned(), shown::number(sum / batches.len().max(1) as f64));
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
