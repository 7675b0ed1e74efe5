//! `trace`: which states of a model carry a fact.

use std::fmt::Write as _;
use std::ops::Range;

use palinode_data::EditRequest;
use palinode_edit::FactToken;
use palinode_edit::prompts::prompt_at;
use palinode_engine::bounds::{Count, Positive};
use palinode_engine::shown::{self, Column, Format, Intervals, Shown, Values};
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind, artifact};
use palinode_eval::{
    Knowledge, Role, TraceKind, TracePrompt, TraceRules, Traced, embedding_deviation, knowledge, mean_and_deviation,
    noise, student, trace,
};
use palinode_model::Text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::requests::{RequestsKind, requests};
use crate::artifacts::tensors::{Named, put};
use crate::artifacts::trace::{AVERAGES, Averages, Effects, NOISE, PROMPTS, TraceArtifact, TraceFacts};
use crate::artifacts::update::AnyModel;
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::judge::versions::Versions;
use crate::units::Units;

/// Prompts in a unit.
const UNIT: usize = 4;
/// Prompts that are named where they were left out.
const NAMED: usize = 8;

/// What a prompt should be continued with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// What was true before an edit: where an unedited model keeps it.
    #[default]
    TargetTrue,
    /// The new target: where an edited model keeps it.
    TargetNew,
}

/// Parameters of `trace`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceParams {
    /// What is restored, each a heat map: hidden states; outputs of the feed-forward or of attention in a window of layers; hidden states with
    /// feed-forward or attention severed.
    #[serde(default = "all_kinds")]
    #[schemars(length(min = 1))]
    restore: Vec<TraceKind>,
    /// Number of layers in a window.
    #[serde(default = "ten")]
    window: Count,
    /// Standard deviation of the noise, in standard deviations of the embeddings of the subjects' tokens.
    #[serde(default = "three")]
    noise: Positive,
    /// Number of draws of noise for each prompt.
    #[serde(default = "ten")]
    draws: Count,
    /// Seed of the noise.
    #[serde(default = "one")]
    seed: u64,
    /// The answer whose probability is traced.
    #[serde(default)]
    answer: Answer,
    /// Trace the probability of the whole answer, the geometric mean over its tokens. The default is its first token, as published.
    #[serde(default)]
    whole_answer: bool,
    /// Trace prompts too whose answer the model does not know.
    #[serde(default)]
    all_prompts: bool,
    #[serde(default)]
    batch_tokens: BatchTokens,
}

fn all_kinds() -> Vec<TraceKind> {
    TraceKind::ALL.to_vec()
}

fn ten() -> Count {
    const { Count::new(10) }
}

fn three() -> Positive {
    const { Positive::new(3.0) }
}

fn one() -> u64 {
    1
}

/// The model.
const MODEL: PortOf<AnyModel> = PortOf::required("model", "The model, edited or not.");
/// The facts.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "Facts that the model knows.");

/// See [`StageKind::DOC`].
pub struct Trace;

impl StageKind for Trace {
    type Params = TraceParams;
    const NAME: &'static str = "trace";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Causal tracing: which tokens and layers carry a fact.";
    const DOC: &'static str = "\
The causal tracing of ROME's paper. A prompt runs as it is, with noise on the embeddings of its subject, and with noise and one \
state put back as it was without it. The indirect effect of a state is p(answer) with the state put back, less p(answer) with \
noise alone, as a mean over draws of the noise; the total effect is p(answer) without noise, less that with it.

  hidden             the hidden state of one token after one layer
  mlp, attention     one token's outputs of the feed-forward or of attention, in a window of layers around one
  mlp_severed,       as hidden, but the token's outputs of that part stay those of the noisy run in all layers
  attention_severed

Prompts whose answer the model does not know, where another token is the most probable one, are left out; findings name them. \
`all_prompts` traces them as well. Averages are taken by the token's role in its prompt (first, middle and last subject token, first following token, further \
tokens, last token), over the tokens of a prompt first, then over prompts, with Student's 95 % intervals over prompts.

Only what can differ is computed: tokens from the restored one on, layers above it. The result keeps every effect \
(prompts.jsonl), the averages (averages.csv), and the noise itself (noise.safetensors): the tensor `noise` [draws, tokens, d], of \
which a subject of n tokens gets the first n, so that another program can use the same.";
    type Output = TraceArtifact;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port()]
    }

    fn last_digits() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn resolved(params: &TraceParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("batch_tokens", params.batch_tokens.resolved(BatchTokens::PROMPTS, hardware))]
    }

    fn describe(params: &TraceParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if params.restore.is_empty() {
            let names = TraceKind::ALL.map(TraceKind::name).join(", ");
            errors.push(FieldError::new("restore", "`restore` is empty").expected(format!("some of {names}")));
        }
        for (at, kind) in params.restore.iter().enumerate() {
            if params.restore[..at].contains(kind) {
                let message = format!("`{}` stands there twice", kind.name());
                errors.push(FieldError::new(format!("restore[{at}]"), message));
            }
        }
        if cx.input(MODEL).batches.is_some_and(|count| count > 1) {
            errors.push(
                FieldError::new("", "the model was edited in several batches, each an edit of its own")
                    .hint("trace a model with one batch: leave `batch_size` out, or export one batch and load it"),
            );
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &TraceParams, cx: &StageContext) -> Result<Artifact, Error> {
        let (given, asked) = (cx.input(MODEL)?, cx.input(REQUESTS)?);
        let requests = requests(cx, &asked)?;
        let all = Versions::open(cx, &given, asked.facts.chat.as_ref())?;
        let version = if all.edits.is_empty() { all.unedited() } else { all.batch(0)? };
        let (decoder, text) = (&version.decoder, &all.model.text);
        let prompts = requests.iter().map(|request| params.prompt(text, decoder.config(), request));
        let prompts: Vec<TracePrompt> = prompts.collect::<Result<_, _>>()?;
        let tokens = params.batch_tokens.or(BatchTokens::PROMPTS, decoder);
        let known = knowledge(decoder, &prompts, tokens).map_err(StageFailure::stage)?;
        let (mut traced_of, mut items) = (Vec::new(), Vec::new());
        for (i, _) in known.iter().enumerate().filter(|(_, known)| known.known || params.all_prompts) {
            traced_of.push(i);
            items.push(&prompts[i]);
        }
        if items.is_empty() && requests.is_empty() {
            return Err(Error::input("there is no fact to trace"));
        }
        if items.is_empty() {
            let message = format!("the model knows the answer of none of the {} requests", requests.len());
            let hint =
                "tracing needs facts that the model states by itself: its most probable next token is the answer";
            return Err(Error::input(message).hint(hint));
        }

        // Each by itself, without what the tokenizer puts before every text.
        let subjects = requests.iter().map(|request| text.encode_continuation(request.subject.trim()));
        let subjects: Vec<Vec<u32>> = subjects.collect::<Result<_, _>>().map_err(StageFailure::stage)?;
        let deviation = embedding_deviation(decoder, &subjects).map_err(StageFailure::stage)?;
        let level = deviation * params.noise.get();
        let size = decoder.config().hidden;
        let longest = items.iter().map(|prompt| prompt.subject.len()).max().unwrap_or(0);
        let noise = noise(params.seed, params.draws.get(), longest, size, level);

        let bar = cx.progress("prompts", Some(items.len() as u64));
        let of = json!({
            "model": version.name, "restore": params.restore, "window": params.window, "draws": params.draws,
            "seed": params.seed, "noise": level.to_bits(),
        });
        let units = Units { cx, bar: &bar, size: UNIT, digits: json!({ "batch_tokens": tokens }) };
        let rules =
            TraceRules { kinds: &params.restore, window: params.window.get(), noise: &noise, batch_tokens: tokens };
        let traced = units.run(&of, &items, |unit| {
            let prompts: Vec<TracePrompt> = unit.iter().map(|prompt| (*prompt).clone()).collect();
            let traced = trace(decoder, &prompts, &rules).map_err(StageFailure::stage)?;
            bar.inc(unit.len() as u64);
            Ok(traced)
        })?;

        let found: Vec<(&TracePrompt, Traced)> = items.into_iter().zip(traced).collect();
        let averages = Averages {
            prompts: found.len(),
            unknown: requests.len() - found.len(),
            layers: decoder.config().layers,
            window: params.window.get(),
            draws: params.draws.get(),
            deviation,
            noise: level,
            clean: mean(found.iter().map(|(_, traced)| f64::from(traced.clean))),
            noisy: mean(found.iter().map(|(_, traced)| f64::from(traced.noisy))),
            effects: effects(&params.restore, decoder.config().layers, &found),
        };
        let noise = Named::f32("noise", [params.draws.get(), longest, size], noise.into_iter().flatten());
        let noise = put(cx, &[noise])?;
        let lines = lines(&params.restore, text, (&requests, &prompts, &known), (&traced_of, &found))?;
        let table = averages.csv();
        let findings = if params.all_prompts { Vec::new() } else { left_out(text, &requests, &known)? };
        let shown = shown(&averages, &found, &findings);
        Ok(artifact::<TraceArtifact>(&TraceFacts { trace: averages, shown })?
            .with_file(PROMPTS, cx.put_bytes(&lines)?)
            .with_file(AVERAGES, cx.put_bytes(table.as_bytes())?)
            .with_file(NOISE, noise))
    }
}

impl TraceParams {
    /// A request's prompt, its subject's tokens, and what should follow.
    fn prompt(
        &self,
        text: &Text,
        config: &palinode_model::DecoderConfig,
        request: &EditRequest,
    ) -> Result<TracePrompt, Error> {
        let bare = prompt_at(text, config, request, "{}", FactToken::SubjectLast).map_err(StageFailure::stage)?;
        let before = request.prompt.split("{}").next().unwrap_or_default();
        let start = text.first_token(before).map_err(StageFailure::stage)?;
        let subject: Range<usize> = start.min(bare.fact)..bare.fact + 1;
        let target = match self.answer {
            Answer::TargetNew => request.target_new.as_str(),
            Answer::TargetTrue => request.target_true.as_deref().ok_or_else(|| {
                let message = format!("request {}: no true target, whose probability could be traced", request.id);
                Error::input(message).hint("give the requests `target_true`, or set `answer: target_new`")
            })?,
        };
        let target = request.continuation(&request.filled_prompt(), target);
        let mut answer = text.encode_continuation(&target).map_err(StageFailure::stage)?;
        if !self.whole_answer {
            answer.truncate(1);
        }
        if answer.is_empty() {
            return Err(Error::input(format!("request {}: the answer {target:?} has no tokens", request.id)));
        }
        let length = bare.ids.len() + answer.len() - 1;
        if length > config.context {
            let message = format!("request {}: prompt and answer have {length} tokens", request.id);
            return Err(Error::input(message).hint(format!("the model's context has {}", config.context)));
        }
        Ok(TracePrompt { ids: bare.ids, subject, answer })
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Effects by kind and role.
fn effects(kinds: &[TraceKind], layers: usize, found: &[(&TracePrompt, Traced)]) -> Vec<Effects> {
    let one = |at: usize, restored: TraceKind, role: Role| {
        // Of each prompt that has such tokens, the mean effect over them, by layer.
        let of_prompt = |(prompt, traced): &(&TracePrompt, Traced)| {
            let tokens = role.tokens(&prompt.subject, prompt.ids.len());
            let effect = |layer: usize| {
                let restored = traced.restored[at][tokens.clone()].iter().map(|layers| f64::from(layers[layer]));
                mean(restored) - f64::from(traced.noisy)
            };
            (!tokens.is_empty()).then(|| (0..layers).map(effect).collect::<Vec<f64>>())
        };
        let each: Vec<Vec<f64>> = found.iter().filter_map(of_prompt).collect();
        let of_layer = |layer: usize| each.iter().map(|effects| effects[layer]).collect::<Vec<f64>>();
        let by_layer: Vec<Vec<f64>> = (0..layers).map(of_layer).collect();
        Effects {
            restored,
            role,
            prompts: each.len(),
            effect: by_layer.iter().map(|values| mean(values.iter().copied())).collect(),
            interval: by_layer.iter().map(|values| student(values)).collect(),
        }
    };
    let kinds = kinds.iter().enumerate();
    let all = kinds.flat_map(|(at, kind)| Role::ALL.map(|role| one(at, *kind, role)));
    all.filter(|effects| effects.prompts > 0).collect()
}

impl Averages {
    /// A row for each kind, role and layer.
    fn csv(&self) -> String {
        let mut text = String::from("restored,role,layer,effect,low,high,prompts\r\n");
        for effects in &self.effects {
            for (layer, effect) in effects.effect.iter().enumerate() {
                let [low, high] = effects
                    .interval
                    .as_ref()
                    .map_or_else(Default::default, |all| all[layer].map(|end| end.to_string()));
                let (kind, role, n) = (effects.restored.name(), effects.role.name(), effects.prompts);
                let _ = write!(text, "{kind},{role},{layer},{effect},{low},{high},{n}\r\n");
            }
        }
        text
    }

    /// Where a kind of state has its largest mean effect at the subject's last token: the row, the layer. (At the prompt's last token the
    /// last layer has the whole effect by itself.)
    pub fn peak(&self, kind: TraceKind) -> Option<(&Effects, usize)> {
        let rows = self.effects.iter().filter(|effects| effects.restored == kind && effects.role == Role::LastSubject);
        let all = rows.flat_map(|row| (0..row.effect.len()).map(move |layer| (row, layer)));
        all.max_by(|a, b| a.0.effect[a.1].total_cmp(&b.0.effect[b.1]).then(b.1.cmp(&a.1)))
    }
}

/// Each request, one JSON object a line.
fn lines(
    kinds: &[TraceKind],
    text: &Text,
    (requests, prompts, known): (&[EditRequest], &[TracePrompt], &[Knowledge]),
    (traced_of, found): (&[usize], &[(&TracePrompt, Traced)]),
) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for (i, ((request, prompt), known)) in requests.iter().zip(prompts).zip(known).enumerate() {
        let decode = |ids: &[u32]| text.decode(ids).map_err(StageFailure::stage);
        let tokens = prompt.ids.iter().map(|id| decode(&[*id])).collect::<Result<Vec<_>, _>>()?;
        let mut line = json!({
            "id": request.id, "prompt": request.filled_prompt(), "subject": request.subject,
            "ids": prompt.ids, "tokens": tokens, "subject_tokens": [prompt.subject.start, prompt.subject.end],
            "answer": decode(&prompt.answer)?, "answer_ids": prompt.answer,
            "known": known.known, "says": decode(&[known.says])?, "p": known.p,
        });
        if let Ok(at) = traced_of.binary_search(&i) {
            let traced = &found[at].1;
            line["p_noisy"] = json!(traced.noisy);
            let restored = kinds.iter().zip(&traced.restored).map(|(kind, p)| (kind.name().to_owned(), json!(p)));
            line["p_restored"] = Value::Object(restored.collect());
        }
        serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Which prompts were left out.
fn left_out(text: &Text, requests: &[EditRequest], known: &[Knowledge]) -> Result<Vec<String>, Error> {
    let all = || requests.iter().zip(known).filter(|(_, known)| !known.known);
    let count = all().count();
    if count == 0 {
        return Ok(Vec::new());
    }
    let name = |(request, known): (&EditRequest, &Knowledge)| {
        let says = text.decode(&[known.says]).map_err(StageFailure::stage)?;
        Ok(format!("{} (it says {:?}, p(answer) {})", request.id, says.trim(), shown::percent(known.p)))
    };
    let mut names = all().take(NAMED).map(name).collect::<Result<Vec<String>, Error>>()?;
    if count > NAMED {
        names.push(format!("{} more in {PROMPTS}", count - NAMED));
    }
    let were = if count == 1 { "was" } else { "were" };
    let of = requests.len();
    Ok(vec![format!(
        "{count} of {of} requests {were} left out, the model does not know the answer: {}",
        names.join(", ")
    )])
}

fn shown(averages: &Averages, found: &[(&TracePrompt, Traced)], findings: &[String]) -> Shown {
    let (mut values, mut columns, mut intervals) = (Values::new(), Vec::new(), Intervals::new());
    let mut add = |name: String, label: String, doc: &str, value, interval: Option<[f64; 2]>| {
        if let Some(interval) = interval {
            intervals.insert(name.clone(), interval.map(Some));
        }
        values.insert(name.clone(), value);
        columns.push(Column::new(name, label, Format::Number).ranked(None).doc(doc));
    };
    add("prompts".into(), "prompts".into(), "prompts that were traced", shown::count(averages.prompts), None);
    let total: Vec<f64> = found.iter().map(|(_, t)| f64::from(t.clean) - f64::from(t.noisy)).collect();
    let (total_mean, _) = mean_and_deviation(&total).unwrap_or_default();
    let doc = "mean p(answer) of the prompts as they are";
    add("p_clean".into(), "p(answer)".into(), doc, shown::number(averages.clean), None);
    let doc = "p(answer) less p(answer) with noise";
    add("total_effect".into(), "total effect".into(), doc, shown::number(total_mean), student(&total));
    for kind in [TraceKind::Hidden, TraceKind::Mlp, TraceKind::Attention] {
        let Some((row, layer)) = averages.peak(kind) else { continue };
        let interval = row.interval.as_ref().map(|all| all[layer]);
        let doc = "largest mean indirect effect of a layer at the subject's last token";
        let name = kind.name();
        let label = name.replace('_', " ");
        add(format!("{name}_subject"), format!("{label} at subject"), doc, shown::number(row.effect[layer]), interval);
        add(format!("{name}_layer"), "at layer".into(), "the layer of that effect", shown::count(layer), None);
    }
    Shown {
        metrics: Some(values),
        columns: Some(columns),
        intervals: Some(intervals),
        findings: (!findings.is_empty()).then(|| findings.to_vec()),
        ..Shown::default()
    }
}
