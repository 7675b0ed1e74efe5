//! GGUF's names and orders of tensors, against those of Hugging Face's layout.

use std::collections::BTreeMap;

use crate::checkpoint::gguf::read::{Gguf, Tensor};
use crate::checkpoint::layout::{bias_name, fill, weight};
use crate::{Arrangement, DecoderConfig, Family, Layout, ModelError, Orientation};

/// How a stored tensor becomes the one of Hugging Face's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrange {
    /// It is that one.
    AsStored,
    /// Within each head of this many rows, rows that belong to a rotated pair stand side by side, and go half a head apart.
    Pairs(usize),
    /// All queries, then all keys, then all values, of (key heads, query heads that share one, rows of a head); they go key head by key head.
    ByHead(usize, usize, usize),
    /// One is added to all values.
    PlusOne,
    /// `[out, in]`, where `[in, out]` is asked for.
    Turned,
}

impl Arrange {
    /// The stored row that is row `row`.
    pub fn row(self, row: usize) -> usize {
        match self {
            Self::Pairs(dim) => {
                let (head, i) = (row / dim, row % dim);
                head * dim + 2 * (i % (dim / 2)) + i / (dim / 2)
            }
            Self::ByHead(heads, group, dim) => {
                let (head, rest) = (row / ((group + 2) * dim), row % ((group + 2) * dim));
                match (rest / dim).checked_sub(group) {
                    None => head * group * dim + rest,
                    Some(side) => ((group + side) * heads + head) * dim + rest % dim,
                }
            }
            Self::AsStored | Self::PlusOne | Self::Turned => row,
        }
    }
}

/// Where a tensor of Hugging Face's layout lies in a file.
pub struct Place {
    /// Which of the file's tensors.
    pub tensor: usize,
    /// How it is put back.
    pub arrange: Arrange,
    /// Its shape then.
    pub shape: Vec<usize>,
}

/// Every tensor of a file by its name in Hugging Face's layout.
///
/// # Errors
/// [`ModelError::Config`] for one that the family has no name for: computing without it would give other results.
pub fn places(file: &Gguf, config: &DecoderConfig) -> Result<BTreeMap<String, Place>, ModelError> {
    let layout = Layout::of(config);
    let names = names(&layout, config);
    let mut places = BTreeMap::new();
    for (index, tensor) in file.tensors.iter().enumerate() {
        // Scaling is in the configuration.
        if ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"]
            .contains(&tensor.name.as_str())
        {
            continue;
        }
        let Some(name) = names.get(tensor.name.as_str()) else {
            let name: String = tensor.name.chars().take(80).collect();
            return Err(file.wrong(format!("it has a tensor {name}, which {} does not have", config.family.name())));
        };
        let arrange = arrange(tensor, config, &layout);
        let mut shape = tensor.shape.clone();
        if arrange == Arrange::Turned {
            shape.reverse();
        }
        places.insert(name.clone(), Place { tensor: index, arrange, shape });
    }
    Ok(places)
}

fn arrange(tensor: &Tensor, config: &DecoderConfig, layout: &Layout) -> Arrange {
    let part = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').nth(1)).unwrap_or_default();
    let head = config.head_dim;
    // Rows that do not fit are refused for their shape.
    let whole = |rows: usize| rows > 0 && tensor.shape[0].is_multiple_of(rows);
    // Of families that share the file's way of rotating.
    let paired =
        matches!(config.family, Family::Llama | Family::Olmo | Family::SmolLm3 | Family::Granite | Family::Ministral3);
    match part {
        "attn_q" | "attn_k" if paired && head.is_multiple_of(2) && whole(head) => Arrange::Pairs(head),
        "attn_qkv" if layout.by_head && tensor.shape[0] == (config.heads + 2 * config.kv_heads) * head => {
            Arrange::ByHead(config.kv_heads, config.heads / config.kv_heads, head)
        }
        _ if config.norm_plus_one && tensor.name.ends_with("norm.weight") => Arrange::PlusOne,
        "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down"
            if layout.orientation == Orientation::InOut && tensor.shape.len() == 2 =>
        {
            Arrange::Turned
        }
        _ => Arrange::AsStored,
    }
}

/// GGUF's names, and what they are in Hugging Face's layout.
fn names(layout: &Layout, config: &DecoderConfig) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut add = |ours: &str, theirs: &str, layer: usize| {
        if !ours.is_empty() && !ours.contains("{head}") {
            names.insert(weight(theirs, layer), weight(ours, layer));
            names.insert(bias_name(theirs, layer), bias_name(ours, layer));
        }
    };
    for layer in 0..config.layers {
        match layout.qkv {
            [fused] => add(fused, "blk.{}.attn_qkv", layer),
            parts => {
                for (ours, theirs) in parts.iter().zip(["blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v"]) {
                    add(ours, theirs, layer);
                }
            }
        }
        // Of two norms of the same input, that of the feed-forward is the first.
        let two = config.arrangement == Arrangement::ParallelTwoNorms && config.family == Family::Falcon;
        add(layout.norm_1, if two { "blk.{}.attn_norm_2" } else { "blk.{}.attn_norm" }, layer);
        add(layout.norm_2, if two { "blk.{}.attn_norm" } else { "blk.{}.ffn_norm" }, layer);
        add(layout.attention_norm, "blk.{}.post_attention_norm", layer);
        add(layout.mlp_norm, "blk.{}.post_ffw_norm", layer);
        add(layout.head_norms[0], "blk.{}.attn_q_norm", layer);
        add(layout.head_norms[1], "blk.{}.attn_k_norm", layer);
        add(layout.attention_out, "blk.{}.attn_output", layer);
        add(layout.up, "blk.{}.ffn_up", layer);
        add(layout.gate, "blk.{}.ffn_gate", layer);
        add(layout.gate_up, "blk.{}.ffn_up", layer);
        add(layout.down, "blk.{}.ffn_down", layer);
    }
    add(layout.embedding_norm, "token_embd_norm", 0);
    add(layout.final_norm, "output_norm", 0);
    add(layout.head, "output", 0);
    names.insert("token_embd.weight".into(), fill(layout.token_embedding, 0));
    if !layout.position_embedding.is_empty() {
        names.insert("position_embd.weight".into(), fill(layout.position_embedding, 0));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_one_place() {
        for arrange in [Arrange::AsStored, Arrange::Pairs(4), Arrange::ByHead(2, 1, 2), Arrange::ByHead(1, 4, 2)] {
            let mut rows: Vec<usize> = (0..12).map(|row| arrange.row(row)).collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..12).collect::<Vec<_>>(), "{arrange:?}");
        }
        assert_eq!((0..4).map(|row| Arrange::Pairs(4).row(row)).collect::<Vec<_>>(), [0, 2, 1, 3]);
    }
}
