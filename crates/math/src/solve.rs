//! The update: one formula, two forms.

use std::ops::Range;

use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};

use crate::delta::LowRank;
use crate::matrix::{check_finite, check_size, gram, mean_column_norm, trace_of_product};
use crate::spectrum::{condition, general_condition};
use crate::{Change, MathError, Preservation};

/// Which system is solved. Both give the same update where both are defined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The cheaper one.
    #[default]
    Auto,
    /// `B × B`: `Δ = R (KᵀP⁻¹K + M)⁻¹ KᵀP⁻¹`, `M = diag μ`.
    Dual,
    /// `f × f`: `Δ = R M⁻¹Kᵀ (P + K M⁻¹ Kᵀ)⁻¹`; needs every `μ` above 0. With a metric that has no `P` to give, it is the dual form.
    Primal,
}

/// One layer's problem.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// `K`, `f × B`: where the constraint or the error is measured.
    pub keys: MatRef<'a, f64>,
    /// `f × B`: the keys that span the update, where they differ from `keys` (ROME as published).
    pub direction: Option<MatRef<'a, f64>>,
    /// `R = V − WK`, `d × B`.
    pub residual: MatRef<'a, f64>,
    /// `μ`, one per edit; 0 is a hard constraint.
    pub mu: &'a [f64],
    /// Which system to solve.
    pub form: Form,
}

/// What a solve reports beside the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Diagnostics {
    /// `tr(Δ C Δᵀ)`: mean squared change of the layer's output over the corpus.
    pub preservation: f64,
    /// Mean over edits of `‖R‖`: memorization error before.
    pub error_before: f64,
    /// Mean over edits of `‖ΔK − R‖`: memorization error after.
    pub error_after: f64,
    /// `‖Δ‖_F`.
    pub frobenius: f64,
    /// Largest singular value of `Δ`.
    pub spectral: f64,
    /// Condition number of the system that was solved (2-norm, by power iteration).
    pub condition: f64,
    /// Which form was solved.
    pub primal: bool,
}

/// An update with its diagnostics.
#[derive(Clone, Debug)]
pub struct Solution {
    /// The change.
    pub update: LowRank,
    /// The system that was solved, for [`without`](crate::without()).
    pub system: System,
    /// How good it is.
    pub diagnostics: Diagnostics,
}

impl Solution {
    /// The part of the update over some of a key's numbers, by itself, with what is known of it; `None` where it changes nothing. Errors and
    /// the condition number are the whole update's.
    pub fn part(&self, metric: &dyn Preservation, range: Range<usize>) -> Option<(LowRank, Diagnostics)> {
        let right = self.update.right.subcols(range.start, range.len());
        if right.norm_max() == 0.0 {
            return None;
        }
        let update = LowRank { left: self.update.left.clone(), right: right.to_owned() };
        let mut wide = LowRank { right: Mat::zeros(right.nrows(), self.update.right.ncols()), ..update.clone() };
        wide.right.as_mut().subcols_mut(range.start, range.len()).copy_from(right);
        let frobenius = update.frobenius();
        let weighed = trace_of_product(&gram(wide.left.as_ref()), &metric.weigh(wide.right.as_ref()));
        let preservation = metric.cost(&Change { update: &wide, weighed, frobenius });
        let diagnostics = Diagnostics { preservation, frobenius, spectral: update.spectral(), ..self.diagnostics };
        Some((update, diagnostics))
    }
}

/// What a solve leaves for [`without`](crate::without()).
#[derive(Clone, Debug, PartialEq)]
pub enum System {
    /// `S = DᵀP⁻¹K + M`, `[B, B]`.
    Dual(Mat<f64>),
    /// `K`, `[f, B]`, of the primal form, which is solved for more edits than a key has numbers: `S` would be larger.
    Primal(Mat<f64>),
}

impl System {
    /// Edits in it.
    pub fn edits(&self) -> usize {
        match self {
            Self::Dual(all) | Self::Primal(all) => all.ncols(),
        }
    }
}

/// Solves one layer, with any metric.
///
/// ```
/// use palinode_math::{Factor, Form, Objective, PreservationWeights, Problem, SecondMoment, from_row_major, solve};
///
/// // What the layer's keys look like on a corpus: here three of them, f = 2, of which C is the mean outer product.
/// let mut moment = SecondMoment::new(2);
/// moment.add(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0])?;
/// let factor = Factor::new(&moment, PreservationWeights { lambda: 3.0, rho: 0.0 })?;
///
/// // One edit: at this key, [f, B], the layer's output, d = 1, has to grow by 5: the residual, [d, B].
/// let keys = from_row_major("keys", &[1.0, 2.0], 2, 1)?;
/// let residual = from_row_major("residual", &[5.0], 1, 1)?;
/// let problem = |mu| Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu, form: Form::Auto };
///
/// // EMMET's constraint is exact: the change does to the key what was asked.
/// let mu = Objective::Emmet { epsilon: 0.1 }.mu(&[None])?;
/// let emmet = solve(&factor, &problem(&mu))?;
/// let moved = emmet.update.dense() * &keys;
/// assert!((moved[(0, 0)] - 5.0).abs() < 1e-12);
///
/// // MEMIT weighs it against the corpus. With P = λC = [[2, 1], [1, 2]], kᵀP⁻¹k = 2, so that 2/(2 + 1) of it is done.
/// let mu = Objective::Memit.mu(&[None])?;
/// let memit = solve(&factor, &problem(&mu))?;
/// let moved = memit.update.dense() * &keys;
/// assert!((moved[(0, 0)] - 5.0 * 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), palinode_math::MathError>(())
/// ```
///
/// # Errors
/// [`MathError::Dimension`], [`MathError::NotFinite`], [`MathError::Parameter`] for a negative `μ` or a primal form with
/// a hard constraint; [`MathError::Collision`] where the system is singular because edits share a key.
pub fn solve(metric: &dyn Preservation, problem: &Problem<'_>) -> Result<Solution, MathError> {
    let (f, batch) = (metric.size(), problem.keys.ncols());
    check_size("key size", problem.keys.nrows(), f)?;
    check_size("number of residuals", problem.residual.ncols(), batch)?;
    check_size("number of strengths", problem.mu.len(), batch)?;
    check_finite("keys", problem.keys)?;
    check_finite("residual", problem.residual)?;
    if let Some(direction) = problem.direction {
        check_size("number of direction keys", direction.ncols(), batch)?;
        check_finite("direction keys", direction)?;
    }
    if let Some(&value) = problem.mu.iter().find(|m| !(**m >= 0.0 && m.is_finite())) {
        return Err(MathError::Parameter { name: "mu", value, expected: "0 or above" });
    }
    let soft = problem.mu.iter().all(|m| *m > 0.0) && problem.direction.is_none();
    let primal = match problem.form {
        Form::Dual => false,
        Form::Primal if soft => true,
        Form::Primal => {
            return Err(MathError::Parameter {
                name: "mu",
                value: 0.0,
                expected: "above 0 for the primal form, which has no hard constraints",
            });
        }
        Form::Auto => soft && batch > f,
    };
    let whole = if primal { metric.metric() } else { None };
    let primal = whole.is_some();
    let Solved { right, weight, condition, system } = match whole {
        Some(whole) => primal_form(metric, whole, problem)?,
        None => dual_form(metric, problem)?,
    };
    let update = LowRank { left: problem.residual.to_owned(), right };
    check_finite("update", update.right.as_ref())?;
    let frobenius = update.frobenius();
    let weighed = trace_of_product(&gram(update.left.as_ref()), &weight);
    let error = update.times(problem.keys) - problem.residual;
    let diagnostics = Diagnostics {
        preservation: metric.cost(&Change { update: &update, weighed, frobenius }),
        error_before: mean_column_norm(problem.residual),
        error_after: mean_column_norm(error.as_ref()),
        frobenius,
        spectral: update.spectral(),
        condition,
        primal,
    };
    Ok(Solution { update, system, diagnostics })
}

// Why two forms. They are one update, by the push-through identity. The dual one solves a system as large as the batch, and sees the metric
// through its factor alone: right for a few edits at a key size of thousands, and the only one that has hard constraints (`μ = 0`). The
// primal one solves a system as large as the keys, and is right for more edits than a key has numbers: its time does not grow with the
// batch's cube, and the dual system would then be singular but for `M`. Both solve by Cholesky with f64, and both give `G` with `Δ = R G`,
// so that nothing after them has to know which it was.

/// A system's inverse, applied to `X` that is given by its transpose.
type Inverse = Box<dyn Fn(&Mat<f64>) -> Mat<f64>>;

/// What a form gives.
struct Solved {
    /// `G`, `B × f`, with `Δ = R G`.
    right: Mat<f64>,
    /// `G P Gᵀ`, `B × B`.
    weight: Mat<f64>,
    /// The system's condition number.
    condition: f64,
    system: System,
}

/// `G = S⁻¹ DᵀP⁻¹` with `S = DᵀP⁻¹K + M`, where `D` are the keys that span the update; so `G P Gᵀ = S⁻¹ (DᵀP⁻¹D) S⁻ᵀ`.
fn dual_form(metric: &dyn Preservation, problem: &Problem<'_>) -> Result<Solved, MathError> {
    let batch = problem.keys.ncols();
    let spanning = metric.project(problem.direction.unwrap_or(problem.keys))?;
    let mut system = match problem.direction {
        Some(_) => spanning.keys.transpose() * problem.keys,
        None => spanning.gram.clone(),
    };
    for i in 0..batch {
        system[(i, i)] += problem.mu[i];
    }
    let faded = |i: usize| system[(i, i)] == 0.0 && problem.keys.col(i).norm_l2() > 0.0 && problem.direction.is_none();
    if !system.as_ref().is_all_finite() || (0..batch).any(faded) {
        return Err(MathError::OutOfRange { what: "KᵀP⁻¹K" });
    }
    let apply = inverse(&system, problem.direction.is_none())?;
    let right = apply(&spanning.keys);
    let weight = apply(&apply(&spanning.gram));
    let condition = if problem.direction.is_some() { general_condition(&system) } else { condition(&system)? };
    Ok(Solved { right, weight, condition, system: System::Dual(system) })
}

/// The inverse of a system `S`, `[B, B]`, positive definite where it is `symmetric`.
///
/// # Errors
/// [`MathError::Collision`] where it is singular to rounding.
pub(crate) fn inverse(system: &Mat<f64>, symmetric: bool) -> Result<Inverse, MathError> {
    let batch = system.nrows();
    // Scaled to a unit diagonal, a singular system shows in its pivots whatever the keys' sizes: the keys of one batch differ in norm by
    // orders of magnitude, and so do soft and hard edits, so that the smallest pivot of the system as it is says little. Of the scaled
    // one it is 1 − (multiple correlation)²: how much of a key the others leave unexplained, to be compared with rounding. Its
    // off-diagonal entries are the cosines in the metric, by which colliding edits are named.
    let scale: Vec<f64> = (0..batch).map(|i| system[(i, i)].abs().sqrt().recip()).collect();
    if scale.iter().any(|s| !s.is_finite()) {
        return Err(MathError::Collision { pairs: Vec::new() });
    }
    let scaled = Mat::from_fn(batch, batch, |i, j| scale[i] * system[(i, j)] * scale[j]);
    let floor = 16.0 * batch as f64 * f64::EPSILON;
    let solve: Inverse = if symmetric {
        let collision = || MathError::Collision { pairs: parallel_pairs(&scaled) };
        let llt = scaled.llt(Side::Lower).map_err(|_| collision())?;
        if (0..batch).any(|i| llt.L()[(i, i)].powi(2) <= floor) {
            return Err(collision());
        }
        Box::new(move |x| llt.solve(x))
    } else {
        let lu = scaled.partial_piv_lu();
        if (0..batch).any(|i| lu.U()[(i, i)].abs() <= floor) {
            return Err(MathError::Collision { pairs: parallel_pairs(&scaled) });
        }
        Box::new(move |x| lu.solve(x))
    };
    Ok(Box::new(move |x| {
        let columns = x.nrows();
        let solved = solve(&Mat::from_fn(batch, columns, |i, j| scale[i] * x[(j, i)]));
        Mat::from_fn(batch, columns, |i, j| scale[i] * solved[(i, j)])
    }))
}

/// `G = M⁻¹Kᵀ (P + K M⁻¹ Kᵀ)⁻¹`.
fn primal_form(metric: &dyn Preservation, whole: Mat<f64>, problem: &Problem<'_>) -> Result<Solved, MathError> {
    let (f, batch) = (metric.size(), problem.keys.ncols());
    let weighted = Mat::from_fn(f, batch, |i, j| problem.keys[(i, j)] / problem.mu[j]);
    let system = whole + &weighted * problem.keys.transpose();
    let llt = system.llt(Side::Lower).map_err(|_| MathError::NotFinite { what: "primal system" })?;
    let right = llt.solve(&weighted).transpose().to_owned();
    let weight = metric.weigh(right.as_ref());
    let kept = System::Primal(problem.keys.to_owned());
    Ok(Solved { right, weight, condition: condition(&system)?, system: kept })
}

/// Pairs whose normalised Gram entry is nearly ±1, strongest first.
fn parallel_pairs(scaled: &Mat<f64>) -> Vec<(usize, usize, f64)> {
    let mut pairs: Vec<_> = (0..scaled.nrows())
        .flat_map(|i| (i + 1..scaled.nrows()).map(move |j| (i, j)))
        .map(|(i, j)| (i, j, scaled[(i, j)]))
        .filter(|(_, _, cosine)| cosine.abs() > 1.0 - 1e-6)
        .collect();
    pairs.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
    pairs
}
