//! From a device to the host.

use burn::tensor::kind::Basic;
use burn::tensor::{Element, Tensor};

use crate::ModelError;

/// A tensor's values on the host, row-major.
///
/// Devices work behind; what went wrong there comes to light here.
///
/// # Errors
/// [`ModelError::OutOfMemory`]; [`ModelError::Readback`].
pub fn read<E: Element, const D: usize, K: Basic>(tensor: Tensor<D, K>) -> Result<Vec<E>, ModelError> {
    let data = tensor.try_into_data().map_err(|error| failure(error.to_string()))?;
    data.convert::<E>().try_into_vec::<E>().map_err(|error| ModelError::Readback(format!("{error:?}")))
}

/// Backends tell the reason in words alone.
pub(crate) fn failure(told: String) -> ModelError {
    let text = told.to_lowercase();
    let lacking = ["out of memory", "out of device memory", "out-of-memory", "can't allocate", "no room for"];
    if lacking.iter().any(|words| text.contains(words)) { ModelError::OutOfMemory } else { ModelError::Readback(told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_memory_is_told_from_other_failures() {
        let of = |reason: &str| failure(format!("An error happened during execution\nCaused by:\n  {reason}"));
        assert!(matches!(of("out of device memory allocating 512 bytes"), ModelError::OutOfMemory));
        assert!(matches!(of("An out-of-memory error happened during launch"), ModelError::OutOfMemory));
        assert!(matches!(of("A compilation error happened during launch"), ModelError::Readback(_)));
    }
}
