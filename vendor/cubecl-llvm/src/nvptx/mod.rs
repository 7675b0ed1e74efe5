//! What concerns NVIDIA's PTX.

pub mod ptx_version;
