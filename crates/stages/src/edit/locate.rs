//! `locate`: which layers to edit, by trying.

use std::fmt::Write as _;

use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{
    Edit, FactToken, Preservations, Target, TargetRules, TargetSettings, TargetSite, apply, optimise_at_most,
    with_edits,
};
use palinode_engine::bounds::{Count, NonNegative, Positive};
use palinode_engine::shown::{self, Column, Format, Intervals, Series, Shown, Values};
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind, artifact};
use palinode_eval::{Group, RecordScores, Scored, Summary, holm, paired, score_requests};
use palinode_math::{Objective, ObjectiveKind, PreservationWeights, Ridge, RomeKey, Strategy};
use palinode_model::WeightId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::artifacts::chat::in_chat;
use crate::artifacts::factors::{MomentsOrFactors, metrics};
use crate::artifacts::locate::{LocateFacts, LocateKind, Start, TRIES};
use crate::artifacts::model::{HasModel, Loaded, ModelKind, open};
use crate::artifacts::requests::{RequestsKind, requests};
use crate::artifacts::templates::{TemplatesKind, at_port};
use crate::edit::batch_limits::{self, BatchTokens};
use crate::edit::solve::same_model;
use crate::errors::StageFailure;
use crate::judge::evaluate::shown as scores;
use crate::judge::measured::step;
use crate::units;

/// Layers that are tried where none are named.
const LAYERS: usize = 12;
/// Seed of the intervals.
const SEED: u64 = 1;

/// Parameters of `locate`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocateParams {
    /// The layers to try. The default is every layer but the last, of deep models twelve of them, evenly spaced.
    #[serde(default)]
    #[schemars(length(min = 1))]
    layers: Option<Vec<usize>>,
    /// How a layer absorbs an edit.
    #[serde(default = "emmet")]
    objective: ObjectiveKind,
    /// MEMIT's λ, the weight of preservation. Single edits of the other objectives do not depend on it.
    #[serde(default = "lambda")]
    lambda: Positive,
    /// ρ, the weight of the change's norm: keeps a change small where the corpus is small.
    #[serde(default)]
    update_norm_lambda: NonNegative,
    /// Evaluations of the targets' loss.
    #[serde(default = "steps")]
    steps: Count,
    /// Adam's step size.
    #[serde(default = "rate")]
    learning_rate: Positive,
    /// Weight of the divergence on "{subject} is a".
    #[serde(default = "kl")]
    kl_factor: NonNegative,
    /// Weight decay of the targets.
    #[serde(default = "decay")]
    weight_decay: NonNegative,
    /// Bounds on ‖δ‖/‖h₀‖: all layers are tried with the first, and the best layer with the others too.
    #[serde(default = "clamps")]
    #[schemars(length(min = 1))]
    clamps: Vec<Positive>,
    /// Number of bootstrap samples for the 95 % intervals; 0 for no intervals.
    #[serde(default = "thousand")]
    resamples: usize,
}

fn emmet() -> ObjectiveKind {
    ObjectiveKind::Emmet
}

fn lambda() -> Positive {
    const { Positive::new(15000.0) }
}

fn steps() -> Count {
    const { Count::new(20) }
}

fn rate() -> Positive {
    const { Positive::new(0.5) }
}

fn kl() -> NonNegative {
    const { NonNegative::new(0.0625) }
}

fn decay() -> NonNegative {
    const { NonNegative::new(0.5) }
}

fn clamps() -> Vec<Positive> {
    const { [Positive::new(4.0), Positive::new(0.75)] }.to_vec()
}

fn thousand() -> usize {
    1000
}

/// The model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The unedited model.");
/// The facts.
const REQUESTS: PortOf<RequestsKind> =
    PortOf::required("requests", "A few facts to try, with paraphrases and neighbours that judge the edits.");
/// What edits should leave alone.
const MOMENTS: PortOf<MomentsOrFactors> = PortOf::optional(
    "moments",
    "Second moments of the layers, or their factors. Without them, each change has the smallest norm that does the edit.",
);
/// The contexts.
const TEMPLATES: PortOf<TemplatesKind> =
    PortOf::optional("templates", "Contexts in which the edits must hold. The default is the bare prompt alone.");

/// One try: a layer and a clamp.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Try {
    layer: usize,
    clamp: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tried {
    /// Record by record, each on a model with that one edit.
    scores: Vec<RecordScores>,
    /// Mean ‖Δ‖/‖W‖.
    relative_norm: f32,
}

/// See [`StageKind::DOC`].
pub struct Locate;

impl StageKind for Locate {
    type Params = LocateParams;
    const NAME: &'static str = "locate";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Says which layer to edit, by a few edits at each.";
    const DOC: &'static str = "\
Every fact is edited by itself at each of the layers, and judged as `evaluate` does: efficacy, paraphrase, locality. The layer \
with the best score is where to start; then the other clamps are tried there. The score is S, the harmonic mean of ES, PS and NS, \
where the facts have true targets, paraphrases and neighbours; else the first of ES and efficacy that there is.

A layer is called clearly best only where the paired difference to every other layer is shown, after Holm's adjustment; else the \
result names the layers that are not shown to be worse. With a few facts that is the rule: the result says on how many it rests.

The cost is that of facts × layers edits. Each layer's tries are kept as they finish.";
    type Output = LocateKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port(), MOMENTS.port(), TEMPLATES.port()]
    }

    fn describe(params: &LocateParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if let Some(layers) = &params.layers {
            if layers.is_empty() {
                errors.push(FieldError::new("layers", "`layers` is empty").expected("one layer or more"));
            }
            if let Some(at) = (1..layers.len()).find(|&at| layers[..at].contains(&layers[at])) {
                errors
                    .push(FieldError::new(format!("layers[{at}]"), format!("layer {} stands there twice", layers[at])));
            }
            if let Some(model) = cx.input(MODEL).model {
                errors.extend(model.check_layers(layers, |i| format!("layers[{i}]")));
            }
        }
        if params.clamps.is_empty() {
            errors.push(FieldError::new("clamps", "`clamps` is empty").expected("one number or more"));
        }
        if let (Some(have), Some(model)) = (cx.input(MOMENTS).layers, cx.input(MODEL).model) {
            let missing: Vec<usize> = params.layers(model.layers).into_iter().filter(|l| !have.contains(l)).collect();
            if !missing.is_empty() {
                let named = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                errors.push(
                    FieldError::new("layers", format!("there are no second moments of layers {named}"))
                        .expected("layers that `moments` has")
                        .hint("give `covariance` the same `layers`; one pass over the corpus measures all of them"),
                );
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &LocateParams, cx: &StageContext) -> Result<Artifact, Error> {
        let (base, asked) = (cx.input(MODEL)?, cx.input(REQUESTS)?);
        let chat = asked.facts.chat.as_ref();
        let model = in_chat(open(cx, &base)?, chat)?;
        let requests = requests(cx, &asked)?;
        if requests.is_empty() {
            return Err(Error::input("there is no fact to try"));
        }
        let templates = at_port(cx, TEMPLATES)?;
        let layers = params.layers(model.decoder.config().layers);
        let moments = cx.input_opt(MOMENTS)?;
        if let Some(moments) = &moments {
            same_model(&base, &moments.facts.base, "second moments")?;
        }
        let others = params.clamps.len() - 1;
        let bar = cx.progress("edits", Some((requests.len() * (layers.len() + others)) as u64));
        let of = json!({
            "base": base.base(), "moments": moments.as_ref().map(|moments| moments.digest()), "templates": templates,
            "chat": chat, "facts": requests, "objective": params.objective, "lambda": params.lambda,
            "update_norm_lambda": params.update_norm_lambda, "steps": params.steps,
            "learning_rate": params.learning_rate, "kl_factor": params.kl_factor, "weight_decay": params.weight_decay,
        });
        let attempt = |one: Try| -> Result<Tried, Error> {
            cx.check_interrupt()?;
            let key = units::key(cx, &json!({ "of": of, "layer": one.layer, "clamp": one.clamp }), &Value::Null);
            let kept = cx.get_unit(&key).and_then(|bytes| serde_json::from_slice::<Tried>(&bytes).ok());
            if let Some(kept) = kept {
                bar.keep(requests.len() as u64);
                return Ok(kept);
            }
            let metrics = if let Some(moments) = &moments {
                metrics(cx, moments, &[one.layer], params.weights())?
            } else {
                let weights = PreservationWeights { lambda: 1.0, rho: 0.0 };
                let ridge =
                    Ridge::new(model.decoder.config().key_size(one.layer), weights).map_err(StageFailure::stage)?;
                Preservations::from([(WeightId::down(one.layer), Arc::new(ridge) as _)])
            };
            let parallel = batch_limits::requests(None, &model.decoder, one.layer, cx.strict());
            let tried = params.attempt(&model, &requests, &templates, &metrics, one, parallel, &|| bar.inc(1))?;
            let bytes = serde_json::to_vec(&tried).map_err(|error| Error::internal(error.to_string()))?;
            cx.put_unit(&key, &bytes)?;
            // What was kept is what is gone on with, so that a cut never shows.
            serde_json::from_slice(&bytes).map_err(|error| Error::internal(error.to_string()))
        };

        let unedited = score_requests(&model.decoder, &model.text, &requests, BatchTokens::PROMPTS)
            .map_err(StageFailure::stage)?;
        let first = params.clamps[0].get();
        let mut tries = Vec::new();
        for &layer in &layers {
            let one = Try { layer, clamp: first };
            let tried = attempt(one)?;
            let shown = Found::of(one, tried, &unedited);
            if let Some(value) = shown.metric(&metric_of(std::slice::from_ref(&shown))) {
                cx.measured("score", ("layer", layer), value);
            }
            tries.push(shown);
        }
        let metric = metric_of(&tries);
        let best = best(&tries, &metric);
        let layer = tries[best].of.layer;
        for clamp in &params.clamps[1..] {
            let one = Try { layer, clamp: clamp.get() };
            tries.push(Found::of(one, attempt(one)?, &unedited));
        }
        let (by_layer, by_clamp) = tries.split_at(layers.len());
        let (clear, alike) = compared(by_layer, best, &metric);
        let mut clamp = first;
        let of_layer: Vec<&Found> = std::iter::once(&by_layer[best]).chain(by_clamp).collect();
        if let Some(other) = better_clamp(&of_layer, &metric) {
            clamp = other;
        }
        let start = Start { layer, clamp, metric, facts: requests.len(), layers, clear, alike };
        let shown = params.shown(&start, &tries, best);
        let lines = lines(&tries)?;
        Ok(artifact::<LocateKind>(&LocateFacts { start, shown })?.with_file(TRIES, cx.put_bytes(&lines)?))
    }
}

impl LocateParams {
    /// The layers to try, in a model of so many.
    fn layers(&self, layers: usize) -> Vec<usize> {
        if let Some(given) = &self.layers {
            let mut given = given.clone();
            given.sort_unstable();
            return given;
        }
        candidates(layers)
    }

    fn weights(&self) -> PreservationWeights {
        PreservationWeights { lambda: self.lambda.get(), rho: self.update_norm_lambda.get() }
    }

    /// Edits each fact by itself, and scores it.
    #[expect(clippy::too_many_arguments, reason = "a try is made of these")]
    fn attempt(
        &self,
        model: &Loaded,
        requests: &[EditRequest],
        templates: &ContextTemplates,
        metrics: &Preservations,
        one: Try,
        parallel_requests: usize,
        done: &dyn Fn(),
    ) -> Result<Tried, Error> {
        let settings = TargetSettings {
            site: TargetSite::BlockOutput,
            layer: one.layer,
            fact_token: FactToken::SubjectLast,
            steps: self.steps.get(),
            learning_rate: self.learning_rate.get(),
            kl_factor: self.kl_factor.get(),
            weight_decay: self.weight_decay.get(),
            clamp: one.clamp,
            stop_loss: 0.05,
            rules: TargetRules::default(),
        };
        let Loaded { decoder, text } = model;
        let targets = optimise_at_most(decoder, text, requests, templates, &settings, parallel_requests, |_| {})
            .map_err(StageFailure::stage)?;
        let plan = Strategy::Single.plan(&[one.layer]).map_err(StageFailure::stage)?;
        let edit = Edit {
            objective: Objective::new(self.objective, 0.0, RomeKey::default()),
            plan: &plan,
            templates,
            targets: settings,
            parallel_requests,
            tokens: BatchTokens::KEYS,
        };
        let (mut scores, mut norms) = (Vec::with_capacity(requests.len()), 0.0);
        for (request, target) in requests.iter().zip(&targets) {
            let alone = std::slice::from_ref(request);
            let applied =
                apply(decoder, text, alone, &Target::value(target), metrics, &edit).map_err(StageFailure::stage)?;
            let changes = applied.layers.iter().map(|layer| (layer.weight, &layer.delta));
            let edited = with_edits(decoder, changes).map_err(StageFailure::stage)?;
            norms += applied.layers.iter().map(|layer| layer.delta.frobenius() / layer.weight_norm).fold(0.0, f64::max);
            scores.extend(score_requests(&edited, text, alone, BatchTokens::PROMPTS).map_err(StageFailure::stage)?);
            done();
        }
        Ok(Tried { scores, relative_norm: (norms / requests.len() as f64) as f32 })
    }

    /// What people are shown.
    fn shown(&self, start: &Start, tries: &[Found], best: usize) -> Shown {
        let groups = if start.metric == "efficacy" { [Group::ZsRe] } else { [Group::CounterFact] };
        let chosen = tries.iter().find(|found| found.of.layer == start.layer && found.of.clamp == start.clamp);
        let chosen = chosen.unwrap_or(&tries[best]);
        let own = |found: &Found| {
            let mut values = scores::values(&found.summary, &groups);
            values.insert("relative_norm".into(), shown::number(f64::from(found.relative_norm)));
            values
        };
        let intervals =
            |found: &Found| -> Intervals { scores::intervals(&found.summary, &groups, self.resamples, SEED) };
        let mut metrics: Values = own(chosen);
        metrics.insert("start_layer".into(), shown::count(start.layer));
        metrics.insert("start_clamp".into(), shown::number(start.clamp));
        metrics.insert("facts".into(), shown::count(start.facts));
        let plain = |name: &str, label: &str, doc: &str| Column::new(name, label, Format::Number).ranked(None).doc(doc);
        let mut columns = vec![
            plain("start_layer", "layer", "the layer to start from"),
            plain("start_clamp", "clamp", "the bound on ‖δ‖/‖h₀‖ to start from"),
            plain("facts", "facts", "facts that were edited at every layer, each by itself"),
        ];
        columns.extend(scores::columns(&chosen.summary, &groups, false));
        columns.push(Column::new("relative_norm", "‖Δ‖/‖W‖", Format::Percent).doc("mean relative norm of the changes"));
        let row = |found: &Found| {
            let mut step = step(0, 0, own(found), intervals(found));
            step.values.remove("round");
            step.values.remove("edits");
            step.values.insert("clamp".into(), shown::number(found.of.clamp));
            step.values.insert("layer".into(), shown::count(found.of.layer));
            step
        };
        let axes =
            if self.clamps.len() > 1 { vec!["clamp".to_owned(), "layer".to_owned()] } else { vec!["layer".to_owned()] };
        let series = Series { label: "layers".to_owned(), axes, rows: tries.iter().map(row).collect() };
        Shown {
            metrics: Some(metrics),
            columns: Some(columns),
            intervals: Some(intervals(chosen)),
            series: Some(series),
            findings: Some(findings(start, chosen)).filter(|found| !found.is_empty()),
            ..Shown::default()
        }
    }
}

/// The layers that are tried where none are named, in a model of so many: every one but the last, of deep models twelve, evenly spaced.
pub fn candidates(layers: usize) -> Vec<usize> {
    // Above the last one nothing looks back at the subject's token.
    let all = layers.saturating_sub(1).max(1);
    let count = all.min(LAYERS);
    let mut found: Vec<usize> = (0..count).map(|i| i * (all - 1) / (count - 1).max(1)).collect();
    found.dedup();
    found
}

/// A try with its scores.
struct Found {
    of: Try,
    summary: Summary,
    scored: Scored,
    scores: Vec<RecordScores>,
    relative_norm: f32,
}

impl Found {
    fn of(of: Try, tried: Tried, before: &[RecordScores]) -> Self {
        Self {
            of,
            summary: Summary::between(before, &tried.scores),
            scored: Scored::new(before, &tried.scores),
            scores: tried.scores,
            relative_norm: tried.relative_norm,
        }
    }

    fn metric(&self, name: &str) -> Option<f64> {
        self.summary.get(name).filter(|value| value.is_finite())
    }
}

/// The metric that decides: the first that all tries have.
fn metric_of(tries: &[Found]) -> String {
    let has = |name: &&str| tries.iter().all(|found| found.summary.get(name).is_some());
    ["S", "ES", "efficacy"].into_iter().find(has).unwrap_or("efficacy").to_owned()
}

/// The try with the most; of equals the one whose edits are the most certain, and of those the first.
fn best(tries: &[Found], metric: &str) -> usize {
    let of = |found: &Found| {
        // A harmonic mean with a part that is 0 is 0, and a margin tells such layers apart.
        let value = found.metric(metric).unwrap_or(0.0);
        let margin = found.metric("EM").unwrap_or(0.0) + found.metric("PM").unwrap_or(0.0);
        (value, margin)
    };
    let mut best = (0, of(&tries[0]));
    for (at, found) in tries.iter().enumerate().skip(1) {
        let now = of(found);
        if now > best.1 {
            best = (at, now);
        }
    }
    best.0
}

/// Whether a try is shown to be better than every other, and the layers that are not shown to be worse.
fn compared(tries: &[Found], best: usize, metric: &str) -> (bool, Vec<usize>) {
    let one = |at: usize| vec![(String::new(), &tries[at].scored)];
    let others: Vec<usize> = (0..tries.len()).filter(|&at| at != best).collect();
    let pairs: Vec<_> = others.iter().map(|&at| paired(&one(at), &one(best), metric)).collect();
    let adjusted = holm(&pairs.iter().map(|pair| pair.as_ref().map_or(1.0, |pair| pair.p)).collect::<Vec<_>>());
    let worse = |at: usize| {
        let pair = pairs[at].as_ref();
        pair.is_some_and(|pair| pair.difference > 0.0 && pair.shown(adjusted[at]))
    };
    let alike: Vec<usize> =
        others.iter().enumerate().filter(|(at, _)| !worse(*at)).map(|(_, &other)| tries[other].of.layer).collect();
    (alike.is_empty() && !others.is_empty(), alike)
}

/// Another clamp than the first that is shown to be better, where one is: the first is the usual one.
fn better_clamp(tries: &[&Found], metric: &str) -> Option<f64> {
    let (first, others) = tries.split_first()?;
    let pairs: Vec<_> = others
        .iter()
        .map(|other| paired(&vec![(String::new(), &first.scored)], &vec![(String::new(), &other.scored)], metric))
        .collect();
    let adjusted = holm(&pairs.iter().map(|pair| pair.as_ref().map_or(1.0, |pair| pair.p)).collect::<Vec<_>>());
    let shown = |at: &usize| pairs[*at].as_ref().is_some_and(|p| p.difference > 0.0 && p.shown(adjusted[*at]));
    let better = (0..others.len()).filter(shown);
    let most = better.max_by(|a, b| {
        let value = |at: usize| others[at].metric(metric).unwrap_or(0.0);
        value(*a).total_cmp(&value(*b))
    });
    most.map(|at| others[at].of.clamp)
}

/// What a reader must know of the choice.
fn findings(start: &Start, chosen: &Found) -> Vec<String> {
    let mut findings = Vec::new();
    let facts = if start.facts == 1 { "1 fact".to_owned() } else { format!("{} facts", start.facts) };
    if !start.clear && start.layers.len() > 1 {
        let mut text = format!("no clear best layer on {facts}: {} has the highest {}", start.layer, start.metric);
        let alike = start.alike.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let _ =
            write!(text, ", and {alike} {} not shown to be worse", if start.alike.len() == 1 { "is" } else { "are" });
        findings.push(text);
    }
    let took = ["ES", "efficacy"].into_iter().find_map(|name| chosen.metric(name));
    if took.is_some_and(|took| took < 0.5) {
        findings.push(format!(
            "at no layer did most edits take ({facts}): other steps, clamps or learning rates are worth a try"
        ));
    }
    findings
}

/// Every try, one JSON object a line.
fn lines(tries: &[Found]) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for found in tries {
        let line = json!({
            "layer": found.of.layer, "clamp": found.of.clamp, "relative_norm": found.relative_norm,
            "records": found.scores,
        });
        serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
