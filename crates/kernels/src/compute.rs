//! What products compute with.

/// What the factors of a product are rounded to. Sums are in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// They are taken as they are.
    #[default]
    F32,
    /// The nearest numbers in bf16.
    Bf16,
}

impl Compute {
    /// Whether this CPU has instructions for it. Where it has none, results are the same, in the time that f32 takes.
    pub fn is_native(self) -> bool {
        match self {
            Self::F32 => true,
            Self::Bf16 => has_pairs(),
        }
    }
}

/// Whether this CPU multiplies pairs of numbers in bf16. One that multiplies tiles of them does that too.
pub(crate) fn has_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
