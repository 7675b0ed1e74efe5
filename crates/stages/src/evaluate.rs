//! `evaluate`: what an edit did to a model's answers.

use palinode_data::EditRequest;
use palinode_edit::with_edits;
use palinode_engine::{Artifact, ArtifactKind, DescribeCx, FieldError, Port, StageContext, StageError, StageKind};
use palinode_eval::{METRICS, RecordScores, Summary, counterfact};
use palinode_model::generate::{Sampling, generate};
use palinode_model::{Decoder, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::errors::StageFailure;
use crate::load_requests::{REQUESTS, requests};
use crate::model::{Loaded, MODEL, UPDATE, base_digest, file, open};
use crate::update::{Batch, RoundFacts, batches, factors_file};

/// Records scored between two looks at Ctrl-C; what is kept of an interrupted stage is a multiple of it.
const BLOCK: usize = 32;

/// Parameters of `evaluate`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateParams {
    /// After a `sequence`: score also after every so many rounds, each time on the edits made by then.
    #[serde(default)]
    every: Option<usize>,
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

fn three() -> usize {
    3
}

fn eight() -> usize {
    8
}

fn batch_tokens() -> usize {
    4096
}

/// See [`StageKind::DOC`].
pub struct Evaluate;

impl StageKind for Evaluate {
    type Params = EvaluateParams;
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Scores efficacy, paraphrase and neighbourhood, before and after an edit.";
    const DOC: &'static str = "\
CounterFact's metrics, with p(target) = exp(−mean negative log-likelihood per token):

  ES, PS  share of rewrite prompts and paraphrases where p(new) > p(true)
  NS      share of prompts about other subjects where p(true) > p(new)
  S       harmonic mean of the three
  EM PM NM  the same as mean differences of probability
  EA PA NA  the same as accuracy: every token of the target is the most probable one

Means are taken within a record first, then over records. Every batch of an edited model is scored on that batch's own edited \
model. The unedited model is scored as well (`before_…`), once for all cells of a matrix. Likelihoods of every prompt are kept \
in the result. After a `sequence`, `every: k` scores every k-th round too, on the edits made by then.";
    const OUTPUT: ArtifactKind = "scores";

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
        let scorer = Scorer { cx, text: &model.text, tokens: params.batch_tokens };
        let bar = cx.progress("records", Some(total as u64));
        let before = scorer.score(&model.decoder, &base_digest(artifact), &requests, &bar)?;
        let mut after = Vec::with_capacity(requests.len());
        for (b, (batch, range)) in parts.iter().enumerate() {
            let edited = with_edits(&model.decoder, batch.updates.iter().map(|(layer, update)| (*layer, update)));
            let of = format!("{} batch {b} of {}", base_digest(artifact), factors_file(artifact)?.digest);
            after.extend(scorer.score(&edited, &of, &requests[range.clone()], &bar)?);
        }
        let mut series = Vec::new();
        for (number, round) in stops {
            let edited = with_edits(&model.decoder, edits[0].at(round).updates.iter().map(|(layer, u)| (*layer, u)));
            let of = format!("{} round {number} of {}", base_digest(artifact), factors_file(artifact)?.digest);
            let scores = scorer.score(&edited, &of, &requests[..round.edits], &bar)?;
            let mut row: Map<String, Value> =
                Summary::of(&scores).iter().map(|(m, value)| (m.name.to_owned(), json!(value))).collect();
            row.insert("round".into(), json!(number));
            row.insert("edits".into(), json!(round.edits));
            series.push(row);
        }
        let samples = samples(params, &model, &parts, &requests)?;

        let base = Summary::of(&before);
        let shown = if edits.is_empty() { base.clone() } else { Summary::of(&after) };
        let mut metrics: Map<String, Value> =
            shown.iter().map(|(m, value)| (m.name.to_owned(), json!(value))).collect();
        let column = |name: String, label: String, share: bool, better: Option<&str>| json!({ "name": name, "label": label, "format": if share { "percent" } else { "number" }, "better": better });
        let mut columns: Vec<Value> =
            METRICS.iter().map(|m| column(m.name.into(), m.label.into(), m.share, Some("max"))).collect();
        if !edits.is_empty() {
            for (m, value) in base.iter() {
                metrics.insert(format!("before_{}", m.name), json!(value));
            }
            columns.extend(
                METRICS[1..4]
                    .iter()
                    .map(|m| column(format!("before_{}", m.name), format!("{} before", m.label), m.share, None)),
            );
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
            "columns": columns,
            "series": { "label": "rounds", "axes": ["round", "edits"], "rows": series },
            "samples": samples,
        });
        Ok(Artifact::new(Self::OUTPUT, meta).with_file("records.json", cx.put_bytes(&records)?))
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

/// Scores requests block by block; finished blocks are kept, and shared with other stages that score the same model.
struct Scorer<'a> {
    cx: &'a StageContext,
    text: &'a Text,
    tokens: usize,
}

impl Scorer<'_> {
    fn score(
        &self,
        decoder: &Decoder,
        of: &str,
        requests: &[EditRequest],
        bar: &palinode_engine::Progress,
    ) -> Result<Vec<RecordScores>, StageError> {
        let mut scores: Vec<RecordScores> = Vec::with_capacity(requests.len());
        for block in requests.chunks(BLOCK) {
            self.cx.check_interrupt()?;
            let unit = self.cx.unit_key(&json!({ "of": of, "block": block }));
            let kept =
                self.cx.get_unit(&unit).and_then(|bytes| serde_json::from_slice::<Vec<RecordScores>>(&bytes).ok());
            let found = if let Some(found) = kept {
                bar.keep(block.len() as u64);
                found
            } else {
                let found = counterfact(decoder, self.text, block, self.tokens).map_err(StageFailure::stage)?;
                check(&found)?;
                let bytes = serde_json::to_vec(&found).map_err(|error| StageError::internal(error.to_string()))?;
                self.cx.put_unit(&unit, &bytes)?;
                bar.inc(block.len() as u64);
                found
            };
            scores.extend(found);
        }
        Ok(scores)
    }
}

fn check(scores: &[RecordScores]) -> Result<(), StageError> {
    for record in scores {
        let prompts = record.rewrite.iter().chain(&record.paraphrase).chain(&record.neighborhood);
        for prompt in prompts {
            if !(prompt.new.nll.is_finite() && prompt.old.is_none_or(|old| old.nll.is_finite())) {
                let message =
                    format!("request {}: the model's answer to {:?} is not a number", record.id, prompt.prompt);
                return Err(StageError::numerical(message)
                    .hint("the edit broke the model: raise `lambda`, or edit fewer facts"));
            }
        }
    }
    Ok(())
}

/// What the model says by itself, before and after.
fn samples(
    params: &EvaluateParams,
    model: &Loaded,
    parts: &[Part<'_>],
    requests: &[EditRequest],
) -> Result<Vec<Value>, StageError> {
    let said = |decoder: &Decoder, request: &EditRequest| -> Result<String, StageError> {
        let prompt = model.text.encode(&request.filled_prompt()).map_err(StageFailure::stage)?;
        let length = prompt.len() + params.sample_tokens;
        let ids =
            generate(decoder, &prompt, length, Sampling::Greedy, 0, model.text.end()).map_err(StageFailure::stage)?;
        let words = model.text.decode(&ids[prompt.len()..]).map_err(StageFailure::stage)?;
        Ok(words.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let mut shown = Vec::new();
    for (i, request) in requests.iter().take(params.samples).enumerate() {
        let mut sample = json!({
            "prompt": request.filled_prompt(),
            "new target": request.target_new.trim(),
            "before": said(&model.decoder, request)?,
        });
        if let Some((batch, _)) = parts.iter().find(|(_, range)| range.contains(&i)) {
            let edited = with_edits(&model.decoder, batch.updates.iter().map(|(layer, update)| (*layer, update)));
            sample["after"] = json!(said(&edited, request)?);
        }
        shown.push(sample);
    }
    Ok(shown)
}
