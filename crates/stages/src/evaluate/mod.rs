//! `evaluate`: what an edit did to a model's answers.

mod samples;
mod scorer;
mod shown;

use palinode_data::EditRequest;
use palinode_edit::with_edits;
use palinode_engine::{Artifact, ArtifactKind, DescribeCx, FieldError, Port, StageContext, StageError, StageKind};
use palinode_eval::{Summary, Writing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::samples::samples;
use self::scorer::Scorer;
use crate::load_requests::{REQUESTS, requests};
use crate::model::{MODEL, UPDATE, base_digest, file, open};
use crate::update::{Batch, RoundFacts, batches, factors_file};

/// Longer texts, for their entropy.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerationParams {
    /// Tokens of a text, its prompt included.
    #[serde(default = "hundred")]
    length: usize,
    /// Each token is drawn from so many most probable ones.
    #[serde(default = "five")]
    top_k: usize,
    /// Seed of the draws.
    #[serde(default = "one")]
    seed: u64,
}

/// The kind of the artifact.
pub const SCORES: &str = "scores";
/// The logical name of the likelihoods.
pub const RECORDS: &str = "records.json";

/// Parameters of `evaluate`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateParams {
    /// After a `sequence`: score also after every so many rounds, each time on the edits made by then.
    #[serde(default)]
    every: Option<usize>,
    /// Write longer texts from the requests' generation prompts, before and after, and measure their entropy (GE). Takes longer than
    /// all else.
    #[serde(default)]
    generation: Option<GenerationParams>,
    /// Draws of the bootstrap behind the 95 % intervals of every metric; 0 for none.
    #[serde(default = "thousand")]
    resamples: usize,
    /// How many edits are shown with the model's own words before and after.
    #[serde(default = "three")]
    samples: usize,
    /// How many tokens of them.
    #[serde(default = "eight")]
    sample_tokens: usize,
    /// Tokens run at once, padding included: bounds memory.
    #[serde(default = "batch_tokens")]
    batch_tokens: usize,
}

fn hundred() -> usize {
    100
}

fn five() -> usize {
    5
}

fn one() -> u64 {
    1
}

fn thousand() -> usize {
    1000
}

fn three() -> usize {
    3
}

fn eight() -> usize {
    8
}

fn batch_tokens() -> usize {
    4096
}

/// Seed of the bootstrap: any will do, as long as it is the same for all cells.
const SEED: u64 = 1;

/// See [`StageKind::DOC`].
pub struct Evaluate;

impl StageKind for Evaluate {
    type Params = EvaluateParams;
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Scores efficacy, paraphrase and neighbourhood, before and after an edit.";
    const DOC: &'static str = "\
CounterFact's metrics, with p(target) = exp(−mean negative log-likelihood per token):

  ES, PS  share of rewrite prompts and paraphrases where p(new) > p(true)
  NS      share of prompts about other subjects where p(true) > p(new)
  S       harmonic mean of the three
  EM PM NM  the same as mean differences of probability
  EA PA NA  the same as accuracy: every token of the target is the most probable one

Where a data set does not say what was true before, zsRE's: the share of a target's tokens that are the most probable ones, on \
rewrite prompts (efficacy), on paraphrases (paraphrase), and on other prompts with their own answers (specificity). With \
`generation`, GE: the entropy of longer texts in hundredths of a bit, low where a model repeats itself.

Means are taken within a record first, then over records. Every batch of an edited model is scored on that batch's own edited \
model. The unedited model is scored as well (`before_…`), once for all cells of a matrix. 95 % intervals are those of a percentile \
bootstrap over records. Likelihoods of every prompt are kept in the result. After a `sequence`, `every: k` scores every k-th round too, on the edits made by then.";
    const OUTPUT: ArtifactKind = SCORES;

    fn inputs() -> Vec<Port> {
        vec![
            Port { name: "model", accepts: &[MODEL, UPDATE], required: true, doc: "The model; edited or not." },
            Port { name: "requests", accepts: &["requests"], required: true, doc: "The prompts to judge it by." },
        ]
    }

    fn unkeyed() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn describe(params: &EvaluateParams, _: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let zero = |name: &str| FieldError::new(name, format!("`{name}` is 0")).expected("1 or more");
        let mut errors = Vec::new();
        if params.batch_tokens == 0 {
            errors.push(zero("batch_tokens"));
        }
        if params.every == Some(0) {
            errors.push(zero("every"));
        }
        if params.generation.as_ref().is_some_and(|g| g.top_k == 0) {
            errors.push(FieldError::new("generation.top_k", "`top_k` is 0").expected("1 or more"));
        }
        if errors.is_empty() { Ok(Value::Null) } else { Err(errors) }
    }

    fn run(params: &EvaluateParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let artifact = cx.input("model")?;
        let asked = cx.input("requests")?;
        let mut requests = requests(cx, asked)?;
        let rounds: Vec<RoundFacts> = serde_json::from_value(artifact.meta["rounds"].clone()).unwrap_or_default();
        if let Some(last) = rounds.last()
            && artifact.meta["asked"] == json!(file(asked, REQUESTS)?.digest)
        {
            // A sequence that ended early is judged by the edits that it made.
            requests.truncate(last.edits);
        }
        let model = open(cx, artifact)?;
        let edits = if artifact.kind == UPDATE { batches(cx, artifact)? } else { Vec::new() };
        let parts = parts(&edits, artifact, asked, &requests)?;
        let stops = stops(params.every, &rounds, requests.len());
        let total =
            requests.len() * if edits.is_empty() { 1 } else { 2 } + stops.iter().map(|(_, r)| r.edits).sum::<usize>();
        let bar = cx.progress("records", Some(total as u64));
        let writing = params.generation.as_ref().map(|g| Writing { length: g.length, top_k: g.top_k, seed: g.seed });
        let scorer = Scorer { cx, text: &model.text, tokens: params.batch_tokens, writing, bar: &bar };
        let before = scorer.score(&model.decoder, &base_digest(artifact), &requests)?;
        let mut after = Vec::with_capacity(requests.len());
        for (b, (batch, range)) in parts.iter().enumerate() {
            let edited = with_edits(&model.decoder, batch.updates.iter().map(|(layer, update)| (*layer, update)));
            let of = format!("{} batch {b} of {}", base_digest(artifact), factors_file(artifact)?.digest);
            after.extend(scorer.score(&edited, &of, &requests[range.clone()])?);
        }
        let mut series = Vec::new();
        for (number, round) in stops {
            let edited = with_edits(&model.decoder, edits[0].at(round).updates.iter().map(|(layer, u)| (*layer, u)));
            let of = format!("{} round {number} of {}", base_digest(artifact), factors_file(artifact)?.digest);
            let scores = scorer.score(&edited, &of, &requests[..round.edits])?;
            let summary = Summary::of(&scores);
            let mut row = shown::values(&summary);
            row.insert("intervals".into(), json!(shown::intervals(&summary, params.resamples, SEED)));
            row.insert("round".into(), json!(number));
            row.insert("edits".into(), json!(round.edits));
            series.push(row);
        }
        let samples = samples(params, &model, &parts, &requests, (&before, &after))?;

        let base = Summary::of(&before);
        let now = if edits.is_empty() { base.clone() } else { Summary::of(&after) };
        let mut metrics = shown::values(&now);
        if !edits.is_empty() {
            let earlier = shown::values(&base).into_iter();
            metrics.extend(earlier.map(|(name, value)| (format!("before_{name}"), value)));
        }
        let records: Vec<_> = before
            .iter()
            .enumerate()
            .map(|(i, record)| json!({ "id": record.id, "before": record, "after": after.get(i) }))
            .collect();
        let records = serde_json::to_vec(&records).map_err(|error| StageError::internal(error.to_string()))?;
        let meta = json!({
            "requests": requests.len(),
            "batches": parts.len(),
            "metrics": metrics,
            "intervals": shown::intervals(&now, params.resamples, SEED),
            "columns": shown::columns(&now, !edits.is_empty()),
            "series": { "label": "rounds", "axes": ["round", "edits"], "rows": series },
            "samples": samples,
        });
        Ok(Artifact::new(Self::OUTPUT, meta).with_file(RECORDS, cx.put_bytes(&records)?))
    }
}

/// The rounds after which to score, counted from 1; the last one is scored anyway.
fn stops(every: Option<usize>, rounds: &[RoundFacts], requests: usize) -> Vec<(usize, &RoundFacts)> {
    let Some(every) = every else { return Vec::new() };
    let numbered = rounds.iter().enumerate().map(|(i, round)| (i + 1, round));
    numbered.filter(|(number, round)| number % every == 0 && round.edits <= requests).collect()
}

/// A batch and the requests that it is scored on.
type Part<'a> = (&'a Batch, std::ops::Range<usize>);

/// One batch can be scored on any requests; several only on those that they were made for, each on its own.
fn parts<'a>(
    edits: &'a [Batch],
    artifact: &Artifact,
    asked: &Artifact,
    requests: &[EditRequest],
) -> Result<Vec<Part<'a>>, StageError> {
    if let [only] = edits {
        return Ok(vec![(only, 0..requests.len())]);
    }
    if !edits.is_empty() && artifact.meta["asked"] != json!(file(asked, REQUESTS)?.digest) {
        return Err(StageError::input(format!(
            "the model was edited in {} batches for other requests than these",
            edits.len()
        ))
        .hint("connect `evaluate` to the requests of `solve`: each batch is scored on its own requests"));
    }
    Ok(edits.iter().map(|batch| (batch, batch.facts.start..batch.facts.end)).collect())
}
