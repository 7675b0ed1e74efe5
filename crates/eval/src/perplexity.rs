//! How well a model predicts running text.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};
use palinode_model::{Batch, Decoder, ModelError, pack, pick, read};
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

/// Predicts every token of every document, given as token ids no longer than the context. `tokens` bounds a batch's rectangle.
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
        for group in pack(&lengths, tokens) {
            let members: Vec<usize> = group.iter().map(|&i| some[i]).collect();
            for (member, nll) in members.iter().zip(run(decoder, documents, &members)?) {
                found[*member].nll = nll;
            }
        }
        Ok(found)
    })
}

fn run(decoder: &Decoder, documents: &[Vec<u32>], members: &[usize]) -> Result<Vec<f64>, ModelError> {
    let device = decoder.device();
    let seen: Vec<&[u32]> = members.iter().map(|&i| &documents[i][..documents[i].len() - 1]).collect();
    let batch = Batch::new(&seen, &device);
    let (width, d) = (batch.width(), decoder.config().hidden);
    let hidden = decoder.hidden(&batch).reshape([members.len() * width, d]);
    let mut places: Vec<(usize, i32, i32)> = Vec::new();
    for (row, ids) in seen.iter().enumerate() {
        let next = &documents[members[row]][1..];
        places.extend((0..ids.len()).map(|t| (row, (row * width + t) as i32, next[t] as i32)));
    }
    let mut nll = vec![0.0; members.len()];
    for part in places.chunks(POSITIONS) {
        let column = |values: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(values, [part.len()]), &device);
        let rows = hidden.clone().select(0, column(part.iter().map(|place| place.1).collect()));
        let asked = column(part.iter().map(|place| place.2).collect()).reshape([part.len(), 1]);
        let likelihood = pick(log_softmax(decoder.logits(rows), 1), asked);
        for ((row, _, _), log_p) in part.iter().zip(read::<f32, _, _>(likelihood)?) {
            nll[*row] -= f64::from(log_p);
        }
    }
    Ok(nll)
}
