//! How much is computed at the same time where a pipeline does not say.
//!
//! [`BatchTokens`] changes last digits, and is the same on all machines with the same kind of device. [`requests`] follows the machine: it
//! changes nothing but its use, unless memory has no room for a whole batch. Under `numerics: strict` it never follows it below a batch.

use std::num::NonZero;
use std::thread;

use palinode_edit::{TARGETS_IN_UNIT, target_batch};
use palinode_engine::bounds::Count;
use palinode_model::{Decoder, is_cpu, request_bytes, request_bytes_streamed, total_memory};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::machine::devices::hardware_is_cpu;

/// A GPU is left idle by what keeps a CPU busy.
const GPU: usize = 4;

/// Tokens in a batch, padding included: bounds memory, and shows in last digits. Where it is left out, 2,048 on a CPU where
/// running text is read and 4,096 where prompts are, and four times as many on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BatchTokens(Option<Count>);

impl BatchTokens {
    /// The usual number where running text is read.
    pub const TEXT: usize = 2048;
    /// The usual number where prompts are.
    pub const PROMPTS: usize = 4096;

    /// Tokens in a batch of the prompts that an edit's keys and residuals are measured on: no parameter.
    pub const KEYS: usize = 4096;

    /// The given number, or `usual` on a CPU and more on a GPU.
    pub fn or(self, usual: usize, decoder: &Decoder) -> usize {
        self.on(usual, is_cpu(&decoder.device()))
    }

    /// The same as part of a key, for what a pipeline is computed on; where that is not known, as it is written.
    pub fn resolved(self, usual: usize, hardware: Option<&str>) -> Value {
        hardware.map_or_else(|| json!(self), |hardware| json!(self.on(usual, hardware_is_cpu(hardware))))
    }

    fn on(self, usual: usize, cpu: bool) -> usize {
        self.0.map_or(if cpu { usual } else { GPU * usual }, Count::get)
    }
}

/// The size of a batch of requests as part of a key, for what a pipeline is computed on; where that is not known, as it is written.
pub fn resolved_batch(given: Option<usize>, hardware: Option<&str>) -> Value {
    hardware.map_or_else(
        || json!(given),
        |hardware| json!(target_batch(hardware_is_cpu(hardware), given.unwrap_or(TARGETS_IN_UNIT))),
    )
}

/// Requests whose targets at `layer` are searched for at the same time: the given number, or on a CPU a batch for each core, and on a
/// GPU one batch, but no more than take half of the memory that the weights leave.
///
/// Of all memory, not of what is free: where that is too little for a batch, a run that goes on makes the same smaller batches. With
/// `whole_batches` a batch is never made smaller, since its size shows in last digits.
pub fn requests(given: Option<usize>, decoder: &Decoder, layer: usize, whole_batches: bool) -> usize {
    given.unwrap_or_else(|| {
        let (device, config) = (decoder.device(), decoder.config());
        let usual = if is_cpu(&device) {
            let cores = thread::available_parallelism().map_or(1, NonZero::get);
            // Streamed blocks are read once for all that go side by side.
            let batches = if decoder.streams() { TARGETS_IN_UNIT } else { cores };
            batches.saturating_mul(target_batch(true, TARGETS_IN_UNIT)).min(TARGETS_IN_UNIT)
        } else {
            TARGETS_IN_UNIT
        };
        let above = config.layers.saturating_sub(layer + 1);
        let each = if decoder.streams() { request_bytes_streamed(config, above) } else { request_bytes(config, above) };
        let fitting = total_memory(&device).map(|all| all.saturating_sub(decoder.weight_bytes()) / 2 / each.max(1));
        let least = if whole_batches { target_batch(is_cpu(&device), TARGETS_IN_UNIT) } else { 1 };
        fitting.map_or(usual, |most| usual.min(most as usize)).max(least)
    })
}
