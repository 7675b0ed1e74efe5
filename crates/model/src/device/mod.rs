//! Choosing where tensors live, once, at the edge.

pub(crate) mod capacity;
pub(crate) mod cat;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod gather;
pub(crate) mod gpu;
pub(crate) mod matmul;
pub mod memory;
pub(crate) mod numbers;
pub(crate) mod readback;
pub(crate) mod softmax;
pub(crate) mod throughput;

use burn::tensor::Device;

use crate::ModelError;
use crate::device::gpu::Cuda;

/// The device that a name stands for: `cpu`, `cuda`, `cuda:N`, or `auto` for the first GPU that lacks nothing, and
/// else the CPU.
///
/// # Errors
/// [`ModelError::UnknownDevice`] for a name that stands for none, [`ModelError::Device`] for a GPU that is not there or lacks something.
pub fn select_device(name: &str) -> Result<Device, ModelError> {
    match name.split_once(':').unwrap_or((name, "0")) {
        ("auto", "0") => Ok(gpu(name, 0).unwrap_or_else(|_| Device::flex())),
        ("cpu", "0") => Ok(Device::flex()),
        ("cuda", index) if !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()) => {
            gpu(name, index.parse().unwrap_or(usize::MAX))
        }
        _ => Err(ModelError::UnknownDevice { name: name.into() }),
    }
}

impl Cuda {
    /// Looks for all of it; none where this build has no part in CUDA. Opens no GPU.
    pub fn find() -> Option<Self> {
        #[cfg(feature = "cuda")]
        return Some(cuda::find());
        #[cfg(not(feature = "cuda"))]
        return None;
    }
}

/// Whether a device is this machine's CPU, where several computations at a time keep all cores busy.
pub fn is_cpu(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

/// Bytes of memory that are free on a device, where it tells.
pub fn free_memory(device: &Device) -> Option<u64> {
    if is_cpu(device) {
        return memory::available();
    }
    // What the backend keeps for later is free too.
    device.memory_cleanup();
    #[cfg(feature = "cuda")]
    return cuda::number(device).and_then(|index| cuda::free(index).ok());
    #[cfg(not(feature = "cuda"))]
    return None;
}

/// Bytes of memory that a device has, used or not, where it tells.
pub fn total_memory(device: &Device) -> Option<u64> {
    if is_cpu(device) {
        return memory::total();
    }
    #[cfg(feature = "cuda")]
    return cuda::number(device).and_then(cuda::total);
    #[cfg(not(feature = "cuda"))]
    return None;
}

#[cfg(feature = "cuda")]
fn gpu(_: &str, index: usize) -> Result<Device, ModelError> {
    cuda::open(index)
}

#[cfg(not(feature = "cuda"))]
fn gpu(name: &str, _: usize) -> Result<Device, ModelError> {
    Err(ModelError::Device {
        name: name.into(),
        hint: "this build has no CUDA: build with `cargo build --release --features cuda`".into(),
    })
}
