//! A stand-in for `cubecl-llvm`, which compiles kernels with LLVM and downloads LLVM to be built.
//!
//! `cubecl-cuda` has two ways to compile a kernel, and both are always in its code: CUDA C++ through NVRTC, which its feature
//! `cpp` selects and Palinode uses, and LLVM. This crate has the names that the second way takes, and refuses to compile. It is
//! put in place by `[patch.crates-io]`; a version of `cubecl-cuda` that names anything else does not build against it, which is
//! what `.ci/run` checks.

pub mod nvptx;
pub mod shared;

use core::fmt;

use cubecl_core::ir::amd::GfxArch;
use cubecl_core::ir::nvidia::SmArch;
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::{BufferIOAttr, KernelDefinition};

use nvptx::ptx_version::PtxVersion;

/// What code is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// This machine.
    #[default]
    Cpu,
    /// NVIDIA's PTX.
    Nvptx,
}

/// The compiler that is not here.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// What it would make code for.
    pub target: LlvmTarget,
}

/// Its options.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// AMD's architecture.
    pub arch: Option<GfxArch>,
    /// NVIDIA's architecture.
    pub sm_arch: Option<SmArch>,
    /// The version of PTX.
    pub ptx_version: Option<PtxVersion>,
    /// Whether scalars are passed among the kernel's parameters.
    pub grid_constants: bool,
}

/// A compiled kernel; there never is one.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX, ended by NUL.
    pub ptx: Vec<core::ffi::c_char>,
    /// The kernel's name.
    pub entrypoint: String,
    /// For logs.
    pub ir: String,
    /// Bytes of shared memory.
    pub shared_memory_size: usize,
    /// How it uses each buffer.
    pub io: Vec<BufferIOAttr>,
}

/// What the compiler makes.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// For NVIDIA.
    NvptxCode(NvptxModule),
    /// For anything else.
    Other,
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NvptxCode(module) => f.write_str(&module.ir),
            Self::Other => Ok(()),
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this build has no LLVM: kernels are compiled by NVRTC".into(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}
