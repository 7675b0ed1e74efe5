//! `reference_metrics`: what the published code measures beside the usual scores.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use palinode_data::{EditRequest, Split, snippets_named};
use palinode_edit::{FactToken, Site, Tap, probe, prompts, text_keys};
use palinode_engine::bounds::Count;
use palinode_engine::shown::{self, Better, Column, Format, Shown};
use palinode_engine::{
    Artifact, DescribeCx, Error, ExternalFile, FieldError, Port, PortOf, StageContext, StageKind, artifact,
};
use palinode_eval::{Query, Surprise, perplexity, score, surprise, token_entropy};
use palinode_math::{Delta, Mat, from_row_major, mean_column_norm};
use palinode_model::generate::{Prompt, Sampling, generate_all};
use palinode_model::{Decoder, DecoderConfig, MlpModule, Text, WeightId, read};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::measurements::{ReferenceFacts, ReferenceKind};
use crate::artifacts::requests::{RequestsKind, contents, requests};
use crate::artifacts::targets::{TargetsKind, values};
use crate::artifacts::templates::{TemplatesKind, at_port};
use crate::artifacts::update::AnyModel;
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::judge::measured::{Measured, Metric, versions};
use crate::judge::versions::{Version, Versions};
use crate::sources::corpus::{CorpusFormat, CorpusPath, SampleSeed, TextField, corpus, files};
use crate::units::Units;

/// The logical name of the requests' measurements, one a line.
const RECORDS: &str = "records.jsonl";
/// Requests in a unit.
const UNIT: usize = 16;
/// Tokens of a subject's snippets that are predicted.
const ESSENCE: usize = 100;

/// Texts whose token entropy is measured.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// Number of tokens of a text, including its prompt.
    #[serde(default = "hundred")]
    length: usize,
    /// Each token is drawn from this many most probable ones.
    #[serde(default = "five")]
    top_k: Count,
    /// Seed of the random draws.
    #[serde(default = "one")]
    seed: u64,
}

/// Parameters of `reference_metrics`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceParams {
    /// Number of tokens of the greedy texts of `sliding_correct`, including the prompt.
    #[serde(default = "fifty")]
    sliding: Count,
    /// Generate texts, and measure their adjusted token entropy.
    #[serde(default)]
    generation: Option<Texts>,
    /// CounterFact's attribute_snippets.json: the essence of a subject is measured on the snippets with its name.
    #[serde(default)]
    snippets: Option<PathBuf>,
    /// Text whose keys a change should leave alone, for the preservation distance.
    #[serde(default)]
    corpus: Option<CorpusPath>,
    #[serde(default)]
    format: CorpusFormat,
    #[serde(default)]
    field: TextField,
    #[serde(default)]
    seed: SampleSeed,
    /// Documents of the corpus are read whole until they have this many tokens.
    #[serde(default = "thousands")]
    tokens: Count,
    /// Number of bootstrap samples for the 95 % intervals; 0 for no intervals.
    #[serde(default = "thousand")]
    resamples: usize,
    #[serde(default)]
    batch_tokens: BatchTokens,
}

fn hundred() -> usize {
    100
}

fn five() -> Count {
    const { Count::new(5) }
}

fn one() -> u64 {
    1
}

fn fifty() -> Count {
    const { Count::new(50) }
}

fn thousands() -> Count {
    const { Count::new(5000) }
}

fn thousand() -> usize {
    1000
}

/// The model.
const MODEL: PortOf<AnyModel> = PortOf::required("model", "The model, edited or not.");
/// The facts.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The facts.");
/// The targets.
const TARGETS: PortOf<TargetsKind> =
    PortOf::optional("targets", "Values that were written, for the distances of new and old edits.");
/// The contexts.
const TEMPLATES: PortOf<TemplatesKind> =
    PortOf::optional("templates", "Contexts over which these edits' keys are averaged.");

/// See [`StageKind::DOC`].
pub struct ReferenceMetrics;

impl StageKind for ReferenceMetrics {
    type Params = ReferenceParams;
    const NAME: &'static str = "reference_metrics";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "The further metrics of the published code, before and after an edit.";
    const DOC: &'static str = "\
What the authors' code measures beside the scores of `evaluate`:

  sliding_correct  share of rewrite prompts whose greedy text (`sliding` tokens, prompt included) has the new target in it, \
as a string, behind the prompt
  attributes       share of attribute prompts, about other subjects for which the new target is true, where p(new) > p(true)
  token_entropy    with `generation`: the adjusted token entropy of texts without their prompts, between 0 and 1; low where \
a model repeats itself
  essence          with `snippets`: perplexity of the first 100 tokens of the snippets with the subject's name

and of an edited model, in each weight that was changed:

  preservation     with `corpus`: mean ‖(W − W₀) k‖ over the keys of its text
  new_edit         with the input `targets`: mean ‖W k − z‖ over the edits
  old_edit         the same with W₀, before the edit

The target z of an edit at several layers is the one at the last layer, and bias and residual stream are not added, as in that \
code: these are not distances to zero. Metrics are means over requests; distances are of the last changed weight, and of every \
one in the result.";
    type Output = ReferenceKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port(), TARGETS.port(), TEMPLATES.port()]
    }

    fn unkeyed() -> &'static [&'static str] {
        // What the files hold is in the key.
        &["corpus", "snippets"]
    }

    fn last_digits() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn resolved(params: &ReferenceParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("batch_tokens", params.batch_tokens.resolved(BatchTokens::PROMPTS, hardware))]
    }

    fn files(params: &ReferenceParams, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let mut all = Vec::new();
        if let Some(path) = &params.snippets {
            all.push(ExternalFile::new("snippets", path, "snippets"));
        }
        if let Some(path) = &params.corpus {
            all.extend(files("corpus", path, params.format, None, base)?);
        }
        Ok(all)
    }

    fn describe(_: &ReferenceParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if cx.input(MODEL).batches.is_some_and(|count| count > 1) {
            errors.push(
                FieldError::new("", "the model was edited in several batches, each an edit of its own")
                    .hint("measure a model with one batch: leave `batch_size` out, or export one batch and load it"),
            );
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &ReferenceParams, cx: &StageContext) -> Result<Artifact, Error> {
        let (given, asked) = (cx.input(MODEL)?, cx.input(REQUESTS)?);
        let requests = requests(cx, &asked)?;
        let all = Versions::open(cx, &given, asked.facts.chat.as_ref())?;
        let essence = params.essence(cx, &requests)?;
        let bar = cx.progress("requests", Some(requests.len() as u64 * versions(&all, None)));
        let tokens = params.batch_tokens.or(BatchTokens::PROMPTS, &all.model.decoder);
        let units = Units { cx, bar: &bar, size: UNIT, digits: json!({ "batch_tokens": tokens }) };
        let text = &all.model.text;
        let items: Vec<(&EditRequest, &[String])> =
            requests.iter().map(|r| (r, essence.get(&r.subject).map_or(&[][..], Vec::as_slice))).collect();
        let measured = Measured::of(&all, None, |version: &Version| {
            let of = json!({ "version": version.name, "sliding": params.sliding, "generation": params.generation });
            units.run(&of, &items, |block| {
                let found = params.extras(&version.decoder, text, block, tokens)?;
                bar.inc(block.len() as u64);
                Ok(found)
            })
        })?;
        let mut shown = measured.shown(&METRICS, params.resamples);
        let distances = match all.edits.first() {
            None => Vec::new(),
            Some(batch) => params.distances(cx, &all, &batch.updates, &requests, contents(&asked)?)?,
        };
        add_distances(&mut shown, &distances);
        let lines = lines(&requests, &measured)?;
        let facts = ReferenceFacts { requests: requests.len(), distances: json!(distances), shown };
        Ok(artifact::<ReferenceKind>(&facts)?.with_file(RECORDS, cx.put_bytes(&lines)?))
    }
}

/// One request's measurements on one model.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Extra {
    sliding_correct: bool,
    /// Share of attribute prompts with p(new) > p(true).
    attributes: Option<f32>,
    token_entropy: Option<f32>,
    essence: Option<f32>,
}

const METRICS: [Metric<'static, Extra>; 4] = [
    Metric {
        name: "sliding_correct",
        doc: "greedy texts with the new target in them, behind the prompt",
        format: Format::Percent,
        better: Better::Max,
        value: &|all| mean(all, |extra| Some(f64::from(u8::from(extra.sliding_correct)))),
    },
    Metric {
        name: "attributes",
        doc: "attribute prompts where p(new) > p(true)",
        format: Format::Percent,
        better: Better::Max,
        value: &|all| mean(all, |extra| extra.attributes.map(f64::from)),
    },
    Metric {
        name: "token_entropy",
        doc: "adjusted token entropy of texts without their prompts; low where a model repeats itself",
        format: Format::Number,
        better: Better::Max,
        value: &|all| mean(all, |extra| extra.token_entropy.map(f64::from)),
    },
    Metric {
        name: "essence",
        doc: "perplexity of the first 100 tokens of texts about the subject",
        format: Format::Number,
        better: Better::Min,
        value: &|all| mean(all, |extra| extra.essence.map(f64::from)),
    },
];

fn mean(all: &[&Extra], value: impl Fn(&Extra) -> Option<f64>) -> Option<f64> {
    let known: Vec<f64> = all.iter().filter_map(|extra| value(extra)).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

/// Distances in one weight.
#[derive(Clone, Debug, Serialize)]
struct Distances {
    weight: WeightId,
    preservation: Option<f64>,
    new_edit: Option<f64>,
    old_edit: Option<f64>,
}

impl ReferenceParams {
    /// The snippets of the requests' subjects.
    fn essence(&self, cx: &StageContext, requests: &[EditRequest]) -> Result<BTreeMap<String, Vec<String>>, Error> {
        if self.snippets.is_none() {
            return Ok(BTreeMap::new());
        }
        let names: BTreeSet<String> = requests.iter().map(|request| request.subject.clone()).collect();
        let found = snippets_named(&cx.file("snippets")?.1, &names).map_err(StageFailure::stage)?;
        if found.is_empty() {
            cx.warn("no snippet has the name of a subject: `essence` is not measured");
        }
        Ok(found.into_iter().collect())
    }

    fn extras(
        &self,
        decoder: &Decoder,
        text: &Text,
        block: &[(&EditRequest, &[String])],
        tokens: usize,
    ) -> Result<Vec<Extra>, Error> {
        let prompts: Vec<String> = block.iter().map(|(request, _)| request.filled_prompt()).collect();
        let greedy = continued(decoder, text, &prompts, self.sliding.get(), Sampling::Greedy)?;
        let attributes = attributes(decoder, text, block, tokens)?;
        let entropies = match &self.generation {
            None => vec![None; block.len()],
            Some(how) => entropies(decoder, text, block, *how)?,
        };
        let essences = essences(decoder, text, block, tokens)?;
        let mut found = Vec::with_capacity(block.len());
        for (i, (request, _)) in block.iter().enumerate() {
            let written = text.decode(&greedy[i]).map_err(StageFailure::stage)?;
            found.push(Extra {
                sliding_correct: written.contains(request.target_new.trim()),
                attributes: attributes[i],
                token_entropy: entropies[i],
                essence: essences[i],
            });
        }
        Ok(found)
    }

    /// Distances in each changed down-projection.
    fn distances(
        &self,
        cx: &StageContext,
        all: &Versions<'_>,
        updates: &[(WeightId, Delta)],
        requests: &[EditRequest],
        asked: palinode_engine::Digest,
    ) -> Result<Vec<Distances>, Error> {
        let decoder = &all.model.decoder;
        let changed = by_layer(decoder.config(), updates);
        let layers: Vec<usize> = changed.iter().map(|(weight, _)| weight.layer).collect();
        let mut kept = BTreeMap::new();
        if self.corpus.is_some() {
            let (mut corpus, _) = corpus(cx, Split::default(), &self.field, self.seed, None)?;
            let (mut documents, mut tokens) = (Vec::new(), 0);
            for index in 0..corpus.len() {
                if tokens >= self.tokens.get() {
                    break;
                }
                let document = corpus.read(index).map_err(StageFailure::stage)?;
                let ids = all.model.text.encode(&document).map_err(StageFailure::stage)?;
                tokens += ids.len().min(decoder.config().context);
                documents.push(ids);
            }
            kept = text_keys(decoder, &documents, &layers, BatchTokens::TEXT).map_err(StageFailure::stage)?;
        }
        let targets = match cx.input_opt(TARGETS)? {
            None => None,
            Some(targets) if targets.facts.asked == asked => Some(values(cx, &targets)?),
            Some(_) => {
                let error = Error::input("the targets were found for other requests");
                return Err(error.hint("connect `targets` and `requests` to what the edit was made of"));
            }
        };
        let keys = if targets.is_some() { edit_keys(cx, all, &layers, requests)? } else { BTreeMap::new() };
        let d = decoder.config().hidden;
        let edited = all.batch(0)?.decoder;
        let one = |(weight, delta): &(WeightId, Delta)| -> Result<Distances, Error> {
            let f = decoder.config().key_size(weight.layer);
            let matrix = |what, values: &[f32], rows, columns| {
                from_row_major(what, values, rows, columns).map_err(StageFailure::stage)
            };
            let preservation = kept
                .get(&weight.layer)
                .map(|keys| {
                    let keys = matrix("keys", keys, keys.len() / f, f)?;
                    Ok::<f64, Error>(mean_column_norm(delta.times(keys.transpose()).as_ref()))
                })
                .transpose()?;
            let of = |model: &Decoder| -> Result<Option<f64>, Error> {
                let (Some(targets), Some(keys)) = (&targets, keys.get(&weight.layer)) else { return Ok(None) };
                let held = read::<f32, 2, _>(model.weight(*weight).map_err(StageFailure::stage)?);
                let held = matrix("weight", &held.map_err(StageFailure::stage)?, f, d)?;
                let wanted = matrix("targets", targets, requests.len(), d)?;
                let missing: Mat<f64> = held.transpose() * keys - wanted.transpose();
                Ok(Some(mean_column_norm(missing.as_ref())))
            };
            Ok(Distances { weight: *weight, preservation, new_edit: of(&edited)?, old_edit: of(decoder)? })
        };
        changed.iter().map(one).collect()
    }
}

/// The changes of down-projections, one a layer: those of a mixture's experts side by side, as the layer's whole key meets them.
fn by_layer(config: &DecoderConfig, updates: &[(WeightId, Delta)]) -> Vec<(WeightId, Delta)> {
    let mut found: Vec<(WeightId, Delta)> = Vec::new();
    for (weight, delta) in updates.iter().filter(|(weight, _)| weight.module == MlpModule::Down) {
        let own = config.mixture(weight.layer).zip(weight.expert);
        let Some(range) = own.and_then(|(all, expert)| all.parts().get(all.part(expert)?).cloned()) else {
            found.push((*weight, delta.clone()));
            continue;
        };
        let [out, f] = [config.hidden, config.key_size(weight.layer)];
        let dense = delta.dense();
        let own = |i: usize, j: usize| if range.contains(&j) { dense[(i, j - range.start)] } else { 0.0 };
        let id = WeightId::down(weight.layer);
        match found.iter_mut().find(|(weight, _)| *weight == id) {
            Some((_, Delta::Dense(all))) => {
                for j in range.clone() {
                    (0..out).for_each(|i| all[(i, j)] += own(i, j));
                }
            }
            _ => found.push((id, Delta::Dense(Mat::from_fn(out, f, own)))),
        }
    }
    found
}

/// Keys of the edits in the edited model, averaged over the templates: `[f, requests]` by layer.
fn edit_keys(
    cx: &StageContext,
    all: &Versions<'_>,
    layers: &[usize],
    requests: &[EditRequest],
) -> Result<BTreeMap<usize, Mat<f64>>, Error> {
    let templates = at_port(cx, TEMPLATES)?;
    let weighted = templates.weighted();
    let model = all.batch(0)?.decoder;
    let mut rows = Vec::with_capacity(requests.len() * weighted.len());
    for request in requests {
        for (template, _) in &weighted {
            let row = prompts::prompt_at(&all.model.text, model.config(), request, template, FactToken::default());
            rows.push(row.map_err(StageFailure::stage)?);
        }
    }
    let taps: Vec<Tap> = layers.iter().map(|&layer| Tap { layer, site: Site::Key }).collect();
    let found = probe(&model, &rows, &taps, BatchTokens::KEYS).map_err(StageFailure::stage)?;
    let per = weighted.len();
    let average = |(layer, all): (&usize, &Vec<f32>)| {
        let f = model.config().key_size(*layer);
        Mat::from_fn(f, requests.len(), |i, b| {
            weighted.iter().enumerate().map(|(t, (_, weight))| weight * f64::from(all[(b * per + t) * f + i])).sum()
        })
    };
    Ok(layers.iter().copied().zip(layers.iter().zip(&found).map(average)).collect())
}

/// What a model makes of prompts, without them.
fn continued(
    decoder: &Decoder,
    text: &Text,
    prompts: &[String],
    length: usize,
    sampling: Sampling,
) -> Result<Vec<Vec<u32>>, Error> {
    let ids =
        prompts.iter().map(|prompt| text.encode(prompt)).collect::<Result<Vec<_>, _>>().map_err(StageFailure::stage)?;
    let all: Vec<Prompt> = ids
        .iter()
        .enumerate()
        .map(|(at, ids)| Prompt { tokens: ids.clone(), length: length.max(ids.len()), stream: at as u64 })
        .collect();
    let written = generate_all(decoder, &all, sampling, text.end()).map_err(StageFailure::stage)?;
    Ok(written.into_iter().zip(&ids).map(|(mut text, ids)| text.split_off(ids.len())).collect())
}

fn attributes(
    decoder: &Decoder,
    text: &Text,
    block: &[(&EditRequest, &[String])],
    tokens: usize,
) -> Result<Vec<Option<f32>>, Error> {
    let (mut queries, mut counts) = (Vec::new(), Vec::new());
    for (request, _) in block {
        let true_one = request.target_true.as_deref();
        let own = request.attributes.iter().filter_map(|prompt| {
            let targets = [request.target_new.as_str(), true_one?];
            Some(Query {
                prompt: prompt.clone(),
                targets: targets.iter().map(|target| request.continuation(prompt, target)).collect(),
            })
        });
        let before = queries.len();
        queries.extend(own);
        counts.push(queries.len() - before);
    }
    let scores = score(decoder, text, &queries, tokens).map_err(StageFailure::stage)?;
    let mut scores = scores.into_iter();
    let share = |count: &usize| {
        let wins = scores.by_ref().take(*count).filter(|scores| scores[0].nll < scores[1].nll).count();
        (*count > 0).then(|| wins as f32 / *count as f32)
    };
    Ok(counts.iter().map(share).collect())
}

fn entropies(
    decoder: &Decoder,
    text: &Text,
    block: &[(&EditRequest, &[String])],
    how: Texts,
) -> Result<Vec<Option<f32>>, Error> {
    let mut found = Vec::with_capacity(block.len());
    for (request, _) in block {
        let own = [request.filled_prompt()];
        let prompts = if request.generation.is_empty() { &own[..] } else { request.generation.as_slice() };
        let sampling = Sampling::TopK { k: how.top_k.get(), seed: how.seed };
        let texts = continued(decoder, text, prompts, how.length, sampling)?;
        let sum: f64 = texts.iter().map(|ids| token_entropy(ids)).sum();
        found.push(Some((sum / texts.len() as f64) as f32));
    }
    Ok(found)
}

fn essences(
    decoder: &Decoder,
    text: &Text,
    block: &[(&EditRequest, &[String])],
    tokens: usize,
) -> Result<Vec<Option<f32>>, Error> {
    let mut documents = Vec::with_capacity(block.len());
    for (_, snippets) in block {
        let mut ids = text.encode(&snippets.join(" ")).map_err(StageFailure::stage)?;
        ids.truncate(ESSENCE.min(decoder.config().context));
        documents.push(if snippets.is_empty() { Vec::new() } else { ids });
    }
    let found = surprise(decoder, &documents, tokens).map_err(StageFailure::stage)?;
    // As in the published code, the first token counts though it is not predicted.
    let of = |piece: Surprise| Surprise { tokens: piece.tokens + 1, ..piece };
    Ok(found.into_iter().map(|piece| (piece.tokens > 0).then(|| perplexity(&[of(piece)]) as f32)).collect())
}

fn add_distances(shown: &mut Shown, distances: &[Distances]) {
    let Some(last) = distances.last() else { return };
    let metrics = shown.metrics.get_or_insert_default();
    let columns = shown.columns.get_or_insert_default();
    let each = [
        ("preservation", last.preservation, "mean ‖(W − W₀) k‖ over keys of ordinary text"),
        ("new_edit", last.new_edit, "mean ‖W k − z‖ over the edits"),
        ("old_edit", last.old_edit, "the same before the edit"),
    ];
    for (name, value, doc) in each {
        if let Some(value) = value {
            metrics.insert(name.to_owned(), shown::number(value));
            let better = (name != "old_edit").then_some(Better::Min);
            columns.push(Column::new(name, name.replace('_', " "), Format::Number).ranked(better).doc(doc));
        }
    }
}

/// Every request before and after, one JSON object a line.
fn lines(requests: &[EditRequest], measured: &Measured<Extra>) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        let after = measured.after.first().map(|all| all[i]);
        let line = json!({ "id": request.id, "before": measured.before[i], "after": after });
        serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
