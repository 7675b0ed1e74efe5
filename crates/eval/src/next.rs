//! What comes next.

use palinode_model::{Decoder, ModelError, read, softmax};

/// The `most` most probable tokens after a prompt, with their probabilities, falling.
///
/// # Errors
/// [`ModelError::TooLong`] for an empty prompt, or one longer than the context; [`ModelError::Readback`].
pub fn next_tokens(decoder: &Decoder, prompt: &[u32], most: usize) -> Result<Vec<(u32, f64)>, ModelError> {
    let config = decoder.config();
    if prompt.is_empty() || prompt.len() > config.context {
        return Err(ModelError::TooLong { tokens: prompt.len(), context: config.context, text: format!("{prompt:?}") });
    }
    let rows = decoder.rows(&[prompt]);
    let last = decoder.hidden(&rows)?.at(&rows.places([(0, prompt.len() - 1)]));
    let p = read::<f32, _, _>(softmax(decoder.logits(last)).p)?;
    let mut order: Vec<u32> = (0..p.len() as u32).collect();
    order.sort_by(|&a, &b| p[b as usize].total_cmp(&p[a as usize]).then(a.cmp(&b)));
    Ok(order.into_iter().take(most).map(|id| (id, f64::from(p[id as usize]))).collect())
}
