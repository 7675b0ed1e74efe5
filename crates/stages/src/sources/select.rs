//! `select`: the requests that a model knows, or does not know.

use palinode_data::{CONDITION_EXPECTED, Condition, EditRequest, records_of};
use palinode_engine::bounds::Count;
use palinode_engine::shown::{self, Column, Format, Shown};
use palinode_engine::{
    Artifact, DescribeCx, Error, FieldError, Inputs, Port, PortOf, StageContext, StageKind, UnitPlan,
};
use palinode_eval::{Query, score};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::chat::in_chat;
use crate::artifacts::model::{HasModel, ModelKind, open};
use crate::artifacts::requests::{PlannedRequests, RequestsKind, put_chosen, requests};
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::units::Units;

/// Requests in a unit.
const UNIT: usize = 32;
/// The logical name of what the choice rests on.
const KNOWN: &str = "known.jsonl";

/// Parameters of `select`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectParams {
    /// What holds of the requests to take: comparisons of `p_true` and `p_new`, the model's probabilities of the true and of the new target after the
    /// rewrite prompt, and numbers, joined by `and`. `p_true > p_new` takes facts that the model knows, rather than what the edit says.
    #[serde(rename = "where")]
    condition: String,
    /// Maximum number of records.
    #[serde(default)]
    limit: Option<Count>,
    #[serde(default)]
    batch_tokens: BatchTokens,
}

/// The model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The model whose knowledge decides.");
/// The requests.
const REQUESTS: PortOf<RequestsKind> = PortOf::required("requests", "The requests to choose from.");

/// The probabilities of a request's targets.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Known {
    p_true: Option<f64>,
    p_new: f64,
}

/// The same with its bits, of which JSON does not keep the last.
#[derive(Serialize, Deserialize)]
struct Kept([u64; 2], bool);

impl From<Known> for Kept {
    fn from(known: Known) -> Self {
        Self([known.p_new.to_bits(), known.p_true.unwrap_or_default().to_bits()], known.p_true.is_some())
    }
}

impl From<Kept> for Known {
    fn from(Kept([p_new, p_true], knows): Kept) -> Self {
        Self { p_new: f64::from_bits(p_new), p_true: knows.then(|| f64::from_bits(p_true)) }
    }
}

/// See [`StageKind::DOC`].
pub struct Select;

impl StageKind for Select {
    type Params = SelectParams;
    const NAME: &'static str = "select";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Chooses edit requests by what a model knows.";
    const DOC: &'static str = "\
Scores the rewrite prompt of every request on a model, and takes the requests of which `where` holds, in their order. An edit of a fact that the \
model does not know, or of one that it already says in the edited form, tests something else than most papers claim to test. A record with several \
edits (MQuAKE, or `group`) is taken where it holds of all of them.

p(target) = exp(−mean negative log-likelihood per token), as in `evaluate`. The choice is a result of its own, so that all that follows rests on \
the same requests; known.jsonl has the probabilities that it was made by.";
    type Output = RequestsKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), REQUESTS.port()]
    }

    fn last_digits() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn resolved(params: &SelectParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("batch_tokens", params.batch_tokens.resolved(BatchTokens::PROMPTS, hardware))]
    }

    fn units(_: &SelectParams, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        cx.input(REQUESTS).requests.map(units)
    }

    fn parts(_: &SelectParams, inputs: &Inputs<'_>) -> Result<Option<UnitPlan>, Error> {
        Ok(inputs.get(REQUESTS)?.map(|asked| units(asked.facts.requests)))
    }

    fn describe(params: &SelectParams, _: &DescribeCx<'_>) -> Result<PlannedRequests, Vec<FieldError>> {
        match Condition::parse(&params.condition) {
            Ok(_) => Ok(PlannedRequests::default()),
            Err(message) => Err(vec![FieldError::new("where", message).expected(CONDITION_EXPECTED)]),
        }
    }

    fn run(params: &SelectParams, cx: &StageContext) -> Result<Artifact, Error> {
        let condition = Condition::parse(&params.condition).map_err(Error::internal)?;
        let given = cx.input(MODEL)?;
        let asked = cx.input(REQUESTS)?;
        let model = in_chat(open(cx, &given)?, asked.facts.chat.as_ref())?;
        let all = requests(cx, &asked)?;
        if let Some(request) = all.iter().find(|request| condition.needs_true() && request.target_true.is_none()) {
            return Err(Error::input(format!(
                "request {} has no true target, and `where` asks for p_true",
                request.id
            ))
            .hint("compare p_new with a number, or use requests with `target_true`"));
        }
        let bar = cx.progress("requests", Some(all.len() as u64));
        let tokens = params.batch_tokens.or(BatchTokens::PROMPTS, &model.decoder);
        let units = Units { cx, bar: &bar, size: UNIT, digits: json!({ "batch_tokens": tokens }) };
        let chat = asked.facts.chat.as_ref().map(crate::artifacts::chat::Chat::name);
        let known: Vec<Kept> = units.run(&json!(["known", given.base(), chat]), &all, |block| {
            let query = |request: &EditRequest| {
                let prompt = request.filled_prompt();
                let targets = std::iter::once(&request.target_new).chain(&request.target_true);
                Query { targets: targets.map(|target| request.continuation(&prompt, target)).collect(), prompt }
            };
            let queries: Vec<Query> = block.iter().map(query).collect();
            let scores = score(&model.decoder, &model.text, &queries, tokens).map_err(StageFailure::stage)?;
            bar.inc(block.len() as u64);
            let known = |scores: &Vec<palinode_eval::Score>| Known {
                p_new: scores[0].probability(),
                p_true: scores.get(1).map(palinode_eval::Score::probability),
            };
            Ok(scores.iter().map(|scores| known(scores).into()).collect())
        })?;
        if cx.share().is_some() {
            return Ok(cx.end_of_share());
        }
        let known: Vec<Known> = known.into_iter().map(Known::from).collect();
        let holds = |known: &Known| condition.holds(known.p_true.unwrap_or(f64::NAN), known.p_new);
        let records = records_of(&all);
        let taken = records.iter().filter(|record| known[(*record).clone()].iter().all(holds));
        let taken: Vec<_> = taken.take(params.limit.map_or(usize::MAX, Count::get)).cloned().collect();
        if taken.is_empty() {
            let best = |of: &dyn Fn(&Known) -> Option<f64>| known.iter().filter_map(of).fold(0.0, f64::max);
            return Err(Error::input(format!(
                "`{condition}` holds of none of {} records; the largest p_true is {}, the largest p_new {}",
                records.len(),
                shown::percent(best(&|known| known.p_true)),
                shown::percent(best(&|known| Some(known.p_new)))
            ))
            .hint("choose another condition, or other requests"));
        }
        let chosen: Vec<EditRequest> = taken.iter().flat_map(|record| all[record.clone()].iter().cloned()).collect();
        let mut lines = Vec::new();
        for (at, (request, known)) in all.iter().zip(&known).enumerate() {
            let taken = taken.iter().any(|record| record.contains(&at));
            let line = json!({ "id": request.id, "p_true": known.p_true, "p_new": known.p_new, "taken": taken });
            serde_json::to_writer(&mut lines, &line).map_err(|error| Error::internal(error.to_string()))?;
            lines.push(b'\n');
        }
        let column = |name, doc| Column::new(name, name, Format::Number).ranked(None).doc(doc);
        let shown = Shown::table(
            [("taken", shown::count(taken.len())), ("of", shown::count(records.len()))]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            vec![column("taken", "records of which the condition holds"), column("of", "records to choose from")],
        );
        let made = put_chosen(cx, &chosen, &asked, shown)?;
        Ok(made.with_file(KNOWN, cx.put_bytes(&lines)?))
    }
}

/// How so many requests are cut.
fn units(requests: usize) -> UnitPlan {
    UnitPlan::new("requests", requests, UNIT)
}
