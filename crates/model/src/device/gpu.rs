//! What a machine has of CUDA, and what it lacks to compute on a GPU. It is judged here; `cuda.rs` looks for it.

use std::fmt;
use std::path::PathBuf;

/// Kernels use tensor instructions and conversions that older GPUs do not have.
const OLDEST: Capability = Capability(7, 0);

/// A version of CUDA, major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// A compute capability, major and minor: what a GPU's instructions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(pub u32, pub u32);

/// Driver, compiler, headers and GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuda {
    /// The newest CUDA that the driver knows; none where there is no driver or it does not start.
    pub driver: Option<Version>,
    /// NVRTC, the library that compiles kernels.
    pub compiler: Option<Compiler>,
    /// The toolkit's folder, whose headers kernels include.
    pub toolkit: Option<PathBuf>,
    /// Headers that it lacks.
    pub lacking: Vec<&'static str>,
    /// The GPUs, by their number.
    pub gpus: Vec<Gpu>,
}

/// NVRTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Its CUDA.
    pub version: Version,
    /// What it can compile for; empty where it does not tell.
    pub capabilities: Vec<Capability>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// As the driver calls it.
    pub name: String,
    /// Bytes.
    pub memory: u64,
    /// What it can do.
    pub capability: Capability,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CUDA {}.{}", self.0, self.1)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compute capability {}.{}", self.0, self.1)
    }
}

impl Cuda {
    /// What is missing to compute on GPU `index`, in words, and what to do about it.
    pub fn missing(&self, index: usize) -> Option<String> {
        let (Some(driver), Some(gpu)) = (self.driver, self.gpus.get(index)) else {
            return Some(match (self.driver, self.gpus.len()) {
                (None, _) => "no NVIDIA driver answers: install it".into(),
                (_, 0) => "the driver knows no GPU: see nvidia-smi, and CUDA_VISIBLE_DEVICES".into(),
                (_, 1) => "there is one GPU, cuda:0".into(),
                (_, n) => format!("there are cuda:0 to cuda:{}", n - 1),
            });
        };
        let is = gpu.capability;
        if is < OLDEST {
            return Some(format!("the GPU is of {is}, and {OLDEST} or newer is needed"));
        }
        let Some(compiler) = &self.compiler else {
            return Some(
                "libnvrtc, which compiles kernels, was not found: install the CUDA toolkit, or set LD_LIBRARY_PATH"
                    .into(),
            );
        };
        if compiler.version > driver {
            let version = compiler.version;
            return Some(format!(
                "libnvrtc is of {version}, and the driver takes kernels of {driver} at most: install a newer driver, or that toolkit"
            ));
        }
        if !compiler.capabilities.is_empty() && !compiler.capabilities.contains(&is) {
            let newer = compiler.capabilities.iter().all(|one| *one > is);
            let (version, what) = (compiler.version, if newer { "an older" } else { "a newer" });
            return Some(format!(
                "libnvrtc of {version} does not compile for the GPU, of {is}: install {what} CUDA toolkit"
            ));
        }
        let Some(toolkit) = &self.toolkit else {
            return Some("the CUDA toolkit's headers were not found: install it, or set CUDA_PATH".into());
        };
        (!self.lacking.is_empty()).then(|| {
            let (include, lacking) = (toolkit.join("include"), self.lacking.join(", "));
            let include = include.display();
            format!("{include} has no {lacking}: install the whole CUDA toolkit, or set CUDA_PATH to where it is")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Cuda {
        let gpu = Gpu { name: "H100".into(), memory: 80 << 30, capability: Capability(9, 0) };
        let capabilities = vec![Capability(7, 5), Capability(8, 0), Capability(9, 0), Capability(10, 0)];
        Cuda {
            driver: Some(Version(13, 0)),
            compiler: Some(Compiler { version: Version(12, 8), capabilities }),
            toolkit: Some("/usr/local/cuda".into()),
            lacking: Vec::new(),
            gpus: vec![gpu],
        }
    }

    #[test]
    fn what_is_missing_is_told_with_a_way_out() {
        let check = |change: fn(&mut Cuda), index: usize, expect: Option<&str>| {
            let mut cuda = whole();
            change(&mut cuda);
            let missing = cuda.missing(index);
            assert_eq!(missing.as_deref(), expect);
        };
        check(|_| (), 0, None);
        check(|_| (), 1, Some("there is one GPU, cuda:0"));
        check(|c| *c = Cuda::default(), 0, Some("no NVIDIA driver answers: install it"));
        check(|c| c.gpus.push(c.gpus[0].clone()), 2, Some("there are cuda:0 to cuda:1"));
        check(|c| c.gpus.clear(), 0, Some("the driver knows no GPU: see nvidia-smi, and CUDA_VISIBLE_DEVICES"));
        check(
            |c| c.gpus[0].capability = Capability(6, 1),
            0,
            Some("the GPU is of compute capability 6.1, and compute capability 7.0 or newer is needed"),
        );
        check(
            |c| c.compiler = None,
            0,
            Some("libnvrtc, which compiles kernels, was not found: install the CUDA toolkit, or set LD_LIBRARY_PATH"),
        );
        check(
            |c| c.driver = Some(Version(12, 4)),
            0,
            Some(
                "libnvrtc is of CUDA 12.8, and the driver takes kernels of CUDA 12.4 at most: install a newer driver, or that toolkit",
            ),
        );
        check(
            |c| c.gpus[0].capability = Capability(7, 0),
            0,
            Some(
                "libnvrtc of CUDA 12.8 does not compile for the GPU, of compute capability 7.0: install an older CUDA toolkit",
            ),
        );
        check(
            |c| c.gpus[0].capability = Capability(12, 0),
            0,
            Some(
                "libnvrtc of CUDA 12.8 does not compile for the GPU, of compute capability 12.0: install a newer CUDA toolkit",
            ),
        );
        check(|c| c.toolkit = None, 0, Some("the CUDA toolkit's headers were not found: install it, or set CUDA_PATH"));
        check(
            |c| c.lacking = vec!["mma.h", "nv/target"],
            0,
            Some(
                "/usr/local/cuda/include has no mma.h, nv/target: install the whole CUDA toolkit, or set CUDA_PATH to where it is",
            ),
        );
    }

    #[test]
    fn a_compiler_that_does_not_tell_is_believed() {
        let mut cuda = whole();
        cuda.compiler = Some(Compiler { version: Version(12, 8), capabilities: Vec::new() });
        assert_eq!(cuda.missing(0), None);
    }
}
