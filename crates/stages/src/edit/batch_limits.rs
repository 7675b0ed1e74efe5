//! How much is computed at once where a pipeline does not say. Results do not depend on it but in their last digits.

use palinode_model::{Decoder, is_host, request_bytes, total_memory};

/// A card is left idle by what keeps a processor busy.
const CARD: usize = 4;

/// Tokens in a batch: as many as were asked for, or `usual` on the processor and more on a card.
pub fn tokens(asked: Option<usize>, usual: usize, decoder: &Decoder) -> usize {
    asked.unwrap_or(if is_host(&decoder.device()) { usual } else { CARD * usual })
}

/// Requests whose targets at `layer` are looked for together: as many as were asked for, or 16 on the processor and 64 on a card,
/// where they take no more than half of the memory that the weights leave.
///
/// Of all memory, not of what is free: a run that is taken up again makes the same batches.
pub fn requests(asked: Option<usize>, decoder: &Decoder, layer: usize) -> usize {
    let (device, config) = (decoder.device(), decoder.config());
    let usual = if is_host(&device) { 16 } else { CARD * 16 };
    let each = request_bytes(config, config.layers.saturating_sub(layer + 1));
    let fitting = total_memory(&device).map(|all| all.saturating_sub(decoder.weight_bytes()) / 2 / each.max(1));
    asked.unwrap_or_else(|| fitting.map_or(usual, |most| usual.min(most as usize)).max(1))
}
