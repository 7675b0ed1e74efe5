//! A share of a stage's work: the units that one of several processes computes.
//!
//! Units are whole and are kept under keys of their own, wherever they are computed. So a share has no result: its process computes its
//! units and keeps them. Whoever runs the stage as a whole afterwards finds them, joins them in the units' order, and computes what
//! nobody has kept. That is why the number of shares is in no key and changes no bit, and why a share that is lost costs time alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use palinode_error::Error;
use palinode_pipeline::{Accept, PortOf};
use palinode_store::Artifact;
use serde::{Deserialize, Serialize};

use crate::given::Given;

/// One of several shares: of the parts that [`UnitPlan`](crate::UnitPlan) cuts, every `of`-th, beginning with this one.
///
/// Every `of`-th rather than a range, so that shares are alike although the number of parts may not be known, as with an automatic stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Which one, counted from 0.
    pub number: usize,
    /// How many there are; at least 1.
    pub of: usize,
}

impl Share {
    /// Whether a part belongs to it.
    pub const fn has(&self, part: usize) -> bool {
        part % self.of == self.number
    }
}

/// Which parts an attempt computes, and how many it has met so far.
#[derive(Default)]
pub(crate) struct Shared {
    share: Option<Share>,
    met: AtomicUsize,
}

impl Shared {
    /// All of them, or a share.
    pub fn new(share: Option<Share>) -> Self {
        Self { share, met: AtomicUsize::new(0) }
    }

    /// The share.
    pub const fn share(&self) -> Option<Share> {
        self.share
    }

    /// Whether the next part is this attempt's.
    pub fn next(&self) -> bool {
        let part = self.met.fetch_add(1, Ordering::Relaxed);
        self.share.is_none_or(|share| share.has(part))
    }
}

/// The artifacts at a stage's ports, before it runs.
pub struct Inputs<'a>(pub(crate) &'a BTreeMap<String, Artifact>);

impl Inputs<'_> {
    /// The artifact at a port, if one is connected.
    ///
    /// # Errors
    /// When its facts are not those of its kind.
    pub fn get<A: Accept>(&self, port: PortOf<A>) -> Result<Option<Given<'_, A>>, Error> {
        self.0.get(port.name).map(Given::read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every part is in one share, whatever their numbers.
    #[test]
    fn shares_cover_everything_once() {
        for of in 1..9 {
            for part in 0..40 {
                assert_eq!((0..of).filter(|&number| Share { number, of }.has(part)).count(), 1);
            }
        }
        let shared = Shared::new(Some(Share { number: 1, of: 3 }));
        assert_eq!([0; 5].map(|_| shared.next()), [false, true, false, false, true]);
        let all = Shared::new(None);
        assert!([0; 3].iter().all(|_| all.next()));
    }
}
