//! An update without some of its edits is the update of a solve without them: for every objective, metric and form.

use std::sync::Arc;

use palinode_math::{
    Factor, Form, History, Mat, Preservation, PreservationWeights, Problem, Projector, Ridge, SecondMoment, Solution,
    Spectrum, System, Threshold, solve, without,
};
use proptest::prelude::*;

/// Sizes of keys and values.
const F: usize = 12;
const D: usize = 7;

fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Mat<f64>> {
    prop::collection::vec(-2.0..2.0f64, rows * columns)
        .prop_map(move |values| Mat::from_fn(rows, columns, |i, j| values[i * columns + j]))
}

fn moment() -> impl Strategy<Value = SecondMoment> {
    prop::collection::vec(-2.0..2.0f32, 8 * F * F).prop_map(|corpus| {
        let mut moment = SecondMoment::new(F);
        moment.add(&corpus).unwrap();
        moment
    })
}

/// Every kind of metric.
fn metrics(moment: &SecondMoment, earlier: &Mat<f64>) -> Vec<Arc<dyn Preservation>> {
    let weights = PreservationWeights { lambda: 3.0, rho: 0.1 };
    let factor = Factor::new(moment, weights).unwrap();
    let mut history = History::new(Arc::new(factor.clone()), 1.0).unwrap();
    history.remember(earlier.as_ref()).unwrap();
    let spectrum = Spectrum::of(moment).unwrap();
    vec![
        Arc::new(factor),
        Arc::new(history),
        Arc::new(Ridge::new(F, weights).unwrap()),
        Arc::new(Projector::new(&spectrum, Threshold::Dimensions(0.9), weights).unwrap()),
    ]
}

fn columns(of: &Mat<f64>, which: &[usize]) -> Mat<f64> {
    Mat::from_fn(of.nrows(), which.len(), |i, j| of[(i, which[j])])
}

fn solved(metric: &dyn Preservation, keys: &Mat<f64>, residual: &Mat<f64>, mu: &[f64], form: Form) -> Option<Solution> {
    let problem = Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu, form };
    solve(metric, &problem).ok()
}

/// Compares for the edits `gone`, of which those that stay have the strengths `is`.
fn check(
    metric: &dyn Preservation,
    (keys, residual): (&Mat<f64>, &Mat<f64>),
    gone: &[usize],
    (was, is): (&[f64], &[f64]),
    form: Form,
) {
    let stay: Vec<usize> = (0..keys.ncols()).filter(|i| !gone.contains(i)).collect();
    let Some(whole) = solved(metric, keys, residual, was, form) else { return };
    let strengths: Vec<f64> = stay.iter().map(|&i| is[i]).collect();
    let Some(alone) = solved(metric, &columns(keys, &stay), &columns(residual, &stay), &strengths, form) else {
        return;
    };
    // What two solves agree in is bounded by their systems.
    if whole.diagnostics.condition.max(alone.diagnostics.condition) > 1e6 {
        return;
    }
    let (rest, system) = without(&whole.update, &whole.system, gone, was, is).unwrap();
    let (found, expected) = (rest.dense(), alone.update.dense());
    let far = (&found - &expected).norm_l2() / expected.norm_l2();
    assert!(far < 1e-9, "{far:e}");
    assert_eq!(system.edits(), stay.len());
    // One after the other is both at once.
    if let [first, second] = gone
        && is == was
    {
        let (one, system) = without(&whole.update, &whole.system, &[*first], was, is).unwrap();
        let place = if second > first { second - 1 } else { *second };
        let left: Vec<f64> = (0..was.len()).filter(|i| i != first).map(|i| was[i]).collect();
        let (both, _) = without(&one, &system, &[place], &left, &left).unwrap();
        assert!((both.dense() - &found).norm_l2() <= 1e-9 * found.norm_l2());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn is_a_solve_without_them(
        moment in moment(), earlier in matrix(F, 3), keys in matrix(F, 5), residual in matrix(D, 5),
        first in 0..5usize, second in 0..5usize,
    ) {
        let all = (&keys, &residual);
        for metric in metrics(&moment, &earlier) {
            let metric = metric.as_ref();
            for mu in [[1.0; 5], [0.0; 5], [0.1; 5], [0.0, 1.0, 0.0, 3.0, 0.5]] {
                check(metric, all, &[first], (&mu, &mu), Form::Dual);
                if first != second {
                    check(metric, all, &[first, second], (&mu, &mu), Form::Dual);
                }
                if mu.iter().all(|m| *m > 0.0) {
                    check(metric, all, &[first], (&mu, &mu), Form::Primal);
                }
            }
            // EMMET's stabiliser, which an edit by itself does not have.
            let others: Vec<usize> = (0..5).filter(|i| *i != first).collect();
            check(metric, all, &others, (&[0.1; 5], &[0.0; 5]), Form::Dual);
        }
    }

    #[test]
    fn of_more_edits_than_a_key_has_numbers(moment in moment(), keys in matrix(F, 20), residual in matrix(D, 20), gone in 0..19usize) {
        let metric = Factor::new(&moment, PreservationWeights { lambda: 3.0, rho: 0.0 }).unwrap();
        check(&metric, (&keys, &residual), &[gone, gone + 1], (&[1.0; 20], &[1.0; 20]), Form::Auto);
    }
}

#[test]
fn without_all_of_them_nothing_is_left() {
    let metric = Ridge::new(F, PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap();
    let keys = Mat::from_fn(F, 2, |i, j| (i + 3 * j) as f64);
    let residual = Mat::from_fn(D, 2, |i, j| (i + j) as f64);
    let solution = solved(&metric, &keys, &residual, &[1.0; 2], Form::Auto).unwrap();
    let (rest, _) = without(&solution.update, &solution.system, &[0, 1], &[1.0; 2], &[1.0; 2]).unwrap();
    assert_eq!((rest.left.ncols(), rest.right.nrows()), (0, 0));
    assert!(without(&solution.update, &solution.system, &[0], &[1.0], &[1.0]).is_err());
    // Systems of other sizes.
    for system in [System::Dual(Mat::zeros(1, 2)), System::Primal(Mat::zeros(F + 1, 2)), System::Dual(Mat::zeros(3, 3))]
    {
        assert!(without(&solution.update, &system, &[0], &[1.0; 2], &[1.0; 2]).is_err());
    }
}
