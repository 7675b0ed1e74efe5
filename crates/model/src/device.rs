//! Choosing where tensors live, once, at the edge.

use burn::tensor::Device;

#[cfg(feature = "cuda")]
use crate::cuda::Cuda;
use crate::{ModelError, memory};

/// The device that a `--device` name stands for: `cpu`, `cuda`, `cuda:N`, or `auto` for the first card that lacks nothing, and
/// else the processor.
///
/// # Errors
/// [`ModelError::Device`] for a name that this build does not know, and for a card that is not there or lacks something.
pub fn select_device(name: &str) -> Result<Device, ModelError> {
    match name.split_once(':').unwrap_or((name, "0")) {
        ("auto", _) => Ok(fastest()),
        ("cpu", _) => Ok(Device::flex()),
        ("cuda", index) if index.bytes().all(|b| b.is_ascii_digit()) => card(name, index.parse().unwrap_or(usize::MAX)),
        _ => Err(ModelError::Device { name: name.into(), hint: "use auto, cpu, cuda or cuda:N".into() }),
    }
}

/// Whether a device is this machine's processor, where several computations at a time keep all cores busy.
pub fn is_host(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

/// Bytes of memory that are free on a device, where it tells.
pub fn free_memory(device: &Device) -> Option<u64> {
    if is_host(device) { memory::available() } else { free_on_card(device) }
}

#[cfg(feature = "cuda")]
fn free_on_card(device: &Device) -> Option<u64> {
    device.memory_cleanup();
    let device = device.clone().without_autodiff();
    let index = (0..Cuda::find().cards.len()).find(|&index| Device::cuda(index) == device)?;
    Cuda::free(index)
}

#[cfg(not(feature = "cuda"))]
fn free_on_card(_: &Device) -> Option<u64> {
    None
}

#[cfg(feature = "cuda")]
fn fastest() -> Device {
    Cuda::find().open(0).unwrap_or_else(|_| Device::flex())
}

#[cfg(feature = "cuda")]
fn card(_: &str, index: usize) -> Result<Device, ModelError> {
    Cuda::find().open(index)
}

#[cfg(not(feature = "cuda"))]
fn fastest() -> Device {
    Device::flex()
}

#[cfg(not(feature = "cuda"))]
fn card(name: &str, _: usize) -> Result<Device, ModelError> {
    Err(ModelError::Device {
        name: name.into(),
        hint: "this build computes on the CPU: build with `cargo build --release --features cuda`".into(),
    })
}
