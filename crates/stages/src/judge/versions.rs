//! The versions of a model that can be measured: unedited, edited by each batch, and after rounds of a sequence.

use std::sync::Arc;

use palinode_edit::with_edits;
use palinode_engine::bounds::Count;
use palinode_engine::{Error, Given, StageContext};
use palinode_model::{Compute, Decoder};

use crate::artifacts::chat::{Chat, in_chat};
use crate::artifacts::compute::computed_in;
use crate::artifacts::model::{HasModel, Loaded, open};
use crate::artifacts::update::{AnyModel, Batch, RoundFacts, edits, factors_file};
use crate::errors::StageFailure;

/// A model, edited or not.
pub struct Versions<'a> {
    given: &'a Given<'a, AnyModel>,
    /// The unedited model.
    pub model: Arc<Loaded>,
    /// What was edited onto it: one batch or several, each an edit of its own; none of an unedited model.
    pub edits: Vec<Batch>,
    /// The chat that it is measured in.
    chat: Option<Chat>,
    /// What its products round factors to.
    compute: Compute,
}

/// One version of it.
pub struct Version {
    /// The model.
    pub decoder: Decoder,
    /// What tells it from all others.
    pub name: String,
}

impl<'a> Versions<'a> {
    /// Of a `model` or an `update`.
    pub fn open(cx: &StageContext, given: &'a Given<'a, AnyModel>, chat: Option<&Chat>) -> Result<Self, Error> {
        let model = in_chat(open(cx, given)?, chat)?;
        Ok(Self { given, model, edits: edits(cx, given)?, chat: chat.cloned(), compute: Compute::default() })
    }

    /// With products as `compute` says.
    ///
    /// # Errors
    /// On a GPU, if they shall be rounded.
    pub fn computed_in(self, cx: &StageContext, compute: Compute) -> Result<Self, Error> {
        Ok(Self { model: computed_in(cx, self.model, compute)?, compute, ..self })
    }

    /// A name for what is measured, which the chat is part of, and how it is computed.
    fn named(&self, name: String) -> String {
        let name = match &self.chat {
            None => name,
            Some(chat) => format!("{name} {}", chat.name()),
        };
        if self.compute.is_usual() { name } else { format!("{name} in {}", self.compute.name()) }
    }

    /// Edits that were made by the end of a sequence; `None` of any other model.
    pub fn made(&self) -> Option<usize> {
        self.given.facts.rounds().last().map(|round| round.edits)
    }

    /// The rounds after which to measure, counted from 1; the last one is measured anyway.
    pub fn stops(&self, every: Option<Count>) -> Vec<(usize, &RoundFacts)> {
        let Some(every) = every.map(Count::get) else { return Vec::new() };
        let numbered = self.given.facts.rounds().iter().enumerate().map(|(i, round)| (i + 1, round));
        numbered.filter(|(number, _)| number % every == 0).collect()
    }

    /// Warns where `every` has no rounds to apply to.
    pub fn tell_rounds(&self, cx: &StageContext, every: Option<Count>) {
        if every.is_some() && self.given.facts.rounds().is_empty() {
            cx.warn("`every` has no effect: what is judged is not a sequence of rounds");
        }
    }

    /// As it was before any edit.
    pub fn unedited(&self) -> Version {
        Version { decoder: self.model.decoder.clone(), name: self.named(self.given.base()) }
    }

    /// With one batch of edits.
    pub fn batch(&self, number: usize) -> Result<Version, Error> {
        self.with(&self.edits[number], &format!("batch {number}"))
    }

    /// As a round of a sequence left it.
    pub fn round(&self, number: usize, round: &RoundFacts) -> Result<Version, Error> {
        self.with(&self.edits[0].at(round)?, &format!("round {number}"))
    }

    fn with(&self, batch: &Batch, name: &str) -> Result<Version, Error> {
        let updates = batch.updates.iter().map(|(weight, delta)| (*weight, delta));
        let decoder = with_edits(&self.model.decoder, updates).map_err(StageFailure::stage)?;
        let factors = factors_file(self.given)?.digest;
        Ok(Version { decoder, name: self.named(format!("{} {name} of {factors}", self.given.base())) })
    }
}
