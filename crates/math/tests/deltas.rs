//! Forms of a change, the metric without second moments, and after-care: what has to agree with what.

use palinode_math::{
    Delta, Factor, Form, LowRank, Mat, MathError, Preservation, PreservationWeights, Problem, Ridge, SecondMoment,
    Solution, Sparse, rect, solve,
};
use proptest::prelude::*;

const F: usize = 9;
const D: usize = 6;

fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Mat<f64>> {
    prop::collection::vec(-2.0..2.0f64, rows * columns)
        .prop_map(move |v| Mat::from_fn(rows, columns, |i, j| v[i * columns + j]))
}

fn close(a: &Mat<f64>, b: &Mat<f64>, tolerance: f64) -> bool {
    (a - b).norm_l2() <= tolerance * (1.0 + b.norm_l2())
}

/// A second moment that is the identity.
fn unit_moment() -> SecondMoment {
    let sum: Vec<f64> = (0..F * F).map(|at| if at / F == at % F { 1.0 } else { 0.0 }).collect();
    SecondMoment::from_sum(&sum, F, 1).unwrap()
}

/// The same change in every form that it has.
fn forms(low: &LowRank) -> [Delta; 3] {
    let dense = low.dense();
    [Delta::LowRank(low.clone()), Delta::Sparse(Sparse::of(dense.as_ref(), |_| true)), Delta::Dense(dense)]
}

/// A change that is multiplied out some inputs at a time has the bits of one that is multiplied out at once.
#[test]
fn a_change_is_the_same_in_parts() {
    for (out, inputs, rank) in
        [(64, 3000, 1), (1, 2500, 3), (300, 1, 2), (768, 3072, 32), (17, 1030, 7), (96, 2048, 100), (5, 1024, 600)]
    {
        let number = |i: usize, j: usize| ((i * 37 + j * 101) as f64).sin();
        let (left, right) = (Mat::from_fn(out, rank, number), Mat::from_fn(rank, inputs, |i, j| number(j, i + 5)));
        let whole = right.transpose() * left.transpose();
        let wanted: Vec<f32> = (0..inputs * out).map(|at| whole[(at / out, at % out)] as f32).collect();
        let low = Delta::LowRank(LowRank { left, right });
        assert!(low.transposed_f32() == wanted, "{out} × {inputs}, rank {rank}");
        for other in [Delta::Dense(low.dense()), Delta::Sparse(Sparse::of(low.dense().as_ref(), |_| true))] {
            assert!(other.transposed_f32() == wanted, "{out} × {inputs}, rank {rank}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_ridge_is_the_factor_of_the_identity(
        keys in matrix(F, 4), direction in matrix(F, 4), residual in matrix(D, 4),
        lambda in 0.1..1e3f64, rho in 0.0..10.0f64, mu in prop::collection::vec(0.1..3.0f64, 4),
    ) {
        let weights = PreservationWeights { lambda, rho };
        let metrics: [Box<dyn Preservation>; 2] =
            [Box::new(Ridge::new(F, weights).unwrap()), Box::new(Factor::new(&unit_moment(), weights).unwrap())];
        let cases = [(None, Form::Dual), (None, Form::Primal), (Some(direction.as_ref()), Form::Auto)];
        for (direction, form) in cases {
            let problem =
                Problem { keys: keys.as_ref(), direction, residual: residual.as_ref(), mu: &mu, form };
            let [ridge, factor] = metrics.each_ref().map(|metric| solve(metric.as_ref(), &problem));
            // Random direction keys may be at a right angle to the keys: such a system has no solution with either metric.
            let (Ok(ridge), Ok(factor)) = (ridge, factor) else { continue };
            prop_assume!(factor.diagnostics.condition < 1e3);
            let relative = |a: f64, b: f64| (a - b).abs() <= 1e-12 * (1.0 + b.abs());
            prop_assert!(close(&ridge.update.dense(), &factor.update.dense(), 1e-12));
            prop_assert!(relative(ridge.diagnostics.preservation, factor.diagnostics.preservation));
            prop_assert!(relative(ridge.diagnostics.frobenius, factor.diagnostics.frobenius));
            prop_assert_eq!(ridge.diagnostics.primal, factor.diagnostics.primal);
        }
    }

    #[test]
    fn the_condition_of_a_general_system_is_that_of_its_singular_values(
        keys in matrix(F, 3), direction in matrix(F, 3), residual in matrix(D, 3),
    ) {
        let ridge = Ridge::new(F, PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap();
        let mu = [0.5; 3];
        let problem = Problem {
            keys: keys.as_ref(), direction: Some(direction.as_ref()), residual: residual.as_ref(), mu: &mu, form: Form::Auto,
        };
        let Ok(Solution { diagnostics, .. }) = solve(&ridge, &problem) else { return Ok(()) };
        let mut system = direction.transpose() * &keys;
        (0..3).for_each(|i| system[(i, i)] += mu[i]);
        let values = system.singular_values().unwrap();
        let expected = values[0] / values[2];
        prop_assume!(expected < 1e4);
        prop_assert!((diagnostics.condition / expected - 1.0).abs() < 1e-3, "{} {expected}", diagnostics.condition);
    }

    #[test]
    fn forms_agree(left in matrix(D, 2), right in matrix(2, F), x in matrix(F, 3), weight in matrix(D, F)) {
        let low = LowRank { left, right };
        let dense = low.dense();
        let sum = &weight + &dense;
        for delta in forms(&low) {
            prop_assert_eq!(delta.shape(), [D, F]);
            prop_assert!(close(&delta.dense(), &dense, 1e-12));
            let transposed = delta.transposed_f32();
            prop_assert_eq!(transposed.len(), F * D);
            let transposed = Mat::from_fn(D, F, |i, j| f64::from(transposed[j * D + i]));
            prop_assert!(close(&transposed, &dense, 1e-7));
            prop_assert!(close(&delta.times(x.as_ref()), &(&dense * &x), 1e-12));
            prop_assert!((delta.frobenius() - dense.norm_l2()).abs() < 1e-9);
            let spectral = dense.singular_values().unwrap()[0];
            prop_assert!((delta.spectral() - spectral).abs() <= 1e-3 * (1.0 + spectral));
            let mut added = weight.clone();
            delta.add_to(&mut added).unwrap();
            prop_assert!(close(&added, &sum, 1e-12));
            let rounded = delta.rounded();
            prop_assert!(close(&rounded.dense(), &dense, 1e-6));
            prop_assert!(close(&rounded.rounded().dense(), &rounded.dense(), 0.0));
            for other in forms(&low) {
                prop_assert!(close(&delta.clone().plus(&other).unwrap().dense(), &(&dense + &dense), 1e-12));
            }
            let wider = delta.plus(&Delta::Dense(Mat::zeros(D, F + 1)));
            prop_assert!(wider.is_err());
        }
    }

    #[test]
    fn rect_keeps_the_largest_relative_changes(left in matrix(D, 2), right in matrix(2, F), weight in matrix(D, F), keep in 0.05..1.0f64) {
        let low = LowRank { left, right };
        let dense = low.dense();
        let dropped = ((1.0 - keep) * (D * F) as f64) as usize;
        for delta in forms(&low) {
            let kept = rect(&delta, weight.as_ref(), keep).unwrap().dense();
            let relative = |i: usize, j: usize| (dense[(i, j)] / (weight[(i, j)] + 1e-8)).abs();
            let all = || (0..D).flat_map(|i| (0..F).map(move |j| (i, j)));
            let (stays, goes): (Vec<_>, Vec<_>) = all().partition(|&at| kept[at] != 0.0);
            prop_assert_eq!(stays.len(), D * F - dropped.saturating_sub(1));
            prop_assert!(stays.iter().all(|&at| (kept[at] - dense[at]).abs() < 1e-12));
            let least = stays.iter().map(|&(i, j)| relative(i, j)).fold(f64::INFINITY, f64::min);
            prop_assert!(goes.iter().all(|&(i, j)| relative(i, j) <= least * (1.0 + 1e-9)));
        }
    }

    #[test]
    fn rect_that_keeps_all_changes_nothing(left in matrix(D, 2), right in matrix(2, F), weight in matrix(D, F)) {
        let low = LowRank { left, right };
        let Delta::LowRank(kept) = rect(&Delta::LowRank(low.clone()), weight.as_ref(), 1.0).unwrap() else {
            return Err(TestCaseError::fail("another form"));
        };
        prop_assert!(kept.left == low.left && kept.right == low.right);
    }
}

#[test]
fn rect_gives_the_smaller_form() {
    let low =
        LowRank { left: Mat::from_fn(D, 1, |i, _| 1.0 + i as f64), right: Mat::from_fn(1, F, |_, j| 1.0 + j as f64) };
    let weight = Mat::from_fn(D, F, |_, _| 1.0);
    let of = |keep| rect(&Delta::LowRank(low.clone()), weight.as_ref(), keep).unwrap();
    assert!(matches!(of(0.4), Delta::Sparse(_)));
    assert!(matches!(of(0.7), Delta::Dense(_)));
    for wrong in [0.0, -1.0, 1.1, f64::NAN] {
        let error = rect(&Delta::LowRank(low.clone()), weight.as_ref(), wrong).unwrap_err();
        assert!(matches!(error, MathError::Parameter { name: "keep", .. }), "{error}");
    }
}

#[test]
fn entries_that_are_none_are_refused() {
    assert!(Sparse::new([2, 3], vec![0, 5], vec![1.0, 2.0]).is_ok());
    for (at, values) in [(vec![5, 0], vec![1.0; 2]), (vec![1, 1], vec![1.0; 2]), (vec![6], vec![1.0])] {
        assert!(matches!(Sparse::new([2, 3], at, values), Err(MathError::Entries(_))));
    }
    assert!(matches!(Sparse::new([usize::MAX, 2], Vec::new(), Vec::new()), Err(MathError::Entries(_))));
    assert!(matches!(Sparse::new([2, 3], vec![1], Vec::new()), Err(MathError::Dimension { .. })));
}

#[test]
fn a_factorisation_that_stops_tells_its_pivot() {
    // [[4, 2], [2, 1 − 3]]: the second pivot is −2 − 2²/4 = −3.
    let moment = SecondMoment::from_sum(&[4.0, 2.0, 2.0, -2.0], 2, 1).unwrap();
    let error = Factor::new(&moment, PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap_err();
    match error {
        MathError::NotPositiveDefinite { index: 1, pivot, .. } => assert!((pivot + 3.0).abs() < 1e-12, "{pivot}"),
        other => panic!("{other}"),
    }
    let moment = SecondMoment::from_sum(&[-1.0], 1, 1).unwrap();
    match Factor::new(&moment, PreservationWeights { lambda: 2.0, rho: 0.0 }).unwrap_err() {
        MathError::NotPositiveDefinite { index: 0, pivot, .. } => assert!((pivot + 2.0).abs() < 1e-12, "{pivot}"),
        other => panic!("{other}"),
    }
}
