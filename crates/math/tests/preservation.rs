//! Identities of the metric with a history or a projector, and of after-care.

use std::sync::Arc;

use palinode_math::{
    Delta, Factor, Form, History, LowRank, Mat, Preservation, PreservationWeights, Problem, Projector, PruneForm,
    Ridge, SecondMoment, Sides, Spectrum, Threshold, prune, rect, revive, solve, sphere,
};
use proptest::prelude::*;

/// After-care of a change.
type Care<'a> = &'a dyn Fn(&Delta) -> Delta;

const F: usize = 24;
const D: usize = 7;

fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Mat<f64>> {
    prop::collection::vec(-2.0..2.0f64, rows * columns)
        .prop_map(move |v| Mat::from_fn(rows, columns, |i, j| v[i * columns + j]))
}

fn moment() -> impl Strategy<Value = SecondMoment> {
    prop::collection::vec(-2.0..2.0f32, 8 * F * F).prop_map(|corpus| {
        let mut moment = SecondMoment::new(F);
        moment.add(&corpus).unwrap();
        moment
    })
}

fn close(a: &Mat<f64>, b: &Mat<f64>, tolerance: f64) -> bool {
    (a - b).norm_l2() <= tolerance * (1.0 + b.norm_l2())
}

fn change(metric: &dyn Preservation, keys: &Mat<f64>, residual: &Mat<f64>, mu: f64) -> (Mat<f64>, f64) {
    let mu = vec![mu; keys.ncols()];
    let problem =
        Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu: &mu, form: Form::Auto };
    let solution = solve(metric, &problem).unwrap();
    (solution.update.dense(), solution.diagnostics.preservation)
}

/// MEMIT in rounds of `size`, each against the weight that the rounds before left.
fn in_rounds(base: Arc<dyn Preservation>, keys: &Mat<f64>, values: &Mat<f64>, size: usize) -> Mat<f64> {
    let mut history = History::new(base, 1.0).unwrap();
    let mut sum = Mat::<f64>::zeros(D, F);
    for start in (0..keys.ncols()).step_by(size) {
        let count = size.min(keys.ncols() - start);
        let round = keys.subcols(start, count).to_owned();
        let residual = values.subcols(start, count) - &sum * &round;
        sum += change(&history, &round, &residual, 1.0).0;
        history.remember(round.as_ref()).unwrap();
    }
    sum
}

const WEIGHTS: PreservationWeights = PreservationWeights { lambda: 3.0, rho: 0.5 };

/// However many rounds there are, no more than `f/4` columns are kept beside the factor; and the factor is not made anew but when they are full.
#[test]
fn a_history_does_not_grow() {
    let mut moment = SecondMoment::new(F);
    moment.add(&(0..8 * F * F).map(|i| (0.37 * i as f32).sin()).collect::<Vec<_>>()).unwrap();
    let (room, rounds) = (F / 4, 3000);
    for size in [1, 2, 5] {
        let mut history = History::new(Arc::new(Factor::new(&moment, WEIGHTS).unwrap()), 1.0).unwrap();
        for round in 0..rounds {
            let keys = Mat::from_fn(F, size, |i, j| ((i + 1) as f64 * (round * size + j + 1) as f64 * 0.11).sin());
            history.remember(keys.as_ref()).unwrap();
            assert!(history.pending() <= room, "{} columns after round {round}", history.pending());
        }
        // A round that finds no room is added to the factor with those before it.
        let in_one = room / size + 1;
        assert_eq!((history.count(), history.consolidations()), (rounds * size, rounds / in_one), "size {size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Recursive least squares. With more keys than `F / 4`, the metric is factored anew on the way.
    #[test]
    fn history_in_rounds_is_one_batch(moment in moment(), keys in matrix(F, 17), values in matrix(D, 17), size in 1..6usize) {
        let factor = Factor::new(&moment, WEIGHTS).unwrap();
        let spectrum = Spectrum::of(&moment).unwrap();
        let bases: [Arc<dyn Preservation>; 3] = [
            Arc::new(factor),
            Arc::new(Ridge::new(F, WEIGHTS).unwrap()),
            Arc::new(Projector::new(&spectrum, Threshold::Dimensions(0.7), WEIGHTS).unwrap()),
        ];
        for base in bases {
            let (whole, _) = change(base.as_ref(), &keys, &values, 1.0);
            prop_assert!(close(&in_rounds(base, &keys, &values, size), &whole, 1e-10));
        }
    }

    /// The metric with a history is that of the sum, its cost that of the corpus alone.
    #[test]
    fn a_history_is_its_sum(moment in moment(), past in matrix(F, 9), keys in matrix(F, 4), residual in matrix(D, 4), mu in 0.0..2.0f64) {
        let base = Arc::new(Factor::new(&moment, WEIGHTS).unwrap());
        let mut history = History::new(base, 2.0).unwrap();
        for j in 0..past.ncols() {
            history.remember(past.subcols(j, 1)).unwrap();
        }
        let mut whole = SecondMoment::new(F);
        let mean = moment.mean();
        let sum = Mat::from_fn(F, F, |i, j| {
            WEIGHTS.lambda * mean[(i, j)] + 2.0 * (0..past.ncols()).map(|n| past[(i, n)] * past[(j, n)]).sum::<f64>()
        });
        let flat: Vec<f64> = (0..F * F).map(|n| sum[(n / F, n % F)]).collect();
        whole.merge(&SecondMoment::from_sum(&flat, F, 1).unwrap()).unwrap();
        let direct = Factor::new(&whole, PreservationWeights { lambda: 1.0, ..WEIGHTS }).unwrap();
        let (ours, cost) = change(&history, &keys, &residual, mu);
        let (theirs, _) = change(&direct, &keys, &residual, mu);
        prop_assert!(close(&ours, &theirs, 1e-9));
        let product = &ours * &mean * ours.transpose();
        let spread: f64 = (0..D).map(|i| product[(i, i)]).sum();
        prop_assert!((cost - spread).abs() <= 1e-8 * (1.0 + spread), "{cost} {spread}");
        let metric = history.metric().unwrap();
        prop_assert!(close(&metric, &direct.metric().unwrap(), 1e-10));
        prop_assert!(close(&history.weigh(keys.transpose()), &direct.weigh(keys.transpose()), 1e-9));
    }

    #[test]
    fn a_projector_of_full_rank_is_none(moment in moment(), keys in matrix(F, 5), residual in matrix(D, 5), mu in 0.0..2.0f64) {
        let spectrum = Spectrum::of(&moment).unwrap();
        let plain = change(&Factor::new(&moment, WEIGHTS).unwrap(), &keys, &residual, mu);
        for all in [Threshold::Dimensions(1.0), Threshold::Trace(1.0), Threshold::Below(1e9)] {
            let projector = Projector::new(&spectrum, all, WEIGHTS).unwrap();
            let (dense, cost) = change(&projector, &keys, &residual, mu);
            prop_assert!(close(&dense, &plain.0, 1e-9));
            prop_assert!((cost - plain.1).abs() <= 1e-8 * (1.0 + plain.1));
        }
    }

    /// AlphaEdit as its code has it: R Kᵀ P [(K Kᵀ + H) P + L2 I]⁻¹ with P = U Uᵀ. And nothing changes for keys outside of U.
    #[test]
    fn alphaedit_is_memit_with_a_projector(moment in moment(), past in matrix(F, 3), keys in matrix(F, 5), residual in matrix(D, 5), ridge in 0.5..20.0f64) {
        use faer_solve::solve_right;
        let spectrum = Spectrum::of(&moment).unwrap();
        let weights = PreservationWeights { lambda: 0.0, rho: ridge };
        let threshold = Threshold::Dimensions(0.6);
        let kept = spectrum.cut(threshold).kept;
        let basis = spectrum.vectors().subcols(0, kept);
        let p = basis * basis.transpose();
        let inner = (&keys * keys.transpose() + &past * past.transpose()) * &p
            + Mat::from_fn(F, F, |i, j| if i == j { ridge } else { 0.0 });
        let theirs = solve_right(&(&residual * keys.transpose() * &p), &inner);
        let mut history = History::new(Arc::new(Projector::new(&spectrum, threshold, weights).unwrap()), 1.0).unwrap();
        history.remember(past.as_ref()).unwrap();
        let (ours, _) = change(&history, &keys, &residual, 1.0);
        prop_assert!(close(&ours, &theirs, 1e-9));
        prop_assert!((&ours * spectrum.vectors().subcols(kept, F - kept)).norm_l2() < 1e-9);
    }

    #[test]
    fn equality_holds_within_a_projector(moment in moment(), keys in matrix(F, 4), residual in matrix(D, 4)) {
        let spectrum = Spectrum::of(&moment).unwrap();
        let weights = PreservationWeights { lambda: 0.0, rho: 1.0 };
        let projector = Projector::new(&spectrum, Threshold::Dimensions(0.5), weights).unwrap();
        let (ours, _) = change(&projector, &keys, &residual, 0.0);
        prop_assert!(close(&(&ours * &keys), &residual, 1e-7));
    }

    #[test]
    fn care_that_does_nothing(left in matrix(D, 3), right in matrix(3, F), weight in matrix(D, F)) {
        let delta = Delta::from(LowRank { left, right });
        let dense = delta.dense();
        let same = |other: Delta| other.dense() == dense;
        prop_assert!(same(rect(&delta, weight.as_ref(), 1.0).unwrap()));
        for side in [Sides::Output, Sides::Input] {
            prop_assert!(same(sphere(&delta, weight.as_ref(), side, 0.5, 0.0).unwrap()));
        }
        prop_assert!(same(revive(&delta, weight.as_ref(), 0).unwrap()));
        let large = Mat::from_fn(D, F, |i, j| 1e3 * weight[(i, j)] + if i == j { 1e4 } else { 0.0 });
        prop_assert!(same(prune(&delta, large.as_ref(), PruneForm::Paper).unwrap()));
    }

    /// Thin factors and whole matrices are treated alike, and thin ones stay thin.
    #[test]
    fn care_of_any_form(left in matrix(D, 3), right in matrix(3, F), weight in matrix(D, F), rank in 0..9usize) {
        let low = Delta::from(LowRank { left, right });
        let whole = Delta::Dense(low.dense());
        let small = Mat::from_fn(D, F, |i, j| 0.01 * weight[(i, j)]);
        let cares: [Care<'_>; 5] = [
            &|d| prune(d, small.as_ref(), PruneForm::Paper).unwrap(),
            &|d| prune(d, small.as_ref(), PruneForm::Published).unwrap(),
            &|d| sphere(d, weight.as_ref(), Sides::Output, 0.5, 0.5).unwrap(),
            &|d| sphere(d, weight.as_ref(), Sides::Input, 0.5, 0.5).unwrap(),
            &|d| revive(d, weight.as_ref(), rank).unwrap(),
        ];
        for care in cares {
            let (a, b) = (care(&low), care(&whole));
            prop_assert!(a.rank().is_some() && b.rank().is_none());
            prop_assert!(close(&a.dense(), &b.dense(), 1e-9));
        }
    }
}

/// What is kept of the largest value: `ln s − ln m + m`.
#[test]
fn prune_damps_what_is_larger_than_the_weight() {
    let weight = Mat::from_fn(2, 2, |i, j| if i == j { 2.0 } else { 0.0 });
    let delta = Delta::Dense(Mat::from_fn(2, 2, |i, j| if i == j { [10.0, 1.0][i] } else { 0.0 }));
    let kept = prune(&delta, weight.as_ref(), PruneForm::Paper).unwrap().dense();
    assert!((kept[(0, 0)] - (10f64.ln() - 2f64.ln() + 2.0)).abs() < 1e-9 && (kept[(1, 1)] - 1.0).abs() < 1e-9);
    let kept = prune(&delta, weight.as_ref(), PruneForm::Published).unwrap().dense();
    assert!((kept[(1, 1)] - 2.0).abs() < 1e-9);
}

/// Strictly below, and a share of the trace or of the dimensions.
#[test]
fn a_threshold_cuts() {
    let values = vec![1.0, 2.0, 3.0, 4.0];
    let spectrum = Spectrum::from_parts(Mat::from_fn(4, 4, |i, j| f64::from(u8::from(i == j))), values).unwrap();
    let kept = |threshold| spectrum.cut(threshold).kept;
    assert_eq!([kept(Threshold::Below(3.0)), kept(Threshold::Below(3.1))], [2, 3]);
    assert_eq!([kept(Threshold::Trace(0.3)), kept(Threshold::Trace(0.29)), kept(Threshold::Trace(1.0))], [2, 1, 4]);
    assert_eq!([kept(Threshold::Dimensions(0.5)), kept(Threshold::Dimensions(0.74))], [2, 2]);
    assert!(Projector::new(&spectrum, Threshold::Below(1.0), WEIGHTS).is_err());
    assert!(Projector::new(&spectrum, Threshold::Below(3.0), PreservationWeights { lambda: 0.0, rho: 0.0 }).is_err());
    assert!(!spectrum.cut(Threshold::Below(3.0)).near_tie());
}

mod faer_solve {
    use palinode_math::Mat;

    /// `A B⁻¹` by Gauss and Jordan, for what is not symmetric.
    pub fn solve_right(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
        // X B = A, so Bᵀ Xᵀ = Aᵀ.
        let n = b.nrows();
        let mut system = b.transpose().to_owned();
        let mut right = a.transpose().to_owned();
        for column in 0..n {
            let pivot = (column..n)
                .max_by(|&i, &j| system[(i, column)].abs().total_cmp(&system[(j, column)].abs()))
                .unwrap_or(column);
            for j in 0..n {
                let (x, y) = (system[(column, j)], system[(pivot, j)]);
                (system[(column, j)], system[(pivot, j)]) = (y, x);
            }
            for j in 0..right.ncols() {
                let (x, y) = (right[(column, j)], right[(pivot, j)]);
                (right[(column, j)], right[(pivot, j)]) = (y, x);
            }
            for i in (0..n).filter(|i| *i != column) {
                let by = system[(i, column)] / system[(column, column)];
                for j in 0..n {
                    let other = system[(column, j)];
                    system[(i, j)] -= by * other;
                }
                for j in 0..right.ncols() {
                    let other = right[(column, j)];
                    right[(i, j)] -= by * other;
                }
            }
        }
        Mat::from_fn(right.ncols(), n, |i, j| right[(j, i)] / system[(j, j)])
    }
}
