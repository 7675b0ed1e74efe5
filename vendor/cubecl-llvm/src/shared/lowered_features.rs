//! What a device can do, as far as the compiler can make use of it.

use cubecl_core::ir::DeviceProperties;

/// What code is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuTarget {
    /// NVIDIA's PTX.
    Nvptx,
}

/// Takes away what the compiler could not lower; it is never asked to lower anything.
pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
