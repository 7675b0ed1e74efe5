//! What the factors of matrix products are rounded to.

use palinode_kernels as kernels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What both factors of matrix products are rounded to, on a CPU. Their sums and all else stay in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// Nothing: they are taken in f32.
    #[default]
    F32,
    /// The nearest number in bf16.
    Bf16,
}

impl Compute {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether it is the usual one.
    pub fn is_usual(&self) -> bool {
        *self == Self::F32
    }

    /// Whether this CPU has instructions for such products. Where it has none, they are the same, in the time that f32 takes.
    pub fn is_native(self) -> bool {
        self.in_kernels().is_native()
    }

    /// As kernels have it.
    pub(crate) fn in_kernels(self) -> kernels::Compute {
        match self {
            Self::F32 => kernels::Compute::F32,
            Self::Bf16 => kernels::Compute::Bf16,
        }
    }
}
