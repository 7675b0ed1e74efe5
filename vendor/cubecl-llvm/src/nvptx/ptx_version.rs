//! Versions of PTX.

use core::fmt;

/// A version of PTX; none is ever chosen, since nothing is compiled to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PtxVersion(());

impl PtxVersion {
    /// The version that a driver takes.
    pub fn for_driver(_driver: i32) -> Option<Self> {
        None
    }
}

impl fmt::Display for PtxVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ptx")
    }
}
