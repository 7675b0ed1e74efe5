//! Targets of one block of requests at a time, each found once.

use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{StepRecord, Target, TargetSettings, optimise};
use palinode_engine::{Key, Progress, StageContext, StageError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::model::Loaded;
use crate::errors::StageFailure;

/// A request's target as it is kept.
#[derive(Serialize, Deserialize)]
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

/// Finds targets, and keeps them for the next time.
pub struct Finder<'a> {
    /// Where units are kept.
    pub cx: &'a StageContext,
    /// The model to be edited.
    pub model: &'a Loaded,
    /// Contexts.
    pub templates: &'a ContextTemplates,
    /// How they are found.
    pub settings: TargetSettings,
    /// All that a target depends on beside its request.
    pub with: Value,
    /// Counts requests.
    pub bar: &'a Progress,
}

impl Finder<'_> {
    /// The targets of a block, optimised together.
    ///
    /// A block is kept as a whole, so that a run that was killed ends with the same bits as one that was not: in the last
    /// digits a target depends on the requests that were computed with it. Each target is kept by itself as well, for blocks
    /// that are cut otherwise, as when there are more requests than before.
    pub fn find(&self, block: &[EditRequest]) -> Result<Vec<Kept>, StageError> {
        let whole = self.key(block);
        if let Some(kept) = self.kept(&whole) {
            self.bar.keep(block.len() as u64);
            return Ok(kept);
        }
        let mut found: Vec<Option<Kept>> =
            block.iter().map(|request| self.kept(&self.key(std::slice::from_ref(request)))?.pop()).collect();
        let missing: Vec<usize> = (0..block.len()).filter(|&i| found[i].is_none()).collect();
        self.bar.keep((block.len() - missing.len()) as u64);
        if !missing.is_empty() {
            let requests: Vec<EditRequest> = missing.iter().map(|&i| block[i].clone()).collect();
            for (&i, target) in missing.iter().zip(self.optimise(&requests)?) {
                found[i] = Some(target);
            }
        }
        let found: Vec<Kept> = found.into_iter().flatten().collect();
        self.keep(&whole, &found)?;
        if block.len() > 1 {
            for &i in &missing {
                self.keep(&self.key(&block[i..=i]), &found[i..=i])?;
            }
        }
        Ok(found)
    }

    fn optimise(&self, requests: &[EditRequest]) -> Result<Vec<Kept>, StageError> {
        let (decoder, text) = (&self.model.decoder, &self.model.text);
        let steps = self.settings.steps;
        let made = optimise(decoder, text, requests, self.templates, &self.settings, |step| {
            self.bar.note(format!("step {} of {steps}, loss {:.3}", step.number + 1, step.loss));
            self.bar.inc(step.finished as u64);
        })
        .map_err(StageFailure::stage)?;
        Ok(made.into_iter().map(Kept::from).collect())
    }

    fn key(&self, block: &[EditRequest]) -> Key {
        let requests: Vec<_> = block.iter().map(|r| [&r.prompt, &r.subject, &r.target_new]).collect();
        self.cx.unit_key(&json!({ "with": self.with, "block": requests }))
    }

    fn kept(&self, key: &Key) -> Option<Vec<Kept>> {
        self.cx.get_unit(key).and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }

    fn keep(&self, key: &Key, targets: &[Kept]) -> Result<(), StageError> {
        let bytes = serde_json::to_vec(targets).map_err(|error| StageError::internal(error.to_string()))?;
        self.cx.put_unit(key, &bytes)
    }
}
