//! How well a model predicts running text.

use palinode_model::{Activations, BlockOutput, Decoder, ModelError, Rows, Visit};
use serde::{Deserialize, Serialize};

/// Positions whose logits are held at once: rows of the vocabulary's width, the largest thing in memory here.
const POSITIONS: usize = 512;

/// What predicting a document cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surprise {
    /// `−Σ log p(xₜ | x₍<t₎)` over all tokens but the first, in nats.
    pub nll: f64,
    /// Tokens predicted: one fewer than the document has.
    pub tokens: usize,
}

/// `exp` of the mean over tokens; infinite where nothing was predicted.
pub fn perplexity(documents: &[Surprise]) -> f64 {
    let (nll, tokens) = documents.iter().fold((0.0, 0), |(nll, n), d| (nll + d.nll, n + d.tokens));
    if tokens == 0 { f64::INFINITY } else { (nll / tokens as f64).exp() }
}

/// Predicts every token of every document, given as token ids no longer than the context. `tokens` bounds the tokens of a batch,
/// padding included.
///
/// # Errors
/// [`ModelError::TooLong`]; [`ModelError::Readback`].
pub fn surprise(decoder: &Decoder, documents: &[Vec<u32>], tokens: usize) -> Result<Vec<Surprise>, ModelError> {
    let context = decoder.config().context;
    if let Some(long) = documents.iter().find(|ids| ids.len() > context) {
        return Err(ModelError::TooLong { tokens: long.len(), context, text: "a document".into() });
    }
    let some: Vec<usize> = (0..documents.len()).filter(|&i| documents[i].len() > 1).collect();
    let lengths: Vec<usize> = some.iter().map(|&i| documents[i].len() - 1).collect();
    decoder.within(tokens, |tokens| {
        let mut found: Vec<Surprise> =
            documents.iter().map(|ids| Surprise { nll: 0.0, tokens: ids.len().saturating_sub(1) }).collect();
        let groups = decoder.batches(&lengths, tokens).into_iter();
        let visits = groups.map(|group| Reading {
            documents: group.iter().map(|&i| (some[i], documents[some[i]].as_slice())).collect(),
            rows: None,
        });
        // One at a time: each has logits of its own in memory.
        for (member, nll) in decoder.visit_all(visits.collect(), decoder.config().layers - 1, 1)?.into_iter().flatten()
        {
            found[member].nll = nll;
        }
        Ok(found)
    })
}

/// Documents that are predicted as one batch.
struct Reading<'a> {
    /// Number and tokens of each.
    documents: Vec<(usize, &'a [u32])>,
    rows: Option<Rows>,
}

impl Visit for Reading<'_> {
    /// Each document's number and what it cost, in nats.
    type Found = Vec<(usize, f64)>;

    fn begin(&mut self, decoder: &Decoder) -> Rows {
        // Nothing is predicted from the last token.
        let seen: Vec<&[u32]> = self.documents.iter().map(|(_, ids)| &ids[..ids.len() - 1]).collect();
        let rows = decoder.rows(&seen);
        self.rows = Some(rows.clone());
        rows
    }

    fn see(&mut self, _: usize, _: &BlockOutput) -> Result<(), ModelError> {
        Ok(())
    }

    fn finish(self, decoder: &Decoder, hidden: &Activations) -> Result<Self::Found, ModelError> {
        let Some(rows) = &self.rows else { return Ok(Vec::new()) };
        let documents = self.documents.iter().enumerate();
        let places: Vec<(usize, usize, u32)> = documents
            .flat_map(|(row, (_, ids))| ids[1..].iter().enumerate().map(move |(t, &next)| (row, t, next)))
            .collect();
        let mut nll: Vec<(usize, f64)> = self.documents.iter().map(|(number, _)| (*number, 0.0)).collect();
        for part in places.chunks(POSITIONS) {
            let next: Vec<(usize, u32)> = part.iter().enumerate().map(|(i, &(_, _, next))| (i, next)).collect();
            let at = hidden.at(&rows.places(part.iter().map(|&(row, t, _)| (row, t))));
            for ((row, _, _), said) in part.iter().zip(decoder.said(at, &next)?) {
                nll[*row].1 -= said.log_p;
            }
        }
        Ok(nll)
    }
}
