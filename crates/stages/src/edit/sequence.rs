//! `sequence`: batch after batch, each on the model that the one before left.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{
    Edit, Preservations, TARGETS_IN_UNIT, Target, TargetSettings, anchor_norm, apply, optimise_at_most,
    optimise_pieces, pieces, target_batch, with_edits,
};
use palinode_engine::bounds::Count;
use palinode_engine::shown::{self, Column, Format, Shown};
use palinode_engine::{
    Artifact, DescribeCx, Error, FieldError, Key, Port, PortOf, Renames, StageContext, StageKind, UnitPlan,
};
use palinode_math::{History, Mat, Plan, Preservation, from_row_major, row_major};
use palinode_model::{Decoder, WeightId, is_cpu};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::artifacts::chat::in_chat;
use crate::artifacts::factors::MomentsOrFactors;
use crate::artifacts::model::{HasModel, Loaded, ModelKind, decides_nothing, open};
use crate::artifacts::plan::PlanKind;
use crate::artifacts::requests::{RequestsKind, contents, requests};
use crate::artifacts::solved::{MadeFrom, Solved, add, bare};
use crate::artifacts::templates::{TemplatesKind, at_port};
use crate::artifacts::tensors::{Named, Tensors, serialize};
use crate::artifacts::update::{Batch, PlannedUpdate, Rounds, UpdateFacts, UpdateKind, from_bytes, put, to_bytes};
use crate::edit::batch_limits::BatchTokens;
use crate::edit::lost::{Search, say_lost};
use crate::edit::round_care::RoundCare;
use crate::edit::solve::{SolveParams, averages, check_plan, columns, target_layer_off, tell_repeated};
use crate::edit::targets::{TargetsParams, anchored, say_skipped};
use crate::errors::StageFailure;
use crate::units;

/// Parameters of `sequence`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceParams {
    /// Parameters of the stage `targets`. Each round finds its targets on the model that the rounds before produced.
    targets: TargetsParams,
    /// Parameters of the stage `solve`. `batch_size` is the number of edits in a round.
    solve: SolveParams,
    /// Number of rounds. The default uses all requests.
    #[serde(default)]
    rounds: Option<Count>,
    /// After-care of each round's change, one after the other. A stage of that name after the sequence treats the sum of all rounds instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    care: Vec<RoundCare>,
}

impl SequenceParams {
    /// How targets are found.
    pub fn targets(&self) -> &TargetsParams {
        &self.targets
    }

    /// How they are written.
    pub fn solve(&self) -> &SolveParams {
        &self.solve
    }
}

/// The unedited model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The unedited model.");
/// The facts to write.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The facts to write, in order.");
/// What the metric is made of.
const MOMENTS: PortOf<MomentsOrFactors> = PortOf::optional(
    "moments",
    "Second moments of every layer in the plan, of the unedited model, or their factors; \
     `preservation: ridge` needs none.",
);
/// The plan.
const PLAN: PortOf<PlanKind> = PortOf::required("plan", "Which layers absorb which part.");
/// The contexts.
const TEMPLATES: PortOf<TemplatesKind> = PortOf::optional("templates", "Contexts, for targets and for keys.");

/// See [`StageKind::DOC`].
pub struct Sequence;

impl StageKind for Sequence {
    type Params = SequenceParams;
    const NAME: &'static str = "sequence";
    const VERSION: u32 = 8;
    const SUMMARY: &'static str = "Edits in rounds, each on the model that the round before produced.";
    const DOC: &'static str = "\
Sequential editing (`batch_size: 1` under `solve`) and batched-sequential editing (a larger one). Each round takes the next \
batch of requests, finds its targets on the model of the round before, and writes them on top of all earlier edits. The \
model of a round is always the unedited model plus the sum of all changes so far. An interrupted or extended sequence \
therefore resumes after the last finished round, with the same result in every bit.

With `history` under `solve`, each round also preserves what earlier rounds wrote: H = Σ KₚKₚᵀ over the keys of all earlier rounds is \
added to the metric, P = λC + ρI + H. Their keys are kept with the rounds, and enter the metric as a change of low rank: no round \
factors it anew. With `care`, each round's change is treated before the next round, as in the published code of RECT and SPHERE. The presets `memit_seq`, `alphaedit` and `encore` have a history.

The result is an edited model. `evaluate` scores it after the last round, and with `every: k` after every k-th round too, \
each time on all edits made so far.";
    type Output = UpdateKind;

    fn hands_on() -> Option<&'static str> {
        Some(MODEL.name)
    }

    fn decides_nothing(file: &str) -> bool {
        decides_nothing(file)
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port(), MOMENTS.port(), PLAN.port(), TEMPLATES.port()]
    }

    fn describe(params: &SequenceParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        let (model, plan) = (cx.input(MODEL).model, cx.input(PLAN).plan);
        let layers = cx.input(MOMENTS).layers.filter(|_| params.solve.needs_moments());
        let mut errors = plan.as_ref().map(|plan| check_plan(plan, model.as_ref(), layers)).unwrap_or_default();
        errors.extend(params.targets.check(model.as_ref()).into_iter().map(|error| within("targets", error)));
        let experts = params.solve.check_experts(model.as_ref(), plan.as_ref());
        errors.extend(experts.into_iter().map(|error| within("solve", error)));
        errors.extend(params.solve.check().into_iter().map(|error| within("solve", error)));
        let other = params.solve.check_fact_token(Some(params.targets.fact_token()));
        errors.extend(other.map(|error| within("solve", error)));
        let moments = params.solve.check_moments(Self::NAME, MOMENTS, cx);
        errors.extend(moments.into_iter().map(|error| within("solve", error)));
        errors.extend(plan.as_ref().and_then(|plan| params.targets.check_plan(plan)).map(|e| within("targets", e)));
        if let Some(plan) = plan
            && params.targets.layer() != plan.target_layer
        {
            errors.push(within("targets.layer", target_layer_off(params.targets.layer(), &plan)));
        }
        if let (Some(rounds), Some(count)) = (params.rounds.map(Count::get), cx.input(REQUESTS).requests) {
            let possible = count.div_ceil(params.solve.batch_size(count));
            if rounds > possible {
                let message = format!("{rounds} rounds, but there are requests for {possible}");
                errors.push(FieldError::new("rounds", message).expected(format!("at most {possible}")));
            }
        }
        let low_rank = if params.care.iter().all(RoundCare::stays_low_rank) { None } else { Some(false) };
        let planned = PlannedUpdate { model, batches: Some(1), low_rank };
        if errors.is_empty() { Ok(planned) } else { Err(errors) }
    }

    fn carries() -> &'static [u32] {
        // Version 2 made the same changes, and described them by the last round alone. Version 4 added parameters, a history and a projector,
        // which do nothing where they are left out. Version 5 added after-care of rounds; last digits differ. What version 6 left tells
        // nothing of the last round without one of its edits, and what version 7 left nothing over several layers. Version 8 added a parameter of
        // `targets`.
        &[2, 3, 4, 5, 6, 7]
    }

    fn last_digits() -> &'static [&'static str] {
        &["targets.parallel_requests"]
    }

    fn resolved(params: &SequenceParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("targets.parallel_requests", params.targets.resolved_batch(hardware))]
    }

    fn renamed() -> Renames {
        &[("targets.at_once", "targets.parallel_requests")]
    }

    fn units(params: &SequenceParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        let count = cx.input(REQUESTS).requests?;
        let size = params.solve.batch_size(count);
        Some(rounds_of(params.rounds.map_or(count, |rounds| rounds.get().saturating_mul(size).min(count)), size))
    }

    fn run(params: &SequenceParams, cx: &StageContext) -> Result<Artifact, Error> {
        let base = cx.input(MODEL)?;
        let asked = cx.input(REQUESTS)?;
        let planned = cx.input(PLAN)?;
        let plan = planned.facts.plan.clone();
        let edited: Vec<usize> = plan.steps.iter().map(|step| step.layer).collect();
        let requests = requests(cx, &asked)?;
        let size = params.solve.batch_size(requests.len());
        let split = params.solve.batches(&requests).into_iter().take(params.rounds.map_or(usize::MAX, Count::get));
        let blocks: Vec<&[EditRequest]> = split.map(|range| &requests[range]).collect();
        let model = in_chat(open(cx, &base)?, asked.facts.chat.as_ref())?;
        params.targets.check_here(cx, &model)?;
        let moments = cx.input_opt(MOMENTS)?.filter(|_| params.solve.needs_moments());
        let mut origin = json!({
            "base": base.base(), "moments": moments.as_ref().map(|moments| moments.digest()), "plan": planned.digest(),
            "templates": cx.input_opt(TEMPLATES)?.map(|templates| templates.digest()),
            "with": [params.targets.in_unit_keys(), json!(params.solve)],
        });
        if let Some(chat) = &asked.facts.chat {
            origin["chat"] = json!(chat);
        }
        if !params.care.is_empty() {
            origin["care"] = json!(params.care);
        }
        let (metrics, projectors) =
            params.solve.metrics(cx, &base, moments.as_ref(), &edited, model.decoder.config())?;
        let mut memory = Memory::new(&metrics, params.solve.history())?;
        let mut editor = Editor {
            cx,
            params,
            model: &model,
            metrics,
            templates: at_port(cx, TEMPLATES)?,
            plan,
            origin: cx.unit_key(&origin),
            number: Cell::new(1),
            lost: Cell::new(0),
            norm: OnceCell::new(),
            first: &requests[..params.targets.norm_anchor().unwrap_or_default().min(requests.len())],
        };
        let parallel_requests = params.targets.parallel_requests(cx, &editor.model.decoder);
        let digits = json!({ "batch": target_batch(is_cpu(&editor.model.decoder.device()), parallel_requests) });
        let edits: usize = blocks.iter().map(|block| block.len()).sum();
        let plan = rounds_of(edits, size);
        let bar = cx.progress(plan.what, Some(plan.items as u64));
        let mut rounds = Rounds::new();
        let mut key = editor.origin;
        let mut done = Vec::with_capacity(blocks.len());
        for block in blocks {
            cx.check_interrupt()?;
            let range = rounds.edits()..rounds.edits() + block.len();
            key = units::key(cx, &json!({ "after": key.to_string(), "block": block }), &digits);
            let keys_at = units::key(cx, &json!({ "keys": key.to_string() }), &digits);
            let kept = cx.get_unit(&key).and_then(|bytes| from_bytes(bytes).ok());
            let kept_keys = if memory.is_some() {
                cx.get_unit(&keys_at).and_then(|bytes| keys_of(bytes, &edited))
            } else {
                Some(Keys::new())
            };
            editor.number.set(done.len() + 1);
            let (batch, keys) = if let (Some(batch), Some(keys)) = (kept, kept_keys) {
                bar.keep(block.len() as u64);
                (batch, keys)
            } else {
                let (batch, keys) = editor.round(range, block, &rounds)?;
                if memory.is_some() {
                    cx.put_unit(&keys_at, &keys_to_bytes(&keys)?)?;
                }
                cx.put_unit(&key, &to_bytes(&batch)?)?;
                bar.inc(block.len() as u64);
                (batch, keys)
            };
            if let Some(memory) = &mut memory {
                memory.remember(&keys, &mut editor.metrics)?;
            }
            rounds.push(&batch)?;
            cx.measured("‖Δ‖ of the round", ("edits", rounds.edits()), batch.norm());
            done.push(batch);
        }
        let mut metrics = averages(&done);
        metrics.extend(params.solve.effective_lambda());
        metrics.insert("total_norm".into(), shown::number(rounds.norm()));
        let mut columns = columns();
        columns.push(Column::new("total_norm", "‖ΣΔ‖", Format::Number));
        let facts = UpdateFacts {
            model: base.facts.model.clone(),
            base: base.base(),
            asked: Some(contents(&asked)?),
            requests: Some(requests[..edits].iter().map(|request| request.id.clone()).collect()),
            objective: json!(params.solve),
            plan: json!(editor.plan),
            batches: 1,
            rounds: Some(rounds.facts().to_vec()),
            care: said_of(&params.care)?,
            projectors,
            shown: Shown::table(metrics, columns),
        };
        let made = put(cx, &base, &[rounds.whole()], &facts)?;
        let from = MadeFrom {
            requests: requests[..edits].iter().map(bare).collect(),
            templates: editor.templates,
            targets: json!(params.targets),
            chat: asked.facts.chat.clone(),
            moments: moments.map(|moments| Artifact::clone(&moments)),
        };
        // Of the last round alone: what came later saw every other one.
        add(cx, made, from, [done.last().and_then(|round| round.solved.as_ref())])
    }
}

/// What was done to the changes of every round, in the form in which a stage of its own says it.
fn said_of(care: &[RoundCare]) -> Result<Option<Vec<Map<String, Value>>>, Error> {
    let each = |care: &RoundCare| match serde_json::to_value(care) {
        Ok(Value::Object(mut said)) => {
            said.insert("every_round".into(), json!(true));
            Ok(said)
        }
        other => Err(Error::internal(format!("after-care is no mapping: {other:?}"))),
    };
    if care.is_empty() { Ok(None) } else { care.iter().map(each).collect::<Result<_, _>>().map(Some) }
}

/// Each round is a unit, and edits the model that the one before left.
fn rounds_of(edits: usize, size: usize) -> UnitPlan {
    UnitPlan::new("edits", edits, size).in_one_part()
}

fn within(part: &str, mut error: FieldError) -> FieldError {
    error.field = if error.field.is_empty() { part.to_owned() } else { format!("{part}.{}", error.field) };
    error
}

/// The keys of a round, `[f, B]`, by weight.
type Keys = BTreeMap<WeightId, Mat<f64>>;

/// What earlier rounds wrote, by weight.
struct Memory(BTreeMap<WeightId, Arc<History>>);

impl Memory {
    /// Of no round yet, on the metrics of the corpus; `None` where earlier rounds weigh nothing.
    fn new(metrics: &Preservations, weight: Option<f64>) -> Result<Option<Self>, Error> {
        let Some(weight) = weight else { return Ok(None) };
        let of = |(id, base): (&WeightId, &Arc<dyn Preservation>)| {
            Ok((*id, Arc::new(History::new(Arc::clone(base), weight).map_err(StageFailure::stage)?)))
        };
        Ok(Some(Self(metrics.iter().map(of).collect::<Result<_, Error>>()?)))
    }

    /// Adds a round, and puts what came of it in the place of the metrics.
    fn remember(&mut self, keys: &Keys, metrics: &mut Preservations) -> Result<(), Error> {
        for (id, history) in &mut self.0 {
            // First, so that it is changed where it lies.
            metrics.remove(id);
            if let Some(keys) = keys.get(id) {
                Arc::make_mut(history).remember(keys.as_ref()).map_err(StageFailure::stage)?;
            }
            metrics.insert(*id, Arc::clone(history) as _);
        }
        Ok(())
    }
}

/// The keys of a round as the result of a unit of work.
fn keys_to_bytes(keys: &Keys) -> Result<Vec<u8>, Error> {
    let named = |(id, keys): (&WeightId, &Mat<f64>)| {
        Named::values(id.to_string(), vec![keys.nrows(), keys.ncols()], row_major(keys.as_ref()).into_iter())
    };
    serialize(&keys.iter().map(named).collect::<Vec<_>>(), None)
}

/// The inverse of [`keys_to_bytes`]; `None` where a layer is not in it.
fn keys_of(bytes: Vec<u8>, layers: &[usize]) -> Option<Keys> {
    let tensors = Tensors::new(bytes);
    let read = |&layer: &usize| {
        let id = WeightId::down(layer);
        let (shape, values) = tensors.values(&id.to_string()).ok()?;
        let [f, batch] = shape[..] else { return None };
        Some((id, from_row_major("keys", &values, f, batch).ok()?))
    };
    layers.iter().map(read).collect()
}

/// What every round needs.
struct Editor<'a> {
    cx: &'a StageContext,
    params: &'a SequenceParams,
    model: &'a Loaded,
    metrics: Preservations,
    templates: ContextTemplates,
    plan: Plan,
    origin: Key,
    /// The round at work, counted from 1.
    number: Cell<usize>,
    /// Rounds of which some targets were not found.
    lost: Cell<usize>,
    /// The norm that values are anchored at, once a round needed it.
    norm: OnceCell<f64>,
    /// The requests whose values on the unedited model it is the mean of.
    first: &'a [EditRequest],
}

impl Editor<'_> {
    /// One round: targets and update on the model that the rounds before produced.
    fn round(&self, range: Range<usize>, block: &[EditRequest], before: &Rounds) -> Result<(Batch, Keys), Error> {
        let model = with_edits(&self.model.decoder, before.sums()).map_err(StageFailure::stage)?;
        let text = &self.model.text;
        let settings = self.params.targets.settings();
        let parallel_requests = self.params.targets.parallel_requests(self.cx, &model);
        let chains = match self.params.targets.answer_tokens() {
            Some(tokens) => Some(pieces(text, block, tokens).map_err(StageFailure::stage)?),
            None => None,
        };
        let whole: Vec<EditRequest>;
        let block = match &chains {
            Some(chains) => {
                whole = chains.iter().flatten().cloned().collect();
                whole.as_slice()
            }
            None => block,
        };
        let mut found = self.search(&model, block, chains.as_deref(), &settings, parallel_requests)?;
        let last = settings.layer + 1 == model.config().layers;
        self.say_lost(block, &found, last)?;
        if self.params.targets.norm_anchor().is_some() {
            let n = self.anchor(&settings, parallel_requests)?;
            let edited = Loaded { decoder: model.clone(), text: text.clone() };
            let mut deltas: Vec<&mut Vec<f32>> = found.iter_mut().map(|target| &mut target.delta).collect();
            say_skipped(self.cx, block, &anchored(&edited, block, &self.templates, &settings, &mut deltas, n)?);
        }
        let values: Vec<f32> = found.iter().flat_map(Target::value).collect();
        let edit = Edit {
            objective: self.params.solve.objective(),
            plan: &self.plan,
            templates: &self.templates,
            targets: settings,
            parallel_requests,
            tokens: BatchTokens::KEYS,
        };
        let edits = apply(&model, text, block, &values, &self.metrics, &edit).map_err(StageFailure::stage)?;
        tell_repeated(self.cx, block, &edits.repeated);
        let keys = edits.keys.iter().cloned().collect();
        // Only what sees earlier layers is ever solved again.
        let again: &[f32] = if self.plan.is_apart() { &[] } else { &values };
        let solved = Solved::of(&edits, chains.as_deref(), range.start, settings.rules.merge, again);
        let mut round = Batch { solved: Some(solved), ..Batch::of(range.start, range.end, edits) };
        if !self.params.care.is_empty() {
            round.solved = None;
        }
        for care in &self.params.care {
            care.treat(&model, &self.model.decoder, &mut round)?;
        }
        Ok((round, keys))
    }

    /// Says of a round which searches found nothing; of many such rounds, the first ones.
    fn say_lost(&self, block: &[EditRequest], found: &[Target], last: bool) -> Result<(), Error> {
        const TOLD: usize = 5;
        if self.lost.get() >= TOLD {
            return Ok(());
        }
        let searches: Vec<_> =
            found.iter().map(|target| Search { trace: &target.trace, delta: &target.delta }).collect();
        let place = format!("round {}: ", self.number.get());
        if say_lost(self.cx, &place, block, &searches, last)? {
            self.lost.set(self.lost.get() + 1);
            if self.lost.get() == TOLD {
                self.cx.warn("later rounds whose targets were not found are not reported one by one");
            }
        }
        Ok(())
    }

    /// Targets of a round.
    fn search(
        &self,
        model: &Decoder,
        block: &[EditRequest],
        chains: Option<&[Vec<EditRequest>]>,
        settings: &TargetSettings,
        parallel_requests: usize,
    ) -> Result<Vec<Target>, Error> {
        if let Some(chains) = chains {
            let text = &self.model.text;
            return optimise_pieces(model, text, chains, &self.templates, settings, parallel_requests, |_| {})
                .map_err(StageFailure::stage);
        }
        // Requests that share a target have to be searched for together.
        let size = if settings.rules.merge { block.len().max(1) } else { TARGETS_IN_UNIT };
        let mut targets = Vec::with_capacity(block.len());
        for part in block.chunks(size) {
            self.cx.check_interrupt()?;
            let text = &self.model.text;
            let found = optimise_at_most(model, text, part, &self.templates, settings, parallel_requests, |_| {});
            targets.extend(found.map_err(StageFailure::stage)?);
        }
        Ok(targets)
    }

    /// The norm that values are anchored at: of the first requests' values, found on the unedited model.
    fn anchor(&self, settings: &TargetSettings, parallel_requests: usize) -> Result<f64, Error> {
        if let Some(&known) = self.norm.get() {
            return Ok(known);
        }
        let key = self.cx.unit_key(&json!({ "anchor": self.origin.to_string(), "of": self.first }));
        let kept = self.cx.get_unit(&key).and_then(|bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?)));
        let n = if let Some(kept) = kept {
            kept
        } else {
            let Loaded { decoder, text } = self.model;
            let chains = match self.params.targets.answer_tokens() {
                Some(tokens) => Some(pieces(text, self.first, tokens).map_err(StageFailure::stage)?),
                None => None,
            };
            let first: Vec<EditRequest> = chains
                .as_ref()
                .map_or_else(|| self.first.to_vec(), |chains| chains.iter().flatten().cloned().collect());
            let found = self.search(decoder, &first, chains.as_deref(), settings, parallel_requests)?;
            let deltas: Vec<&[f32]> = found.iter().map(|target| target.delta.as_slice()).collect();
            let n = anchor_norm(decoder, text, &first, &self.templates, settings, &deltas, BatchTokens::KEYS)
                .map_err(StageFailure::stage)?;
            self.cx.put_unit(&key, &n.to_le_bytes())?;
            n
        };
        Ok(*self.norm.get_or_init(|| n))
    }
}
