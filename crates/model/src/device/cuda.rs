//! Looks for drivers, compilers and GPUs before anything is computed: a backend that misses a part of CUDA panics.

use std::ffi::c_int;
use std::path::Path;

use burn::tensor::Device;
use cubecl_runtime::config::cache::CacheConfig;
use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig};
use cudarc::driver::{result, sys};
use cudarc::nvrtc::sys as nvrtc;

use crate::ModelError;
use crate::device::gpu::{Capability, Compiler, Cuda, Gpu, Version};

/// What kernels include, some of it by way of the rest; in the toolkit's `include`, or in `cccl` there, where newer ones keep the last.
const HEADERS: [&str; 5] = ["cuda_fp16.h", "cuda_bf16.h", "mma.h", "crt/mma.h", "nv/target"];

/// See [`Cuda::find`].
pub fn find() -> Cuda {
    // SAFETY: both load a shared library to see whether it can be; NVIDIA's do nothing when they are loaded.
    let (driver, compiler) = unsafe { (sys::is_culib_present(), nvrtc::is_culib_present()) };
    let started = driver && result::init().is_ok();
    let toolkit = cubecl_cuda::install::cuda_path().filter(|path| path.is_dir());
    Cuda {
        driver: started.then(driver_version).flatten(),
        compiler: compiler.then(self::compiler).flatten(),
        lacking: toolkit.as_deref().map_or_else(Vec::new, lacking),
        toolkit,
        gpus: if started { gpus() } else { Vec::new() },
    }
}

/// The device of a GPU that lacks nothing.
pub fn open(index: usize) -> Result<Device, ModelError> {
    let refused = |hint| ModelError::Device { name: format!("cuda:{index}"), hint };
    if let Some(missing) = find().missing(index) {
        return Err(refused(missing));
    }
    free(index).map_err(|error| {
        refused(format!("the driver cannot open the GPU ({error}): see nvidia-smi for who uses it"))
    })?;
    keep_kernels();
    Ok(Device::cuda(index))
}

/// Which of the GPUs a device is. As the others below, it takes a driver that answers.
pub fn number(device: &Device) -> Option<usize> {
    let device = device.clone().without_autodiff();
    (0..result::device::get_count().ok()? as usize).find(|&index| Device::cuda(index) == device)
}

/// Bytes that are free on a GPU at this moment; as the driver says it where the GPU cannot be opened.
pub fn free(index: usize) -> Result<u64, String> {
    let told = || {
        let device = result::device::get(index as c_int)?;
        // SAFETY: the device was given by the driver a moment ago, and its context is let go no more often than it was taken.
        unsafe {
            let context = result::primary_ctx::retain(device)?;
            let told = result::ctx::set_current(context).and_then(|()| result::mem_get_info());
            result::primary_ctx::release(device)?;
            told
        }
    };
    told().map(|(free, _)| free as u64).map_err(|error| error.to_string())
}

/// Bytes that a GPU has.
pub fn total(index: usize) -> Option<u64> {
    gpu(index as c_int).map(|gpu| gpu.memory)
}

/// Has kernels, and which of them were the fastest, kept between runs: in the user's cache folder, unless a cubecl.toml beside says
/// where.
fn keep_kernels() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    // It is set once; a second model on a GPU finds it so.
    CubeClRuntimeConfig::try_set(config);
}

/// Of [`HEADERS`], those that are not in a toolkit.
fn lacking(toolkit: &Path) -> Vec<&'static str> {
    let include = toolkit.join("include");
    let there = |name: &&str| include.join(name).is_file() || include.join("cccl").join(name).is_file();
    HEADERS.into_iter().filter(|name| !there(name)).collect()
}

fn driver_version() -> Option<Version> {
    let mut version: c_int = 0;
    // SAFETY: writes one number, to a place that is ours.
    let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    // 12080 is 12.8.
    (answer == sys::CUresult::CUDA_SUCCESS).then_some(Version(version as u32 / 1000, version as u32 % 1000 / 10))
}

fn compiler() -> Option<Compiler> {
    let done = |answer| answer == nvrtc::nvrtcResult::NVRTC_SUCCESS;
    let (mut major, mut minor, mut count): (c_int, c_int, c_int) = (0, 0, 0);
    // SAFETY: each writes one number, to a place that is ours.
    let (version, counted) = unsafe {
        (nvrtc::nvrtcVersion(&raw mut major, &raw mut minor), nvrtc::nvrtcGetNumSupportedArchs(&raw mut count))
    };
    if !done(version) {
        return None;
    }
    let mut known = vec![0 as c_int; if done(counted) { count.max(0) as usize } else { 0 }];
    // SAFETY: writes as many numbers as it said a moment ago.
    if !known.is_empty() && !done(unsafe { nvrtc::nvrtcGetSupportedArchs(known.as_mut_ptr()) }) {
        known.clear();
    }
    // 90 is 9.0.
    let capabilities = known.into_iter().map(|one| Capability(one as u32 / 10, one as u32 % 10)).collect();
    Some(Compiler { version: Version(major as u32, minor as u32), capabilities })
}

fn gpus() -> Vec<Gpu> {
    (0..result::device::get_count().unwrap_or(0)).filter_map(gpu).collect()
}

fn gpu(index: c_int) -> Option<Gpu> {
    let device = result::device::get(index).ok()?;
    let name = result::device::get_name(device).ok()?;
    // SAFETY: the device was given by the driver a moment ago.
    let memory = unsafe { result::device::total_mem(device) }.ok()? as u64;
    // SAFETY: as above.
    let part = |attribute| unsafe { result::device::get_attribute(device, attribute) }.ok();
    let major = part(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = part(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Some(Gpu { name, memory, capability: Capability(major as u32, minor as u32) })
}
