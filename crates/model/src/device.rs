//! Choosing where tensors live, once, at the edge.

use burn::tensor::Device;

use crate::ModelError;

/// The device that a `--device` name stands for.
///
/// # Errors
/// [`ModelError::Device`] for a name that this build does not know.
pub fn select_device(name: &str) -> Result<Device, ModelError> {
    match name {
        "auto" | "cpu" => Ok(Device::flex()),
        other => Err(ModelError::Device {
            name: other.into(),
            hint: "this build computes on the CPU: use --device cpu or auto".into(),
        }),
    }
}

/// Whether a device is this machine's processor, where several computations at a time keep all cores busy.
pub fn is_host(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}
