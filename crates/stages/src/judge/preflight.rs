//! `preflight`: what will go wrong, found in a minute instead of after an hour.

use std::time::Instant;

use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{FactToken, Finding, Findings, Prompt, Severity, Site, Tap, probe, prompts};
use palinode_engine::bounds::{Count, PositiveShare};
use palinode_engine::shown::{self, Column, Format, Sample, Shown};
use palinode_engine::{
    Artifact, DescribeCx, Error, FieldError, Port, PortOf, Renames, StageContext, StageKind, artifact,
};
use palinode_eval::score_requests;
use palinode_math::Mat;
use palinode_model::{Decoder, DecoderConfig, MemoryNeeds, request_bytes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifacts::chat::in_chat;
use crate::artifacts::measurements::PreflightKind;
use crate::artifacts::model::{Loaded, ModelKind, open};
use crate::artifacts::moments::{LayerFacts, MomentsKind};
use crate::artifacts::requests::{RequestsKind, requests};
use crate::artifacts::templates::{TemplatesKind, at_port};
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;

/// Requests whose keys are compared pair by pair.
const COMPARED: usize = 2048;
/// Findings of one kind that are reported one by one.
const TOLD: usize = 5;
/// Requests that the estimate of memory counts where nothing is given: the same on every machine, as a result has to be.
const USUAL_REQUESTS: usize = 16;

/// Parameters of `preflight`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreflightParams {
    /// The layer to edit. Of several layers, give the lowest one, where keys are the most similar.
    layer: usize,
    /// Two requests are reported when the cosine of their keys is at or above this value.
    #[serde(default = "cosine")]
    cosine: PositiveShare,
    /// Steps of `targets`, for the estimates of work and time.
    #[serde(default = "steps")]
    steps: Count,
    /// Requests that `targets` optimises at the same time, for the estimate of memory; 16 where it is left out.
    #[serde(default)]
    parallel_requests: Option<Count>,
    /// Fail if there are findings, so that no stage that depends on this one runs.
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    batch_tokens: BatchTokens,
    /// The token whose keys are read, as at `targets`.
    #[serde(default, skip_serializing_if = "FactToken::is_usual")]
    fact_token: FactToken,
}

fn cosine() -> PositiveShare {
    const { PositiveShare::new(0.95) }
}

fn steps() -> Count {
    const { Count::new(25) }
}

/// The unedited model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The unedited model.");
/// The facts to write.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The facts to write.");
/// The contexts.
const TEMPLATES: PortOf<TemplatesKind> = PortOf::optional("templates", "Contexts over which keys are averaged.");
/// The second moments.
const MOMENTS: PortOf<MomentsKind> = PortOf::optional("moments", "Second moments, to check their number of tokens.");

/// See [`StageKind::DOC`].
pub struct Preflight;

impl StageKind for Preflight {
    type Params = PreflightParams;
    const NAME: &'static str = "preflight";
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "Finds problems of an edit before an hour is spent on it.";
    const DOC: &'static str = "\
Reports, after one short pass over the requests:

  - prompts that are longer than the context with their targets, or have no tokens (these are errors)
  - requests that are equal, that have different targets for the same prompt, or that replace a fact by itself
  - subjects that do not end where a token ends, and prompts that end with a blank
  - keys that are nearly parallel at the layer to edit: no objective can separate such requests
  - targets that the model says already, and facts to replace that it did not know
  - second moments of too few tokens for their size

The samples show the subject token of each request. With `strict`, findings fail the stage.

It also estimates, from the speed of its own pass on this machine, how long targets take for all requests, and how long \
second moments of ten tokens for each key dimension take at `layer`, in seconds; and the most memory that a stage needs, \
weights included, when one layer is edited. The estimate counts tokens through blocks, and a backward pass as two forward \
passes. It gives the order of magnitude.";
    type Output = PreflightKind;

    fn carries() -> &'static [u32] {
        // The same but for last digits.
        &[4]
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port(), TEMPLATES.port(), MOMENTS.port()]
    }

    fn last_digits() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn resolved(params: &PreflightParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("batch_tokens", params.batch_tokens.resolved(BatchTokens::PROMPTS, hardware))]
    }

    fn renamed() -> Renames {
        &[("at_once", "parallel_requests")]
    }

    fn describe(params: &PreflightParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if let Some(facts) = cx.input(MODEL).model {
            errors.extend(facts.check_layers(&[params.layer], |_| "layer".to_owned()));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &PreflightParams, cx: &StageContext) -> Result<Artifact, Error> {
        let asked = cx.input(REQUESTS)?;
        let model = in_chat(open(cx, &cx.input(MODEL)?)?, asked.facts.chat.as_ref())?;
        let requests = requests(cx, &asked)?;
        let templates = at_port(cx, TEMPLATES)?;
        let (begin, work) = (Instant::now(), model.decoder.work());
        let openings: Vec<&str> = templates.weighted().into_iter().map(|(template, _)| template).collect();
        let all: Findings =
            palinode_edit::findings(&requests, &model.text, model.decoder.config(), &openings, params.fact_token);
        let mut findings: Vec<String> = all.iter().map(line).collect();
        if let Some(fatal) = all.iter().find(|finding| finding.severity == Severity::Error) {
            return Err(Error::input(line(fatal)).hint("mend or leave out the request"));
        }
        let rows = rows(&model, &requests, &templates, params.fact_token)?;
        cx.check_interrupt()?;
        let tokens = params.batch_tokens.or(BatchTokens::PROMPTS, &model.decoder);
        findings.extend(parallel(params, &model, &requests, &rows, tokens)?);
        cx.check_interrupt()?;
        let scores = score_requests(&model.decoder, &model.text, &prompts_only(&requests), tokens);
        let scores = scores.map_err(StageFailure::stage)?;
        let said: Vec<usize> = (0..scores.len()).filter(|&i| scores[i].rewrite[0].new.correct()).collect();
        findings.extend(told(&said, |i| {
            format!(
                "the model says {:?} after {:?} already",
                requests[i].target_new.trim(),
                requests[i].filled_prompt()
            )
        }));
        let olds: Vec<bool> = scores.iter().filter_map(|s| Some(s.rewrite[0].old.as_ref()?.correct())).collect();
        let known = olds.iter().filter(|known| **known).count();
        if 2 * known < olds.len() {
            findings.push(format!(
                "the model completes only {known} of the {} facts that are to be replaced: what is edited was hardly known",
                olds.len()
            ));
        }
        if let Some(moments) = cx.input_opt(MOMENTS)? {
            findings.extend(thin(&moments.facts.layers, model.decoder.config()));
        }
        let done = (model.decoder.work() - work).block_tokens as f64;
        let ahead = Ahead::of(params, &model.decoder, &rows);
        cx.say(ahead.times(done / begin.elapsed().as_secs_f64()));
        if params.strict && !findings.is_empty() {
            return Err(Error::input(findings.join("; ")).hint("mend the requests, or set `strict: false`"));
        }
        let samples: Vec<Sample> =
            requests.iter().zip(&rows).take(3).map(|(r, rows)| sample(&model, r, &rows[0])).collect();
        let metrics = [
            ("requests", shown::count(requests.len())),
            ("known", shown::number(known as f64 / olds.len().max(1) as f64)),
            ("findings", shown::count(findings.len())),
            ("targets_tokens", shown::count(ahead.targets)),
            ("moments_tokens", shown::count(ahead.moments)),
            ("memory_gib", shown::number(ahead.memory)),
        ];
        let number = |name, label| Column::new(name, label, Format::Number);
        let columns = vec![
            number("requests", "requests"),
            Column::new("known", "old facts known", Format::Percent),
            number("findings", "findings"),
            number("targets_tokens", "targets, block tokens").doc("estimate for all requests"),
            number("moments_tokens", "second moments, block tokens").doc("estimate for 10 f tokens"),
            number("memory_gib", "memory, GiB").doc("the most that a stage needs"),
        ];
        let table = serde_json::to_vec_pretty(&all).map_err(|error| Error::internal(error.to_string()))?;
        let made = artifact::<PreflightKind>(&Shown {
            samples: Some(samples),
            findings: Some(findings),
            ..Shown::table(metrics.map(|(name, value)| (name.to_owned(), value)).into(), columns)
        })?;
        Ok(made.with_file("findings.json", cx.put_bytes(&table)?))
    }
}

/// What is ahead.
struct Ahead {
    /// Tokens that targets send through one block, a backward pass counted as two forward passes.
    targets: usize,
    /// Tokens that second moments send through one block.
    moments: usize,
    /// GiB.
    memory: f64,
}

impl Ahead {
    fn of(params: &PreflightParams, decoder: &Decoder, rows: &[Vec<Prompt>]) -> Self {
        const BACK_AND_FORTH: usize = 3;
        let config = decoder.config();
        let above = config.layers.saturating_sub(params.layer + 1);
        let rows = rows.iter().flatten();
        let (whole, after) =
            rows.fold((0, 0), |(whole, after), row| (whole + row.ids.len(), after + row.ids.len() - row.fact));
        let targets = whole * config.layers + after * above * params.steps.get() * BACK_AND_FORTH;
        let moments = 10 * config.used_key() * (params.layer + 1);
        let needs = MemoryNeeds::of(config, 0);
        let targets_need =
            params.parallel_requests.map_or(USUAL_REQUESTS, Count::get) as u64 * request_bytes(config, above);
        let most = targets_need.max(needs.solve_layer).max(needs.covariance_layer);
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        Self { targets, moments, memory: rounded((decoder.resident_bytes() + most) as f64 / (1u64 << 30) as f64) }
    }

    /// How long that takes at `throughput` tokens through one block in a second.
    fn times(&self, throughput: f64) -> String {
        let seconds = |tokens: usize| tokens as f64 / throughput.max(f64::MIN_POSITIVE);
        let (targets, moments) = (seconds(self.targets), seconds(self.moments));
        format!(
            "at this pass's throughput, targets take about {targets:.0} s and second moments of 10 f tokens about {moments:.0} s"
        )
    }
}

/// The first findings one by one, and how many more there are.
fn told(which: &[usize], tell: impl Fn(usize) -> String) -> Vec<String> {
    let mut lines: Vec<String> = which.iter().take(TOLD).map(|&i| tell(i)).collect();
    if which.len() > TOLD {
        lines.push(format!("… and {} more like the last", which.len() - TOLD));
    }
    lines
}

/// A finding in one line.
fn line(finding: &Finding) -> String {
    let request = finding.request.as_ref().map(|id| format!("request {id}: ")).unwrap_or_default();
    format!("{request}{}", finding.words)
}

/// Every request's prompts, the bare one first.
fn rows(
    model: &Loaded,
    requests: &[EditRequest],
    templates: &ContextTemplates,
    at: FactToken,
) -> Result<Vec<Vec<Prompt>>, Error> {
    let of = |request: &EditRequest| {
        let weighted = prompts::contexts(request, templates);
        let config = model.decoder.config();
        let row = |(template, _): &(&str, f64)| prompts::prompt_at(&model.text, config, request, template, at);
        weighted.iter().map(row).collect::<Result<Vec<_>, _>>()
    };
    requests.iter().map(of).collect::<Result<Vec<_>, _>>().map_err(StageFailure::stage)
}

/// Pairs of requests whose keys point nearly the same way.
fn parallel(
    params: &PreflightParams,
    model: &Loaded,
    requests: &[EditRequest],
    rows: &[Vec<Prompt>],
    tokens: usize,
) -> Result<Vec<String>, Error> {
    let bare: Vec<Prompt> = rows.iter().take(COMPARED).map(|rows| rows[0].clone()).collect();
    let tap = Tap { layer: params.layer, site: Site::Key };
    let keys = probe(&model.decoder, &bare, &[tap], tokens).map_err(StageFailure::stage)?.remove(0);
    let f = model.decoder.config().key_size(params.layer);
    let norms: Vec<f64> =
        keys.chunks_exact(f).map(|key| key.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()).collect();
    let unit = Mat::from_fn(f, bare.len(), |i, b| f64::from(keys[b * f + i]) / norms[b].max(f64::MIN_POSITIVE));
    let cosines = unit.transpose() * &unit;
    let mut close: Vec<(f64, usize, usize)> = Vec::new();
    for a in 0..bare.len() {
        let near = (a + 1..bare.len()).filter(|&b| cosines[(a, b)] >= params.cosine.get());
        close.extend(near.map(|b| (cosines[(a, b)], a, b)));
    }
    close.sort_by(|x, y| y.0.total_cmp(&x.0));
    let all: Vec<usize> = (0..close.len()).collect();
    Ok(told(&all, |p| {
        let (cosine, a, b) = close[p];
        let name = |i: usize| format!("{} ({:?})", requests[i].id, requests[i].subject);
        format!("keys of requests {} and {} have cosine {cosine:.3} at layer {}", name(a), name(b), params.layer)
    }))
}

/// Second moments of fewer than ten tokens for each dimension.
fn thin(layers: &[LayerFacts], config: &DecoderConfig) -> Vec<String> {
    let of = |facts: &LayerFacts| -> Vec<String> {
        let (layer, wanted) = (facts.layer, |size: usize| 10 * size as u64);
        let (Some(experts), Some(counts)) = (config.mixture(layer), &facts.experts) else {
            let (tokens, wanted) = (facts.tokens, wanted(config.key_size(layer)));
            let few =
                format!("the second moment of layer {layer} is of {tokens} tokens; {wanted} or more are wanted (10 f)");
            return if tokens < wanted { vec![few] } else { Vec::new() };
        };
        let parts = counts.iter().zip(experts.parts()).enumerate();
        let few = parts.filter(|(_, (tokens, range))| **tokens < wanted(range.len()));
        few.map(|(part, (tokens, range))| {
            let (expert, wanted) = (experts.id(part).words(), wanted(range.len()));
            format!(
                "the second moment of layer {layer}, {expert} is of {tokens} tokens; {wanted} or more are wanted (10 f)"
            )
        })
        .collect()
    };
    layers.iter().flat_map(of).collect()
}

/// Requests without the prompts that judge them.
fn prompts_only(requests: &[EditRequest]) -> Vec<EditRequest> {
    let bare = |r: &EditRequest| EditRequest {
        id: r.id.clone(),
        prompt: r.prompt.clone(),
        subject: r.subject.clone(),
        target_new: r.target_new.clone(),
        target_true: r.target_true.clone(),
        ..EditRequest::default()
    };
    requests.iter().map(bare).collect()
}

/// A prompt with the token that the edit's key is read at.
fn sample(model: &Loaded, request: &EditRequest, row: &Prompt) -> Sample {
    let text = |ids: &[u32]| model.text.decode(ids).unwrap_or_default();
    let place = format!("{:?}, token {} of {}", text(&row.ids[row.fact..=row.fact]), row.fact + 1, row.ids.len());
    let target = request.target_new.trim().to_owned();
    shown::sample([("prompt", request.filled_prompt()), ("new target", target), ("key read at", place)])
}
