//! A PEFT LoRA adapter: the same change for programs that put adapters onto models.

use std::collections::BTreeMap;

use palinode_engine::StageError;
use palinode_math::{Update, row_major};
use palinode_model::{Layout, Orientation};
use serde_json::json;

use super::update_file::UpdateFile;
use crate::artifacts::tensors::{Named, serialize};

/// The adapter's tensors, under the name that PEFT looks for.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// Its description.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The bytes of [`ADAPTER_FILE`]: `lora_B` is left [out, r], `lora_A` is right [r, in].
pub fn tensors(update: &UpdateFile, layout: &Layout) -> Result<Vec<u8>, StageError> {
    let mut tensors = Vec::new();
    for (layer, Update { left, right }) in &update.updates {
        let module = module(layout, *layer);
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
pub fn config(update: &UpdateFile, layout: &Layout, base: &str) -> Result<String, StageError> {
    let ranks: BTreeMap<String, usize> =
        update.updates.iter().map(|(layer, update)| (module(layout, *layer), update.left.ncols())).collect();
    let most = ranks.values().copied().max().unwrap_or(1);
    let config = json!({
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
    serde_json::to_string_pretty(&config).map_err(|error| StageError::internal(error.to_string()))
}

/// The module that holds an edited weight.
fn module(layout: &Layout, layer: usize) -> String {
    let name = layout.edited_weight(layer);
    name.strip_suffix(".weight").unwrap_or(&name).to_owned()
}
