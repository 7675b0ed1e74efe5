//! A PEFT LoRA adapter: the same change for programs that put adapters onto models.

use std::collections::BTreeMap;

use palinode_engine::Error;
use palinode_hub::{Kind, Reference};
use palinode_math::{Delta, LowRank, row_major};
use palinode_model::{Layout, Orientation, WeightId};
use serde_json::json;

use super::update_file::{UpdateFile, stored_name};
use crate::artifacts::tensors::{Named, serialize};

/// The adapter's tensors, under the name that PEFT looks for.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// Its description.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The bytes of [`ADAPTER_FILE`]: `lora_B` is left [out, r], `lora_A` is right [r, in].
///
/// # Errors
/// Of kind input, for a change that is not low-rank. Any matrix is a product of two, but that of a dense change has the rank of the weight,
/// and an adapter of that rank is larger than the change and slower than the edited model.
pub fn tensors(update: &UpdateFile, layout: &Layout) -> Result<Vec<u8>, Error> {
    let mut tensors = Vec::new();
    for (weight, LowRank { left, right }) in factors(update)? {
        let module = module(layout, weight)?;
        let named = |matrix: &palinode_math::Mat<f64>, side: &str| {
            let values = row_major(matrix.as_ref()).into_iter().map(|v| v as f32);
            Named::f32(format!("base_model.model.{module}.{side}.weight"), [matrix.nrows(), matrix.ncols()], values)
        };
        tensors.push(named(right, "lora_A"));
        tensors.push(named(left, "lora_B"));
    }
    serialize(&tensors, Some(update.note()?))
}

/// The text of [`ADAPTER_CONFIG`]. α equals the rank of every module, so that PEFT's scaling α/r is 1.
pub fn config(update: &UpdateFile, layout: &Layout, base: &str) -> Result<String, Error> {
    let ranks = factors(update)?.into_iter().map(|(weight, low)| Ok((module(layout, weight)?, low.left.ncols())));
    let ranks: BTreeMap<String, usize> = ranks.collect::<Result<_, Error>>()?;
    let most = ranks.values().copied().max().unwrap_or(1);
    let (base, revision) = revision(base);
    let mut config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": true,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "target_modules": ranks.keys().collect::<Vec<_>>(),
        "fan_in_fan_out": layout.orientation == Orientation::InOut,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": false,
    });
    if let Some(revision) = revision {
        config["revision"] = json!(revision);
    }
    serde_json::to_string_pretty(&config).map_err(|error| Error::internal(error.to_string()))
}

/// A model's name, and the revision where one of the Hub is meant that is not the main branch.
fn revision(base: &str) -> (String, Option<String>) {
    let parsed = Reference::parse(&format!("hf:{base}")).and_then(Result::ok);
    match parsed.filter(|parsed| parsed.kind == Kind::Model) {
        Some(Reference { repository, revision, .. }) => (repository, Some(revision).filter(|name| name != "main")),
        None => (base.to_owned(), None),
    }
}

/// The module that holds an edited weight.
fn module(layout: &Layout, weight: WeightId) -> Result<String, Error> {
    let name = stored_name(layout, weight)?;
    Ok(name.strip_suffix(".weight").unwrap_or(&name).to_owned())
}

/// The changes, all of which have to be factors.
fn factors(update: &UpdateFile) -> Result<Vec<(WeightId, &LowRank)>, Error> {
    if let Some((weight, _)) = update.updates.iter().find(|(weight, _)| weight.expert.is_some()) {
        let message = format!(
            "an adapter for PEFT cannot hold the change of an expert (layer {}): PEFT adapts modules, and transformers keeps the experts of a layer in one \
             tensor",
            weight.layer
        );
        return Err(Error::input(message).hint("leave `peft` out of `formats`; `model` and `update` hold the change"));
    }
    let each = update.updates.iter().map(|(weight, delta)| match delta {
        Delta::LowRank(low) => Ok((*weight, low)),
        Delta::Sparse(_) | Delta::Dense(_) => {
            let message = format!("an adapter holds low-rank changes, and the change of layer {weight} is not one");
            Err(Error::input(message).hint("leave `peft` out of `formats`"))
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_as_others_find_it() {
        for (base, name, at) in [
            ("owner/gpt2", "owner/gpt2", None),
            ("owner/gpt2@main", "owner/gpt2", None),
            ("owner/gpt2@0123abc", "owner/gpt2", Some("0123abc")),
            ("gpt2", "gpt2", None),
            ("/home/me@there/models/gpt2", "/home/me@there/models/gpt2", None),
            ("", "", None),
        ] {
            assert_eq!(revision(base), (name.to_owned(), at.map(str::to_owned)), "{base}");
        }
    }
}
