//! The number type that a model computes in.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// A floating-point type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 5 of them exponent.
    F16,
    /// 16 bits, 8 of them exponent.
    Bf16,
}

impl Precision {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Refuses a type in which the device does not compute. On the CPU that is every one but f32: half precision would
    /// be converted back and forth around each operation, slower and less exact for half the memory.
    ///
    /// # Errors
    /// [`ModelError::Precision`].
    pub fn check(self, _: &Device) -> Result<(), ModelError> {
        match self {
            Self::F32 => Ok(()),
            other => Err(ModelError::Precision { dtype: other.name() }),
        }
    }
}
