//! Targets of one unit of requests at a time, each found once.

use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{StepRecord, Target, TargetSearch, TargetSettings, optimise_pieces};
use palinode_engine::{Error, Key, Progress, StageContext, size};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::model::Loaded;
use crate::errors::StageFailure;
use crate::units;

/// A request's target as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    /// h₀, `[d]`.
    pub initial: Vec<f32>,
    /// δ, `[d]`.
    pub delta: Vec<f32>,
    /// What each step cost.
    pub trace: Vec<StepRecord>,
}

impl From<Target> for Kept {
    fn from(target: Target) -> Self {
        Self { initial: target.initial, delta: target.delta, trace: target.trace }
    }
}

/// What a target depends on that most requests leave to all of them: contexts, and prompts where the model should not drift.
fn own(request: &EditRequest) -> Option<Value> {
    let says = !request.contexts.is_empty() || !request.kl_prompts.is_empty();
    says.then(|| json!({ "contexts": request.contexts, "kl_prompts": request.kl_prompts }))
}

/// What the target of a piece depends on.
fn of_piece(piece: &EditRequest) -> Value {
    let mut parts = vec![json!(piece.prompt), json!(piece.subject), json!(piece.target_new)];
    parts.extend(own(piece));
    json!(parts)
}

/// Finds targets, and keeps them for the next time.
pub struct TargetCache<'a> {
    /// Where they are kept.
    pub cx: &'a StageContext,
    /// The model to be edited.
    pub model: &'a Loaded,
    /// Contexts.
    pub templates: &'a ContextTemplates,
    /// How they are found.
    pub settings: TargetSettings,
    /// All that a target depends on beside its request.
    pub with: Value,
    /// What can change its last digits.
    pub digits: Value,
    /// Requests that are searched for at the same time.
    pub parallel_requests: usize,
    /// Counts requests.
    pub bar: &'a Progress,
}

impl TargetCache<'_> {
    /// The targets of a unit of requests.
    ///
    /// Each batch is kept as a whole as soon as it is found: in its last digits a target depends on the requests that were computed
    /// with it, so a run that was killed ends with the same bits as one that was not. Each target is kept by itself as
    /// well, for batches that are cut otherwise, as when there are more requests than before.
    pub fn find(&self, unit: &[EditRequest]) -> Result<Vec<Kept>, Error> {
        let search = TargetSearch::new(
            &self.model.decoder,
            &self.model.text,
            unit,
            self.templates,
            &self.settings,
            self.parallel_requests,
        )
        .map_err(StageFailure::stage)?;
        let searches = search.searches();
        let mut found: Vec<Option<Kept>> = searches.iter().map(|_| None).collect();
        let mut open = Vec::new();
        // One request's target has the digits of the batch that it was found in, and may not stand in for that of another batch where
        // digits count.
        let alone = !self.cx.strict();
        for batch in search.batches() {
            let whole = self.kept(&self.key(unit, searches, batch)).filter(|targets| targets.len() == batch.len());
            if let Some(targets) = whole {
                self.bar.keep(batch.len() as u64);
                batch.iter().zip(targets).for_each(|(&i, target)| found[i] = Some(target));
                continue;
            }
            for &i in batch.iter().filter(|_| alone) {
                found[i] = self.kept(&self.key(unit, searches, &[i])).and_then(|mut targets| targets.pop());
            }
            let lacking: Vec<usize> = batch.iter().copied().filter(|&i| found[i].is_none()).collect();
            self.bar.keep((batch.len() - lacking.len()) as u64);
            if lacking.is_empty() {
                self.keep(unit, searches, batch, &found)?;
            } else {
                open.push((batch, lacking));
            }
        }
        for some in open.chunks(search.side_by_side()) {
            self.cx.check_interrupt()?;
            let lacking: Vec<Vec<usize>> = some.iter().map(|(_, lacking)| lacking.clone()).collect();
            let made = search.find(&lacking, |step| {
                let (number, steps) = (step.number + 1, self.settings.steps);
                let bytes = search.streamed_bytes().map(|bytes| format!(", {} read so far", size(bytes)));
                self.bar.note(format!("step {number} of {steps}, loss {:.3}{}", step.loss, bytes.unwrap_or_default()));
                self.cx.measured("loss of targets", ("step", number), step.loss.into());
                self.bar.inc(step.finished as u64);
            });
            for ((batch, lacking), targets) in some.iter().zip(made.map_err(StageFailure::stage)?) {
                lacking.iter().zip(targets).for_each(|(&i, target)| found[i] = Some(target.into()));
                // The whole first: a run that is killed between the two would find a part of the batch, and the rest of it
                // would be computed without that part.
                self.keep(unit, searches, batch, &found)?;
                for &i in lacking.iter().filter(|_| alone && batch.len() > 1) {
                    self.keep(unit, searches, &[i], &found)?;
                }
            }
        }
        let mut targets: Vec<Option<Kept>> = unit.iter().map(|_| None).collect();
        for (of, target) in searches.iter().zip(found) {
            for &i in of {
                targets[i].clone_from(&target);
            }
        }
        Ok(targets.into_iter().flatten().collect())
    }

    /// The targets of a unit of requests whose answers are cut into pieces. They are kept as a whole.
    pub fn find_pieces(&self, unit: &[Vec<EditRequest>]) -> Result<Vec<Kept>, Error> {
        let block: Vec<Vec<Value>> = unit.iter().map(|of| of.iter().map(of_piece).collect()).collect();
        let key = units::key(self.cx, &json!({ "with": self.with, "pieces": block }), &self.digits);
        let count: usize = unit.iter().map(Vec::len).sum();
        if let Some(kept) = self.kept(&key).filter(|kept| kept.len() == count) {
            self.bar.keep(unit.len() as u64);
            return Ok(kept);
        }
        let found = optimise_pieces(
            &self.model.decoder,
            &self.model.text,
            unit,
            self.templates,
            &self.settings,
            self.parallel_requests,
            |step| {
                let (number, steps) = (step.number + 1, self.settings.steps);
                self.bar.note(format!("step {number} of {steps}, loss {:.3}", step.loss));
                self.cx.measured("loss of targets", ("step", number), step.loss.into());
            },
        );
        let found: Vec<Kept> = found.map_err(StageFailure::stage)?.into_iter().map(Kept::from).collect();
        let bytes = serde_json::to_vec(&found).map_err(|error| Error::internal(error.to_string()))?;
        self.cx.put_unit(&key, &bytes)?;
        self.bar.inc(unit.len() as u64);
        Ok(found)
    }

    /// Some searches of a unit as the unit of what is kept: a batch, or one of them.
    fn key(&self, unit: &[EditRequest], searches: &[Vec<usize>], some: &[usize]) -> Key {
        let parts = |request: &EditRequest| {
            let mut parts = vec![json!(request.prompt), json!(request.subject), json!(request.target_new)];
            if !request.target_prefix.is_blank() {
                parts.push(json!(request.target_prefix));
            }
            parts.extend(own(request));
            json!(parts)
        };
        let requests = some.iter().map(|&i| match searches[i].as_slice() {
            [one] => parts(&unit[*one]),
            more => more.iter().map(|&one| parts(&unit[one])).collect(),
        });
        let requests: Vec<Value> = requests.collect();
        units::key(self.cx, &json!({ "with": self.with, "block": requests }), &self.digits)
    }

    fn kept(&self, key: &Key) -> Option<Vec<Kept>> {
        self.cx.get_unit(key).and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }

    fn keep(
        &self,
        unit: &[EditRequest],
        searches: &[Vec<usize>],
        some: &[usize],
        found: &[Option<Kept>],
    ) -> Result<(), Error> {
        let targets: Vec<&Kept> = some.iter().filter_map(|&i| found[i].as_ref()).collect();
        let bytes = serde_json::to_vec(&targets).map_err(|error| Error::internal(error.to_string()))?;
        self.cx.put_unit(&self.key(unit, searches, some), &bytes)
    }
}
