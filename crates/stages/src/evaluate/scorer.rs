//! Requests scored block by block; finished blocks are kept, and shared with other stages that score the same model.

use palinode_data::EditRequest;
use palinode_engine::{Progress, StageContext, StageError};
use palinode_eval::{RecordScores, Writing, score_requests, write};
use palinode_model::{Decoder, Text};
use serde_json::json;

use crate::errors::StageFailure;

/// Records scored between two looks at Ctrl-C; what is kept of an interrupted stage is a multiple of it.
const BLOCK: usize = 32;

/// Scores requests on models.
pub struct Scorer<'a> {
    /// Where blocks are kept.
    pub cx: &'a StageContext,
    /// The models' tokenizer.
    pub text: &'a Text,
    /// Bound on a batch's rectangle of tokens.
    pub tokens: usize,
    /// How longer texts are written, where they are asked for.
    pub writing: Option<Writing>,
    /// Counts records.
    pub bar: &'a Progress,
}

impl Scorer<'_> {
    /// The scores of requests on a model that is known by the name `of`.
    pub fn score(
        &self,
        decoder: &Decoder,
        of: &str,
        requests: &[EditRequest],
    ) -> Result<Vec<RecordScores>, StageError> {
        let mut scores: Vec<RecordScores> = Vec::with_capacity(requests.len());
        let writing = self.writing.map(|w| [w.length as u64, w.top_k as u64, w.seed]);
        for block in requests.chunks(BLOCK) {
            self.cx.check_interrupt()?;
            let unit = self.cx.unit_key(&json!({ "of": of, "block": block, "writing": writing }));
            let kept =
                self.cx.get_unit(&unit).and_then(|bytes| serde_json::from_slice::<Vec<RecordScores>>(&bytes).ok());
            let found = if let Some(found) = kept {
                self.bar.keep(block.len() as u64);
                found
            } else {
                let found = self.block(decoder, block)?;
                let bytes = serde_json::to_vec(&found).map_err(|error| StageError::internal(error.to_string()))?;
                self.cx.put_unit(&unit, &bytes)?;
                found
            };
            scores.extend(found);
        }
        Ok(scores)
    }

    fn block(&self, decoder: &Decoder, block: &[EditRequest]) -> Result<Vec<RecordScores>, StageError> {
        let mut found = score_requests(decoder, self.text, block, self.tokens).map_err(StageFailure::stage)?;
        check(&found)?;
        let Some(writing) = &self.writing else {
            self.bar.inc(block.len() as u64);
            return Ok(found);
        };
        for (record, request) in found.iter_mut().zip(block) {
            self.cx.check_interrupt()?;
            record.generated = write(decoder, self.text, &request.generation, writing).map_err(StageFailure::stage)?;
            self.bar.inc(1);
        }
        Ok(found)
    }
}

fn check(scores: &[RecordScores]) -> Result<(), StageError> {
    for record in scores {
        let prompts = record.rewrite.iter().chain(&record.paraphrase).chain(&record.neighborhood);
        for prompt in prompts {
            if !(prompt.new.nll.is_finite() && prompt.old.as_ref().is_none_or(|old| old.nll.is_finite())) {
                let message =
                    format!("request {}: the model's answer to {:?} is not a number", record.id, prompt.prompt);
                return Err(StageError::numerical(message)
                    .hint("the edit broke the model: raise `lambda`, or edit fewer facts"));
            }
        }
    }
    Ok(())
}
