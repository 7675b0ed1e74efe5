//! `evaluate`: what an edit did to a model's answers.

mod samples;
mod scorer;
mod shown;
mod table;

use std::path::{Path, PathBuf};

use palinode_data::{EditRequest, word_weights};
use palinode_engine::bounds::Count;
use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, ExternalFile, FieldError, Port, StageContext, StageError, StageKind, UnitPlan,
};
use palinode_eval::{Group, RecordScores, Summary, Tfidf, Writing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::samples::samples;
use self::scorer::Scorer;
use crate::artifacts::model::{MODEL, UPDATE, file};
use crate::artifacts::update::Batch;
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::judge::versions::Versions;
use crate::sources::load_requests::{REQUESTS, requests};

/// Longer texts, for their entropy.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerationParams {
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

/// The weights of words in the reference score, as scikit-learn leaves them.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordWeights {
    /// The words and their positions (`tfidf_vocab.json`).
    vocabulary: PathBuf,
    /// The weight at each position (`idf.npy`).
    idf: PathBuf,
}

/// Metrics of one line of work.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metrics {
    /// The new target compared with the old one: S, ES, PS, NS, magnitudes and accuracies.
    CounterFact,
    /// Shares of matching tokens: efficacy, paraphrase, specificity.
    Zsre,
    /// Reliability, generalization, portability, locality, fluency.
    EasyEdit,
}

/// The kind of the artifact.
pub const SCORES: &str = "scores";
/// The logical name of the scores, one record a line.
pub const RECORDS: &str = "records.jsonl";
/// The logical name of the same as a table, one prompt a row.
const TABLE: &str = "records.parquet";

/// Parameters of `evaluate`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateParams {
    /// After a `sequence`: also score after every this many rounds, each time on the edits made up to that round.
    #[serde(default)]
    every: Option<Count>,
    /// The set of metrics. The default is the usual one of the data set.
    #[serde(default)]
    #[schemars(length(min = 1))]
    metrics: Option<Vec<Metrics>>,
    /// Generate longer texts before and after the edit, and measure their entropy (GE; EasyEdit calls it fluency). They
    /// start from the requests' generation prompts or, without any, from their rewrite prompts. This takes longer than all
    /// other metrics.
    #[serde(default)]
    generation: Option<GenerationParams>,
    /// Weights of words for the reference score (RS), which compares generated texts with the requests' references. The
    /// default is computed from the references.
    #[serde(default)]
    word_weights: Option<WordWeights>,
    /// Number of bootstrap samples for the 95 % intervals of every metric; 0 for no intervals.
    #[serde(default = "thousand")]
    resamples: usize,
    /// Number of edits to show with the model's own text before and after.
    #[serde(default = "three")]
    samples: usize,
    /// Number of tokens of these texts.
    #[serde(default = "eight")]
    sample_tokens: usize,
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

fn thousand() -> usize {
    1000
}

fn three() -> usize {
    3
}

fn eight() -> usize {
    8
}

impl EvaluateParams {
    /// The metrics of these requests: those of the parameters, or else those of the data set.
    fn groups(&self, asked: &Artifact, requests: &[EditRequest]) -> Vec<Group> {
        let group = |metrics: &Metrics| match metrics {
            Metrics::CounterFact => Group::CounterFact,
            Metrics::Zsre => Group::ZsRe,
            Metrics::EasyEdit => Group::EasyEdit,
        };
        let known: Option<Vec<Metrics>> = serde_json::from_value(asked.meta["judged"].clone()).ok();
        match self.metrics.as_ref().or(known.as_ref()) {
            Some(chosen) => chosen.iter().map(group).collect(),
            None if requests.iter().any(|r| !r.portability.is_empty() || !r.locality.is_empty()) => {
                vec![Group::EasyEdit]
            }
            None if requests.iter().any(|r| r.target_true.is_some()) => vec![Group::CounterFact],
            None => vec![Group::ZsRe],
        }
    }

    /// What tells how alike texts are; `None` where there is nothing to compare with.
    fn tfidf(&self, cx: &StageContext, requests: &[EditRequest]) -> Result<Option<Tfidf>, StageError> {
        let mut references = requests.iter().flat_map(|request| &request.references).peekable();
        if self.generation.is_none() || references.peek().is_none() {
            return Ok(None);
        }
        if self.word_weights.is_none() {
            return Ok(Some(Tfidf::fit(references.map(String::as_str))));
        }
        let weights = word_weights(&cx.file("vocabulary")?.1, &cx.file("idf")?.1).map_err(StageFailure::stage)?;
        Ok(Some(Tfidf::new(weights)))
    }
}

/// Seed of the bootstrap: any will do, as long as it is the same for all cells.
const SEED: u64 = 1;

/// See [`StageKind::DOC`].
pub struct Evaluate;

impl StageKind for Evaluate {
    type Params = EvaluateParams;
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "Scores efficacy, paraphrase and neighborhood, before and after an edit.";
    const DOC: &'static str = "\
CounterFact's metrics, with p(target) = exp(−mean negative log-likelihood per token):

  ES, PS  share of rewrite prompts and of paraphrase prompts where p(new) > p(true)
  NS      share of neighborhood prompts where p(true) > p(new)
  S       harmonic mean of the three
  EM PM NM  the same as mean differences of probability
  EA PA NA  the same as accuracy: every token of the target is the most probable one

For a data set without true targets, zsRE's metrics: the share of a target's tokens that are the most probable ones, on \
rewrite prompts (efficacy), on paraphrases (paraphrase), and on other prompts with their own answers (specificity).

For KnowEdit, and for requests with axes of portability or locality, EasyEdit's metrics: the same share on rewrite prompts \
(reliability), on paraphrases (generalization) and on prompts that follow from the edit (portability); and the share of most \
probable tokens that are the same as before the edit, on prompts that the edit does not concern (locality). The parameter \
`metrics` selects the set of metrics for any data set.

With `generation`, GE: the entropy of generated texts in hundredths of a bit. It is low when a model repeats itself. \
EasyEdit calls it fluency. For requests with references (`snippets` of load_requests, or plain records), RS: the similarity \
of these texts and the references, as the cosine of their TF-IDF vectors.

Means are taken within a record first, then over records. Every batch of an edited model is scored on that batch's own \
edited model. The unedited model is scored as well (`before_…`), once for all cells of a matrix. The 95 % intervals come \
from a percentile bootstrap over records. After a `sequence`, `every: k` scores every k-th round too, on the edits made up \
to that round.

The result keeps the likelihoods of every prompt: records.jsonl, one record per line, and records.parquet, one prompt per \
row.";
    const OUTPUT: ArtifactKind = SCORES;

    fn inputs() -> Vec<Port> {
        vec![
            Port { name: "model", accepts: &[MODEL, UPDATE], required: true, doc: "The model, edited or not." },
            Port { name: "requests", accepts: &["requests"], required: true, doc: "The prompts for the evaluation." },
        ]
    }

    fn unkeyed() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    /// Those of one version of the model: each version's requests are cut alike.
    fn units(_: &EvaluateParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        cx.input("requests")["requests"].as_u64().map(|count| scorer::units(count as usize))
    }

    fn files(params: &EvaluateParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let Some(weights) = &params.word_weights else { return Ok(Vec::new()) };
        Ok(vec![
            ExternalFile::new("vocabulary", &weights.vocabulary, "word_weights.vocabulary"),
            ExternalFile::new("idf", &weights.idf, "word_weights.idf"),
        ])
    }

    fn describe(params: &EvaluateParams, _: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let mut errors = Vec::new();
        if params.word_weights.is_some() && params.generation.is_none() {
            let error = FieldError::new("word_weights", "weights of words, but no texts to weigh");
            errors.push(error.hint("add `generation: {}`, which writes the texts"));
        }
        if params.metrics.as_ref().is_some_and(Vec::is_empty) {
            errors.push(FieldError::new("metrics", "`metrics` is empty").expected("counterfact, zsre or easyedit"));
        }
        if errors.is_empty() { Ok(Value::Null) } else { Err(errors) }
    }

    fn run(params: &EvaluateParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let artifact = cx.input("model")?;
        let asked = cx.input("requests")?;
        let mut requests = requests(cx, asked)?;
        let all = Versions::open(cx, artifact)?;
        if let Some(made) = all.made()
            && artifact.meta["asked"] == json!(file(asked, REQUESTS)?.digest)
        {
            // A sequence that ended early is judged by the edits that it made.
            requests.truncate(made);
        }
        let (model, edits) = (&all.model, &all.edits);
        let parts = parts(edits, artifact, asked, &requests)?;
        let mut stops = all.stops(params.every);
        stops.retain(|(_, round)| round.edits <= requests.len());
        let total =
            requests.len() * if edits.is_empty() { 1 } else { 2 } + stops.iter().map(|(_, r)| r.edits).sum::<usize>();
        let bar = cx.progress("records", Some(total as u64));
        let writing =
            params.generation.as_ref().map(|g| Writing { length: g.length, top_k: g.top_k.get(), seed: g.seed });
        let tfidf = params.tfidf(cx, &requests)?;
        let scorer = Scorer {
            cx,
            text: &model.text,
            tokens: params.batch_tokens.or(BatchTokens::PROMPTS, &model.decoder),
            writing,
            tfidf: tfidf.as_ref(),
            bar: &bar,
        };
        let before = scorer.score(&all.unedited(), &requests)?;
        let mut after = Vec::with_capacity(requests.len());
        for (b, (_, range)) in parts.iter().enumerate() {
            after.extend(scorer.score(&all.batch(b)?, &requests[range.clone()])?);
        }
        let groups = params.groups(asked, &requests);
        let mut series = Vec::new();
        for (number, round) in stops {
            let scores = scorer.score(&all.round(number, round)?, &requests[..round.edits])?;
            let summary = Summary::between(&before[..round.edits], &scores);
            let mut row = shown::values(&summary, &groups);
            row.insert("intervals".into(), json!(shown::intervals(&summary, &groups, params.resamples, SEED)));
            row.insert("round".into(), json!(number));
            row.insert("edits".into(), json!(round.edits));
            series.push(row);
        }
        let samples = samples(params, model, &parts, &requests, (&before, &after))?;

        let base = Summary::of(&before);
        let now = if edits.is_empty() { base.clone() } else { Summary::between(&before, &after) };
        let mut metrics = shown::values(&now, &groups);
        if !edits.is_empty() {
            let earlier = shown::values(&base, &groups).into_iter();
            metrics.extend(earlier.map(|(name, value)| (format!("before_{name}"), value)));
        }
        let meta = json!({
            "requests": requests.len(),
            "batches": parts.len(),
            "metrics": metrics,
            "intervals": shown::intervals(&now, &groups, params.resamples, SEED),
            "columns": shown::columns(&now, &groups, !edits.is_empty()),
            "series": { "label": "rounds", "axes": ["round", "edits"], "rows": series },
            "samples": samples,
        });
        Ok(Artifact::new(Self::OUTPUT, meta)
            .with_file(RECORDS, cx.put_bytes(&lines(&before, &after)?)?)
            .with_file(TABLE, cx.put_bytes(&table::table(&requests, &before, &after)?)?))
    }
}

/// Every record before and after the edit, one JSON object a line.
fn lines(before: &[RecordScores], after: &[RecordScores]) -> Result<Vec<u8>, StageError> {
    let mut lines = Vec::new();
    for (i, record) in before.iter().enumerate() {
        let line = json!({ "id": record.id, "before": record, "after": after.get(i) });
        serde_json::to_writer(&mut lines, &line).map_err(|error| StageError::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
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
