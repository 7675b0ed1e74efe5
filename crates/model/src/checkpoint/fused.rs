//! Experts that lie in one tensor.
//!
//! Published checkpoints have a tensor for each projection of each expert. transformers 5 holds all experts of a layer in two: `gate_up_proj`
//! `[experts, 2 f, d]`, with each expert's gate before its up-projection, and `down_proj` `[experts, d, f]`. A model saved as it is held has
//! these. An expert's rows lie in one piece, so that they are read as the tensor that they would be by themselves.

use std::collections::BTreeMap;

use crate::checkpoint::stored::{Encoding, Stored};

/// Tensors that are parts of others: each with the name of the tensor that it lies in.
pub(super) type Parts = BTreeMap<String, (String, Stored)>;

/// More is no model's, and would only take memory.
const MOST: usize = 1 << 12;

/// The projections that a fused tensor holds of each expert, in their order, as Qwen and OLMoE call them by themselves, and as Mixtral does.
const FUSED: [(&str, &[[&str; 2]]); 2] =
    [("gate_up_proj", &[["gate_proj", "w1"], ["up_proj", "w3"]]), ("down_proj", &[["down_proj", "w2"]])];

/// What Mixtral's feed-forward is called in published checkpoints, and by transformers 5.
const BLOCKS: [&str; 2] = [".block_sparse_moe.", ".mlp."];

/// Another name under which a model saved as transformers 5 holds it has a tensor.
pub(super) fn renamed(name: &str) -> Option<String> {
    name.contains(BLOCKS[0]).then(|| name.replacen(BLOCKS[0], BLOCKS[1], 1))
}

/// The experts' tensors that lie in a stored one.
pub(super) fn parts(name: &str, stored: &Stored) -> Parts {
    let mut found = Parts::new();
    let (Encoding::Plain(dtype), [count, rows, columns]) = (stored.encoding, &stored.shape[..]) else { return found };
    let fused = FUSED.iter().find_map(|(end, inside)| {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        Some((stem.strip_suffix(end).filter(|stem| stem.ends_with(".experts."))?, *inside))
    });
    let Some((stem, inside)) = fused else { return found };
    if *count > MOST || !rows.is_multiple_of(inside.len()) {
        return found;
    }
    let rows = rows / inside.len();
    let size = rows * columns * dtype.bitsize() / 8;
    for expert in 0..*count {
        for (i, [own, mixtral]) in inside.iter().enumerate() {
            let from = stored.bytes.start + (expert * inside.len() + i) * size;
            let part = Stored { shape: vec![rows, *columns], bytes: from..from + size, ..stored.clone() };
            for (stem, own) in [(stem.to_owned(), own), (stem.replacen(BLOCKS[1], BLOCKS[0], 1), mixtral)] {
                found.insert(format!("{stem}{expert}.{own}.weight"), (name.to_owned(), part.clone()));
            }
        }
    }
    found
}
