//! `evaluate`: what an edit did to a model's answers.

mod ages;
pub mod answers;
mod samples;
mod scorer;
pub mod shown;
mod table;
mod verdict;

use std::path::{Path, PathBuf};

use palinode_data::{EditRequest, word_weights};
use palinode_engine::bounds::Count;
use palinode_engine::shown::Shown;
use palinode_engine::{
    Artifact, DescribeCx, Error, ExternalFile, FieldError, Inputs, Port, PortOf, StageContext, StageKind, UnitPlan,
    artifact,
};
use palinode_eval::{Group, MetricSet, RecordScores, Summary, Tfidf, Words, Writing};
use palinode_model::Compute;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::ages::Ages;
use self::answers::{AnswerParams, beside, by_hops, gap};
use self::samples::{Length, Part, samples};
use self::scorer::Scorer;
use self::verdict::{Doubt, relative_norms, superseded_in, superseded_words, untaken, without};
use crate::artifacts::compute::check;
use crate::artifacts::measurements::{AGES, ANSWERS, RECORDS, ScoresFacts, ScoresKind, TABLE};
use crate::artifacts::requests::{RequestsFacts, RequestsKind, contents, requests};
use crate::artifacts::update::{AnyModel, Batch};
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::judge::measured::{rounds_of, step};
use crate::judge::versions::Versions;

/// Bootstrap samples at most: an interval's ends settle at some thousand, and they are drawn without a look at Ctrl-C.
const MOST_RESAMPLES: usize = 100_000;

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
    /// What counts as a word for GE. The published numbers are of Treebank words; `whitespace` is what Palinode counted before.
    #[serde(default)]
    words: Words,
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

/// Parameters of `evaluate`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateParams {
    /// After a `sequence`: also score after every this many rounds, each time on the edits made up to that round.
    #[serde(default)]
    every: Option<Count>,
    /// After a `sequence`: also report the newest round's edits and the first round's by themselves (`newest_…`, `oldest_…`), at every round
    /// that is scored, and at the end every round's edits by their age (`ages.json`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    by_age: bool,
    /// The set of metrics. The default is the usual one of the data set.
    #[serde(default)]
    #[schemars(length(min = 1))]
    metrics: Option<Vec<MetricSet>>,
    /// Generate longer texts before and after the edit, and measure their entropy (GE; EasyEdit calls it fluency). They
    /// start from the requests' generation prompts or, without any, from their rewrite prompts. This takes longer than all
    /// other metrics.
    #[serde(default)]
    generation: Option<GenerationParams>,
    /// Have the model answer the prompts in its own words, before and after the edit: `answers: {}`, with how it is done. Teacher forcing shows a
    /// model the right answer as it goes and says too much; these are figures of what it says by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers: Option<AnswerParams>,
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
    /// When the result says in words that an edit is doubtful.
    #[serde(default, skip_serializing_if = "Doubt::is_default")]
    doubt: Doubt,
    #[serde(default)]
    batch_tokens: BatchTokens,
    /// What both factors of matrix products are rounded to, on a CPU: `bf16` takes half of the time in products on AMD's CPUs with
    /// AVX-512 BF16, and a third on Intel's with AMX under Linux (`doctor --measure` measures yours). It keeps 8 bits of each factor. Sums and all else stay in f32 or f64, and
    /// so do products with a weight that was edited.
    #[serde(default, skip_serializing_if = "Compute::is_usual")]
    compute: Compute,
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
    fn groups(&self, asked: &RequestsFacts, requests: &[EditRequest]) -> Vec<Group> {
        match self.metrics.as_ref().or(asked.judged.as_ref()) {
            Some(chosen) => chosen.iter().map(|set| set.group()).collect(),
            None if requests.iter().any(|r| !r.portability.is_empty() || !r.locality.is_empty()) => {
                vec![Group::EasyEdit]
            }
            None if requests.iter().any(|r| r.target_true.is_some()) => vec![Group::CounterFact],
            None => vec![Group::ZsRe],
        }
    }

    /// What tells how alike texts are; `None` where there is nothing to compare with.
    fn tfidf(&self, cx: &StageContext, requests: &[EditRequest]) -> Result<Option<Tfidf>, Error> {
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

/// The model.
const MODEL: PortOf<AnyModel> = PortOf::required("model", "The model, edited or not.");
/// The requests.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The prompts for the evaluation.");

/// See [`StageKind::DOC`].
pub struct Evaluate;

impl StageKind for Evaluate {
    type Params = EvaluateParams;
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 10;
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

With `answers`, the model's own words: it writes an answer to each prompt, greedily or drawn with a seed, until a stop rule ends it. Of rewrite, paraphrase, neighborhood, portability and locality prompts alike, `exact` is the share of answers that are a right one after lower case, articles and punctuation, `contains` of those that have one in them, and F1 the words that both share. The result says how far they are from the teacher-forced figures of the same prompts, and keeps every answer (answers.jsonl), which the stage `judge` reads. Greedy, EA is the share of prompts whose text begins with the target; shares of matching tokens (reliability) say more than any text does. docs/answers.md has it all.

Means are taken within a record first, then over records. Every batch of an edited model is scored on that batch's own \
edited model. The unedited model is scored as well (`before_…`), once for all cells of a matrix. The 95 % intervals are \
Wilson's where each record succeeds or fails, or all agree, and else from a percentile bootstrap over records. After a `sequence`, `every: k` scores every k-th round too, on the edits made up \
to that round. With `by_age`, the newest round's edits and the first round's are scored by themselves too: how well a round takes after \
all others, and how much of the oldest edits is left (retention).

Findings say in words where an edit is doubtful, with the figures: edits that did not take, a weight that changed by many times \
its own norm, prompts about other subjects that lost their answer. `doubt` sets how much of each is passed over.

Superseded edits, which a later edit of the same model takes back because it says something else of the same subject and relation, \
or at the same prompt, are reported apart: their number, and all metrics over the other edits (`current_…`). The headline scores \
count them, as the published code does.

The result keeps the likelihoods of every prompt: records.jsonl, one record per line, and records.parquet, one prompt per \
row.";
    type Output = ScoresKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port()]
    }

    fn carries() -> &'static [u32] {
        // Version 8 added answers, which do nothing where they are left out; else last digits differ. Version 9 has Wilson's intervals of the
        // figures by hops, too. Version 10 added `compute`. Before version 7, intervals could be a point.
        &[7, 8, 9]
    }

    fn last_digits() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn resolved(params: &EvaluateParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("batch_tokens", params.batch_tokens.resolved(BatchTokens::PROMPTS, hardware))]
    }

    /// Those of one version of the model: each version's requests are cut alike.
    fn units(_: &EvaluateParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        cx.input(REQUESTS).requests.map(scorer::units)
    }

    /// The unedited model's, then each version's.
    fn parts(_: &EvaluateParams, inputs: &Inputs<'_>) -> Result<Option<UnitPlan>, Error> {
        let edited = inputs.get(MODEL)?.is_some_and(|model| model.facts.asked().is_some());
        let records = inputs.get(REQUESTS)?.map(|asked| asked.facts.requests * if edited { 2 } else { 1 });
        Ok(records.map(scorer::units))
    }

    fn files(params: &EvaluateParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let Some(weights) = &params.word_weights else { return Ok(Vec::new()) };
        Ok(vec![
            ExternalFile::new("vocabulary", &weights.vocabulary, "word_weights.vocabulary"),
            ExternalFile::new("idf", &weights.idf, "word_weights.idf"),
        ])
    }

    fn describe(params: &EvaluateParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        if params.word_weights.is_some() && params.generation.is_none() {
            let error = FieldError::new("word_weights", "weights of words, but no texts to weigh");
            errors.push(error.hint("add `generation: {}`, which writes the texts"));
        }
        if params.metrics.as_ref().is_some_and(Vec::is_empty) {
            errors.push(FieldError::new("metrics", "`metrics` is empty").expected("counterfact, zsre or easyedit"));
        }
        errors.extend(check(params.compute, cx.input(MODEL).model.as_ref()));
        errors.extend(params.answers.iter().flat_map(AnswerParams::check));
        if params.resamples > MOST_RESAMPLES {
            let message = format!("`resamples` is {}", params.resamples);
            errors
                .push(FieldError::new("resamples", message).expected(format!("a whole number up to {MOST_RESAMPLES}")));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &EvaluateParams, cx: &StageContext) -> Result<Artifact, Error> {
        let given = cx.input(MODEL)?;
        let asked = cx.input(REQUESTS)?;
        let mut requests = requests(cx, &asked)?;
        let all = Versions::open(cx, &given, asked.facts.chat.as_ref())?.computed_in(cx, params.compute)?;
        let own = given.facts.asked() == Some(contents(&asked)?);
        if let Some(made) = all.made()
            && own
        {
            // A sequence that ended early is judged by the edits that it made.
            requests.truncate(made);
        }
        let (model, edits) = (&all.model, &all.edits);
        let parts = parts(edits, own, &requests)?;
        all.tell_rounds(cx, params.every);
        let mut stops = all.stops(params.every);
        stops.retain(|(_, round)| round.edits <= requests.len());
        let total =
            requests.len() * if edits.is_empty() { 1 } else { 2 } + stops.iter().map(|(_, r)| r.edits).sum::<usize>();
        let total = total * if params.answers.is_some() { 2 } else { 1 };
        let bar = cx.progress("records", Some(total as u64));
        let writing =
            params.generation.as_ref().map(|g| Writing { length: g.length, top_k: g.top_k.get(), seed: g.seed });
        let tfidf = params.tfidf(cx, &requests)?;
        let answering = params.answers.as_ref().map(|answers| (answers, answers.answering()));
        let spoken = match params.answers.as_ref().and_then(|answers| answers.chat.as_ref()) {
            Some(chat) => Some(model.text.in_chat(chat.system.as_deref()).map_err(StageFailure::stage)?),
            None => None,
        };
        let answering =
            answering.as_ref().map(|(params, how)| (how, spoken.as_ref().unwrap_or(&model.text), params.name()));
        let scorer = Scorer {
            cx,
            text: &model.text,
            tokens: params.batch_tokens.or(BatchTokens::PROMPTS, &model.decoder),
            writing,
            words: params.generation.as_ref().map(|g| g.words).unwrap_or_default(),
            tfidf: tfidf.as_ref(),
            answering,
            bar: &bar,
        };
        let before = scorer.score(&all.unedited(), &requests)?;
        let mut after = Vec::with_capacity(requests.len());
        for (b, (_, range)) in parts.iter().enumerate() {
            after.extend(scorer.score(&all.batch(b)?, &requests[range.clone()])?);
        }
        if cx.share().is_some() {
            for (number, round) in stops {
                scorer.score(&all.round(number, round)?, &requests[..round.edits])?;
            }
            return Ok(cx.end_of_share());
        }
        let groups = params.groups(&asked.facts, &requests);
        let ages = Ages::of(params.by_age && own, given.facts.rounds(), requests.len());
        if params.by_age && ages.is_none() {
            cx.warn("`by_age` says nothing here: the model was not edited by a `sequence` with the rounds of these requests");
        }
        let mut series = Vec::new();
        for (number, round) in stops {
            let scores = scorer.score(&all.round(number, round)?, &requests[..round.edits])?;
            let summary = Summary::between(&before[..round.edits], &scores);
            let intervals = shown::intervals(&summary, &groups, params.resamples, SEED);
            let mut values = shown::values(&summary, &groups);
            if let Some(ages) = &ages {
                values.extend(ages.ends(number, &before, &scores, &groups));
            }
            for column in shown::columns(&summary, &groups, false) {
                if let Some(value) = palinode_engine::shown::value(&values, &column.name) {
                    cx.measured(&column.name, ("edits", round.edits), value);
                }
            }
            series.push(step(number, round.edits, values, intervals));
        }
        let length = Length { samples: params.samples, tokens: params.sample_tokens };
        let samples = samples(length, model, &parts, &requests, (&before, &after))?;

        let base = Summary::of(&before);
        let now = if edits.is_empty() { base.clone() } else { Summary::between(&before, &after) };
        let mut metrics = shown::values(&now, &groups);
        if !edits.is_empty() {
            let earlier = shown::values(&base, &groups).into_iter();
            metrics.extend(earlier.map(|(name, value)| (format!("before_{name}"), value)));
        }
        let mut columns = shown::columns(&now, &groups, !edits.is_empty());
        beside(&mut columns);
        let last = if edits.is_empty() { &before } else { &after };
        let (hops, mut intervals, more) = by_hops(last, params.resamples, SEED);
        intervals.extend(shown::intervals(&now, &groups, params.resamples, SEED));
        metrics.extend(hops);
        columns.extend(more);
        let notes = if params.answers.is_some() { gap(&now, &groups) } else { Vec::new() };
        if let Some(ages) = &ages {
            metrics.extend(ages.ends(ages.last(), &before, &after, &groups));
            columns.extend(Ages::columns(&now, &groups));
        }
        if !edits.is_empty() {
            // A row of thirty-two models with an edit each and a row of one model with thirty-two edits say different things.
            metrics.insert(shown::MODELS.into(), palinode_engine::shown::count(parts.len()));
            metrics.insert(shown::EDITS.into(), palinode_engine::shown::count(requests.len()));
            columns.extend(shown::behind());
        }
        let (mut failed, mut findings) = (Vec::new(), Vec::new());
        if !edits.is_empty() {
            let gone = superseded_in(&parts, &requests);
            failed = untaken(&requests, &after, &gone);
            let norms = relative_norms(&model.decoder, edits)?;
            findings = params.doubt.findings(&failed, (&before, &after), &norms);
            if !gone.is_empty() {
                // Whether an edit took that a later one took back says nothing. The headline scores count it all the same, as the published
                // code does.
                let (before, after) = (without(&before, &gone), without(&after, &gone));
                let current = Summary::between(&before, &after);
                let current_values = shown::values(&current, &groups).into_iter();
                metrics.extend(current_values.map(|(name, value)| (format!("current_{name}"), value)));
                metrics.insert("superseded".into(), palinode_engine::shown::count(gone.len()));
                findings.push(superseded_words(&gone, &requests, &current, &groups));
            }
        }
        let shown = Shown {
            findings: (!findings.is_empty()).then_some(findings),
            metrics: Some(metrics),
            // records.jsonl has them one by one.
            n: None,
            intervals: Some(intervals),
            notes: (!notes.is_empty()).then_some(notes),
            columns: Some(columns),
            series: Some(rounds_of(series)),
            samples: Some(samples),
        };
        let facts = ScoresFacts { requests: requests.len(), batches: parts.len(), untaken: failed.len(), shown };
        let made = artifact::<ScoresKind>(&facts)?;
        let made = match &ages {
            Some(ages) => made.with_file(AGES, cx.put_bytes(&ages.curve(&before, &after, &groups)?)?),
            None => made,
        };
        let made = match params.answers {
            Some(_) => made.with_file(ANSWERS, cx.put_bytes(&answers::lines(&before, &after)?)?),
            None => made,
        };
        Ok(made
            .with_file(RECORDS, cx.put_bytes(&lines(&before, &after)?)?)
            .with_file(TABLE, cx.put_bytes(&table::table(&requests, &before, &after)?)?))
    }
}

/// Every record before and after the edit, one JSON object a line.
fn lines(before: &[RecordScores], after: &[RecordScores]) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::new();
    for (i, record) in before.iter().enumerate() {
        let line = json!({ "id": record.id, "before": record, "after": after.get(i) });
        serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// One batch can be scored on any requests; several only on those that they were made for, which `own` says, each on its own.
fn parts<'a>(edits: &'a [Batch], own: bool, requests: &[EditRequest]) -> Result<Vec<Part<'a>>, Error> {
    if let [only] = edits {
        return Ok(vec![(only, 0..requests.len())]);
    }
    if !edits.is_empty() && !own {
        return Err(Error::input(format!(
            "the model was edited in {} batches for other requests than these",
            edits.len()
        ))
        .hint("connect `evaluate` to the requests of `solve`: each batch is scored on its own requests"));
    }
    Ok(edits.iter().map(|batch| (batch, batch.facts.start..batch.facts.end)).collect())
}
