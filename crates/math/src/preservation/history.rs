//! A metric that also preserves what earlier rounds wrote: `P = P₀ + H`, `H = w Σ KₚKₚᵀ`.
//!
//! `P₀` is any metric, with its factor as it stands. A round adds as few columns to `H` as it has edits, so that `P` is never factored for
//! one round: with the columns `Q` of `H`, `Z = P₀⁻¹Q` and `S = I + QᵀZ`,
//!
//! ```text
//! P⁻¹K = P₀⁻¹K − Z S⁻¹ Qᵀ P₀⁻¹K        (Woodbury)
//! ```
//!
//! `Z` and the Cholesky factor of `S` are kept, and grow by the round's columns: f²·B for a round, where factoring anew costs f³/3. When
//! `Q` has more than `f/4` columns it is added to `P₀` and factored once, so that memory is bounded whatever the number of rounds.
//! A metric with blocks ([`PartFactors`](super::PartFactors)), which are many times larger than a round has edits, is never factored anew.
//! When this happens depends on the rounds alone: a history that is built again from the same keys is the same in every bit.

use std::sync::{Arc, Mutex, PoisonError};

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatRef, Side};

use super::metric::{Change, Preservation, Projection};
use crate::MathError;
use crate::matrix::{check_finite, check_size, gram, trace_of_product};

/// A metric with the keys of earlier rounds.
#[derive(Clone, Debug)]
pub struct History {
    /// `P₀` without any round, by which the corpus is preserved.
    base: Arc<dyn Preservation>,
    /// `P₀` with the rounds that were factored into it.
    current: Arc<dyn Preservation>,
    /// `w`, what a key of an earlier round weighs.
    weight: f64,
    /// Columns of `Q` at most.
    room: usize,
    /// `Q`, `[f, n]`: `√w Kₚ` of the rounds that are not in `current`.
    keys: Mat<f64>,
    /// `Z = P₀⁻¹Q`, `[f, n]`.
    projected: Mat<f64>,
    /// Lower Cholesky factor of `S`, `[n, n]`.
    system: Mat<f64>,
    count: usize,
    consolidations: usize,
    /// The keys that were projected last, and what `current` made of them: a round that was solved is remembered next.
    recent: Arc<Mutex<Option<Recent>>>,
}

/// Keys, and their projection.
type Recent = (Mat<f64>, Projection);

impl History {
    /// Of no round yet.
    ///
    /// # Errors
    /// [`MathError::Parameter`] for a weight that is not above 0.
    pub fn new(base: Arc<dyn Preservation>, weight: f64) -> Result<Self, MathError> {
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(MathError::Parameter { name: "history", value: weight, expected: "a number above 0" });
        }
        let f = base.size();
        let room = if base.takes_keys() { (f / 4).max(1) } else { usize::MAX };
        Ok(Self {
            current: Arc::clone(&base),
            base,
            weight,
            room,
            keys: Mat::zeros(f, 0),
            projected: Mat::zeros(f, 0),
            system: Mat::zeros(0, 0),
            count: 0,
            consolidations: 0,
            recent: Arc::default(),
        })
    }

    /// Keys that are remembered.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Columns that are kept beside the factor: `f/4` at most, however many rounds there were, where the metric can be factored anew.
    pub fn pending(&self) -> usize {
        self.keys.ncols()
    }

    /// How often columns were added to the factor, which is then made anew.
    pub fn consolidations(&self) -> usize {
        self.consolidations
    }

    /// Adds the keys `[f, B]` of a round that was solved.
    ///
    /// # Errors
    /// [`MathError::Dimension`]; [`MathError::NotFinite`]; [`MathError::OutOfRange`] where the sum leaves the range of numbers.
    pub fn remember(&mut self, keys: MatRef<'_, f64>) -> Result<(), MathError> {
        let f = self.base.size();
        check_size("key size", keys.nrows(), f)?;
        check_finite("keys", keys)?;
        let (old, new, root) = (self.keys.ncols(), keys.ncols(), self.weight.sqrt());
        let recent = std::mem::take(&mut self.recent);
        self.count += new;
        let all = old + new;
        self.keys.resize_with(f, all, |i, j| root * keys[(i, j - old)]);
        if all > self.room {
            self.current = self.current.with_keys(self.keys.as_ref())?;
            self.consolidations += 1;
            self.keys = Mat::zeros(f, 0);
            self.projected = Mat::zeros(f, 0);
            self.system = Mat::zeros(0, 0);
            return Ok(());
        }
        let recent = recent.lock().unwrap_or_else(PoisonError::into_inner).take();
        let known = recent.filter(|(known, _)| known.ncols() == new && *known == self.keys.subcols(old, new));
        let Projection { keys: projected, gram } = match known {
            Some((_, projection)) => projection,
            None => self.current.project(self.keys.subcols(old, new))?,
        };
        // S grows by a block row: [L 0; Xᵀ M] with X = L⁻¹ QᵀZ_new and M Mᵀ = I + gram − XᵀX.
        let threads = faer::get_global_parallelism();
        let mut beside = self.keys.subcols(0, old).transpose() * &projected;
        solve_lower_triangular_in_place(self.system.as_ref(), beside.as_mut(), threads);
        let corner = Mat::<f64>::identity(new, new) + gram - beside.transpose() * &beside;
        let corner = corner.llt(Side::Lower).map_err(|_| MathError::OutOfRange { what: "I + QᵀP⁻¹Q" })?.L().to_owned();
        let before = &self.system;
        self.system = Mat::from_fn(all, all, |i, j| match (i < old, j < old) {
            (true, true) => before[(i, j)],
            (true, false) => 0.0,
            (false, true) => beside[(j, i - old)],
            (false, false) => corner[(i - old, j - old)],
        });
        self.projected.resize_with(f, all, |i, j| projected[(i, j - old)]);
        Ok(())
    }
}

impl Preservation for History {
    fn size(&self) -> usize {
        self.base.size()
    }

    fn project(&self, keys: MatRef<'_, f64>) -> Result<Projection, MathError> {
        let plain = self.current.project(keys)?;
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Some((keys.to_owned(), plain.clone()));
        if self.keys.ncols() == 0 {
            return Ok(plain);
        }
        let threads = faer::get_global_parallelism();
        let mut half = self.keys.transpose() * &plain.keys;
        solve_lower_triangular_in_place(self.system.as_ref(), half.as_mut(), threads);
        let gram = plain.gram - half.transpose() * &half;
        solve_upper_triangular_in_place(self.system.transpose(), half.as_mut(), threads);
        Ok(Projection { keys: plain.keys - &self.projected * &half, gram })
    }

    fn weigh(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let along = x * &self.keys;
        self.current.weigh(x) + &along * along.transpose()
    }

    fn cost(&self, change: &Change<'_>) -> f64 {
        // Of what the change weighs, the corpus knows only its own part.
        let weight = self.base.weigh(change.update.right.as_ref());
        let weighed = trace_of_product(&gram(change.update.left.as_ref()), &weight);
        self.base.cost(&Change { weighed, ..*change })
    }

    fn metric(&self) -> Option<Mat<f64>> {
        Some(self.current.metric()? + &self.keys * self.keys.transpose())
    }

    fn with_keys(&self, keys: MatRef<'_, f64>) -> Result<Arc<dyn Preservation>, MathError> {
        let all = Mat::from_fn(self.size(), self.keys.ncols() + keys.ncols(), |i, j| {
            match j.checked_sub(self.keys.ncols()) {
                None => self.keys[(i, j)],
                Some(j) => keys[(i, j)],
            }
        });
        self.current.with_keys(all.as_ref())
    }
}
