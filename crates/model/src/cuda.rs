//! What this machine has of CUDA, asked before anything is computed: a backend that misses a part of it panics.

use std::ffi::c_int;
use std::path::PathBuf;

use burn::tensor::Device;
use cubecl_runtime::config::cache::CacheConfig;
use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig};
use cudarc::driver::{result, sys};

use crate::ModelError;

/// Kernels use tensor instructions and conversions that older cards do not have.
const OLDEST: (i32, i32) = (7, 0);

/// Driver, compiler and cards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuda {
    /// The newest CUDA that the driver knows, such as 12080 for 12.8; none where there is no driver or it does not start.
    pub driver: Option<i32>,
    /// Whether NVRTC, the library that compiles kernels, was found.
    pub compiler: bool,
    /// The toolkit's folder, whose headers kernels include.
    pub toolkit: Option<PathBuf>,
    /// The cards, by their number.
    pub cards: Vec<Card>,
}

/// One card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// As the driver calls it.
    pub name: String,
    /// Bytes.
    pub memory: u64,
    /// Compute capability.
    pub capability: (i32, i32),
}

impl Cuda {
    /// Looks for all of it. Opens no card.
    pub fn find() -> Self {
        // SAFETY: both load a shared library to see whether it can be; NVIDIA's do nothing when they are loaded.
        let (driver, compiler) = unsafe { (sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
        let started = driver && result::init().is_ok();
        Self {
            driver: started.then(version).flatten(),
            compiler,
            toolkit: cubecl_cuda::install::cuda_path().filter(|path| path.join("include/cuda_fp16.h").is_file()),
            cards: if started { cards() } else { Vec::new() },
        }
    }

    /// What is missing to compute on card `index`, in words, and what to do about it.
    pub fn missing(&self, index: usize) -> Option<String> {
        let Some(card) = self.cards.get(index) else {
            return Some(match (self.driver, self.cards.len()) {
                (None, _) => "no NVIDIA driver answers: install it, or use --device cpu".into(),
                (_, 0) => "the driver knows no card: see nvidia-smi, and CUDA_VISIBLE_DEVICES".into(),
                (_, 1) => "there is one card, cuda:0".into(),
                (_, n) => format!("there are cuda:0 to cuda:{}", n - 1),
            });
        };
        if card.capability < OLDEST {
            let ((major, minor), (least, _)) = (card.capability, OLDEST);
            return Some(format!("the card's compute capability is {major}.{minor}; {least}.0 or newer is needed"));
        }
        if !self.compiler {
            return Some(
                "libnvrtc, which compiles kernels, was not found: install the CUDA toolkit, or set LD_LIBRARY_PATH"
                    .into(),
            );
        }
        if self.toolkit.is_none() {
            return Some("the CUDA toolkit's headers were not found: install it, or set CUDA_PATH".into());
        }
        None
    }

    /// Bytes that are free on a card at this moment.
    pub fn free(index: usize) -> Option<u64> {
        let device = result::device::get(index.try_into().ok()?).ok()?;
        // SAFETY: the device was given by the driver a moment ago, and its context is let go no more often than it was taken.
        let told = unsafe {
            let context = result::primary_ctx::retain(device).ok()?;
            let told = result::ctx::set_current(context).and_then(|()| result::mem_get_info());
            result::primary_ctx::release(device).ok()?;
            told
        };
        told.ok().map(|(free, _)| free as u64)
    }

    /// The device of a card that lacks nothing.
    pub(crate) fn open(&self, index: usize) -> Result<Device, ModelError> {
        match self.missing(index) {
            None => {
                keep_kernels();
                Ok(Device::cuda(index))
            }
            Some(hint) => Err(ModelError::Device { name: format!("cuda:{index}"), hint }),
        }
    }
}

/// Has kernels, and which of them were the fastest, kept between runs: in the user's cache folder, unless a cubecl.toml beside says
/// where.
fn keep_kernels() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    // It is set once; a second model on a card finds it so.
    CubeClRuntimeConfig::try_set(config);
}

fn version() -> Option<i32> {
    let mut version: c_int = 0;
    // SAFETY: writes one number, to a place that is ours.
    let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    (answer == sys::CUresult::CUDA_SUCCESS).then_some(version)
}

fn cards() -> Vec<Card> {
    let count = result::device::get_count().unwrap_or(0);
    let card = |index: c_int| {
        let device = result::device::get(index).ok()?;
        let name = result::device::get_name(device).ok()?;
        // SAFETY: the device was given by the driver a moment ago.
        let memory = unsafe { result::device::total_mem(device) }.ok()? as u64;
        let part = |attribute| unsafe { result::device::get_attribute(device, attribute) }.ok();
        let major = part(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = part(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Some(Card { name, memory, capability: (major, minor) })
    };
    (0..count).filter_map(card).collect()
}
