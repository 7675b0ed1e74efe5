//! The metric of keys that have parts: second moments of a mixture of experts.
//!
//! `P` is block-diagonal, a block `λCₑ + ρI` for each part of a key, so that `P⁻¹K` and `KᵀP⁻¹K` are those of the parts, one behind the other and
//! summed: what an edit costs is `B × B`, however many parts there are. A part is fetched and factored when a key that uses it is first projected:
//! an edit whose keys are routed to a few experts factors those, and needs nothing of the others. All blocks of a wide mixture together are
//! gigabytes.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use faer::{Mat, MatRef};

use super::cholesky::Factor;
use super::metric::{Change, Preservation, PreservationWeights, Projection};
use crate::matrix::check_size;
use crate::{MathError, SecondMoment};

/// `P = λC + ρI` with a block-diagonal `C`. Copies share what is factored.
#[derive(Clone, Debug)]
pub struct PartFactors {
    parts: Arc<Vec<Part>>,
    source: Source,
    /// What the parts were made for.
    unit: PreservationWeights,
    /// What the metric is of: the same, or another `λ` without a ridge.
    weights: PreservationWeights,
    size: usize,
}

/// Where the second moment of a part comes from, by its number.
#[derive(Clone)]
struct Source(Arc<Fetch>);

type Fetch = dyn Fn(usize) -> Result<SecondMoment, MathError> + Send + Sync;

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// One part of a key.
#[derive(Debug)]
struct Part {
    range: Range<usize>,
    /// Tokens that use it.
    tokens: u64,
    /// `None` where it has none.
    factor: OnceLock<Result<Option<Factor>, MathError>>,
}

impl PartFactors {
    /// Of a second moment; nothing is factored yet.
    ///
    /// # Errors
    /// [`MathError::Parameter`] for weights out of range.
    pub fn new(moment: SecondMoment, weights: PreservationWeights) -> Result<Self, MathError> {
        let parts: Vec<(usize, u64)> = moment.ranges().map(|range| range.len()).zip(moment.part_counts()).collect();
        Self::fetched(parts, weights, move |part| Ok(moment.part(part)))
    }

    /// Of parts with these sizes and tokens that use them, whose second moments, over all tokens, `fetch` gives when they are needed.
    /// [`MathError::Unread`] is what it may fail with, and is tried again.
    ///
    /// # Errors
    /// [`MathError::Parameter`] for weights out of range.
    pub fn fetched(
        parts: impl IntoIterator<Item = (usize, u64)>,
        weights: PreservationWeights,
        fetch: impl Fn(usize) -> Result<SecondMoment, MathError> + Send + Sync + 'static,
    ) -> Result<Self, MathError> {
        weights.check()?;
        let mut size = 0;
        let part = |(own, tokens)| {
            size += own;
            Part { range: size - own..size, tokens, factor: OnceLock::new() }
        };
        let parts = Arc::new(parts.into_iter().map(part).collect());
        Ok(Self { parts, source: Source(Arc::new(fetch)), unit: weights, weights, size })
    }

    /// The metric with another `λ`, which shares what is factored; `None` where there is a ridge, as [`Factor::rescaled`].
    pub fn rescaled(&self, lambda: f64) -> Option<Self> {
        let weights = PreservationWeights { lambda, ..self.weights };
        (self.weights.rho == 0.0 && weights.check().is_ok()).then(|| Self { weights, ..self.clone() })
    }

    /// A part's factor.
    ///
    /// # Errors
    /// [`MathError::Part`] where it has none; what fetching it failed with.
    fn factor(&self, number: usize) -> Result<Factor, MathError> {
        let part = &self.parts[number];
        let (size, tokens) = (part.range.len(), part.tokens);
        let short = MathError::Part { part: number, tokens, size };
        // Sums that were rounded may have a factor by luck.
        if self.unit.rho == 0.0 && tokens < size as u64 {
            return Err(short);
        }
        let made = if let Some(made) = part.factor.get() {
            made
        } else {
            let moment = (self.source.0)(number)?;
            check_size("part of a key", moment.size(), size)?;
            part.factor.get_or_init(|| Factor::in_place(moment, self.unit))
        };
        let factor = made.as_ref().map_err(Clone::clone)?.as_ref().ok_or(short)?;
        if self.weights == self.unit {
            return Ok(factor.clone());
        }
        factor.rescaled(self.weights.lambda).ok_or(MathError::OutOfRange { what: "λC + ρI" })
    }

    /// The parts that some columns of `keys` `[f, n]` use.
    fn used<'a>(&'a self, keys: MatRef<'a, f64>) -> impl Iterator<Item = (usize, Range<usize>)> + 'a {
        let ranges = self.parts.iter().map(|part| part.range.clone()).enumerate();
        ranges.filter(move |(_, range)| keys.subrows(range.start, range.len()).norm_max() > 0.0)
    }
}

impl Preservation for PartFactors {
    fn size(&self) -> usize {
        self.size
    }

    fn project(&self, keys: MatRef<'_, f64>) -> Result<Projection, MathError> {
        check_size("key size", keys.nrows(), self.size)?;
        let batch = keys.ncols();
        let mut all = Projection { keys: Mat::zeros(self.size, batch), gram: Mat::zeros(batch, batch) };
        for (number, range) in self.used(keys) {
            let own = self.factor(number)?.project(keys.subrows(range.start, range.len()))?;
            all.keys.as_mut().subrows_mut(range.start, range.len()).copy_from(&own.keys);
            all.gram += own.gram;
        }
        Ok(all)
    }

    fn weigh(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let batch = x.nrows();
        let mut sum = Mat::zeros(batch, batch);
        for (number, range) in self.used(x.transpose()) {
            match self.factor(number) {
                Ok(factor) => sum += factor.weigh(x.subcols(range.start, range.len())),
                // What was projected has a factor; nothing else is weighed.
                Err(_) => return Mat::from_fn(batch, batch, |_, _| f64::NAN),
            }
        }
        sum
    }

    fn cost(&self, change: &Change<'_>) -> f64 {
        let PreservationWeights { lambda, rho } = self.weights;
        ((change.weighed - rho * change.frobenius * change.frobenius) / lambda).max(0.0)
    }

    fn metric(&self) -> Option<Mat<f64>> {
        None
    }

    fn takes_keys(&self) -> bool {
        false
    }

    fn with_keys(&self, _: MatRef<'_, f64>) -> Result<Arc<dyn Preservation>, MathError> {
        Err(MathError::OutOfRange { what: "a block-diagonal metric with keys across its blocks" })
    }
}
