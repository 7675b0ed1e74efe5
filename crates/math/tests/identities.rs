//! Identities of the objective, on random problems.

use faer::Scale;
use palinode_math::{
    Factor, Form, Mat, MathError, Objective, PreservationWeights, Problem, RefreshKind, RomeKey, SecondMoment,
    Solution, Strategy as Spread, solve,
};
use proptest::prelude::*;

const F: usize = 12;
const D: usize = 7;

/// A problem with a well-conditioned second moment.
#[derive(Clone, Debug)]
struct Case {
    moment: SecondMoment,
    keys: Mat<f64>,
    residual: Mat<f64>,
}

impl Case {
    fn batch(&self) -> usize {
        self.keys.ncols()
    }

    fn solve(&self, preservation: PreservationWeights, mu: &[f64], form: Form) -> Solution {
        let factor = Factor::new(&self.moment, preservation).unwrap();
        self.solve_with(&factor, mu, form)
    }

    fn solve_with(&self, factor: &Factor, mu: &[f64], form: Form) -> Solution {
        let problem = Problem { keys: self.keys.as_ref(), direction: None, residual: self.residual.as_ref(), mu, form };
        solve(factor, &problem).unwrap()
    }
}

fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Mat<f64>> {
    prop::collection::vec(-2.0..2.0f64, rows * columns)
        .prop_map(move |v| Mat::from_fn(rows, columns, |i, j| v[i * columns + j]))
}

fn case(batch: std::ops::Range<usize>) -> impl Strategy<Value = Case> {
    (prop::collection::vec(-2.0..2.0f32, 8 * F * F), batch).prop_flat_map(|(corpus, batch)| {
        (matrix(F, batch), matrix(D, batch)).prop_map(move |(keys, residual)| {
            let mut moment = SecondMoment::new(F);
            moment.add(&corpus).unwrap();
            Case { moment, keys, residual }
        })
    })
}

fn close(a: &Mat<f64>, b: &Mat<f64>, tolerance: f64) -> bool {
    (a - b).norm_l2() <= tolerance * (1.0 + b.norm_l2())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn memit_dual_equals_primal(case in case(1..20), lambda in 0.1..1e4f64, rho in 0.0..10.0f64) {
        let mu = vec![1.0; case.batch()];
        let preservation = PreservationWeights { lambda, rho };
        let dual = case.solve(preservation, &mu, Form::Dual).update.dense();
        let primal = case.solve(preservation, &mu, Form::Primal).update.dense();
        prop_assert!(close(&dual, &primal, 1e-8));
    }

    #[test]
    fn stabilised_emmet_is_memit_with_a_scaled_weight(case in case(2..10), lambda in 0.1..1e3f64, epsilon in 0.01..10.0f64) {
        let emmet = Objective::Emmet { epsilon };
        let mu = emmet.mu(&vec![None; case.batch()]).unwrap();
        let ours = case.solve(PreservationWeights { lambda, rho: 0.0 }, &mu, Form::Dual).update.dense();
        let scaled = PreservationWeights { lambda: emmet.effective_lambda(lambda).unwrap(), rho: 0.0 };
        let memit = case.solve(scaled, &vec![1.0; case.batch()], Form::Dual).update.dense();
        prop_assert!(close(&ours, &memit, 1e-9));
    }

    #[test]
    fn rome_is_emmet_for_one_edit(case in case(1..2), lambda in 0.1..1e3f64) {
        let preservation = PreservationWeights { lambda, rho: 0.0 };
        let rome = Objective::Rome { key: RomeKey::Average }.mu(&[None]).unwrap();
        let emmet = Objective::Emmet { epsilon: 0.1 }.mu(&[None]).unwrap();
        let a = case.solve(preservation, &rome, Form::Auto).update.dense();
        prop_assert!(close(&a, &case.solve(preservation, &emmet, Form::Auto).update.dense(), 0.0));
        // ROME's own formula: R (C⁻¹k)ᵀ / (kᵀC⁻¹k); λ cancels.
        let inverse = faer::linalg::solvers::Solve::solve(&case.moment.mean().llt(faer::Side::Lower).unwrap(), &case.keys);
        let denominator = (case.keys.transpose() * &inverse)[(0, 0)];
        prop_assert!(close(&a, &(&case.residual * inverse.transpose() * Scale(1.0 / denominator)), 1e-9));
    }

    #[test]
    fn equality_meets_its_constraints(case in case(1..F), lambda in 0.1..1e3f64, rho in 0.0..1.0f64) {
        let solution = case.solve(PreservationWeights { lambda, rho }, &vec![0.0; case.batch()], Form::Auto);
        prop_assume!(solution.diagnostics.condition < 1e8);
        prop_assert!(close(&solution.update.times(case.keys.as_ref()), &case.residual, 1e-6));
        prop_assert!(solution.diagnostics.error_after < 1e-5);
    }

    #[test]
    fn no_residual_no_update(mut case in case(1..8)) {
        case.residual = Mat::zeros(D, case.batch());
        let solution = case.solve(PreservationWeights { lambda: 3.0, rho: 0.0 }, &vec![1.0; case.batch()], Form::Auto);
        prop_assert_eq!(solution.update.dense().norm_l2(), 0.0);
        prop_assert_eq!(solution.diagnostics.preservation, 0.0);
    }

    #[test]
    fn order_of_edits_does_not_matter(case in case(2..10), strengths in prop::collection::vec(0.1..5.0f64, 10)) {
        let mu = &strengths[..case.batch()];
        let preservation = PreservationWeights { lambda: 2.0, rho: 0.0 };
        let straight = case.solve(preservation, mu, Form::Auto).update.dense();
        let n = case.batch();
        let reversed = Case {
            moment: case.moment.clone(),
            keys: Mat::from_fn(F, n, |i, j| case.keys[(i, n - 1 - j)]),
            residual: Mat::from_fn(D, n, |i, j| case.residual[(i, n - 1 - j)]),
        };
        let backwards: Vec<f64> = mu.iter().rev().copied().collect();
        prop_assert!(close(&straight, &reversed.solve(preservation, &backwards, Form::Auto).update.dense(), 1e-9));
    }

    #[test]
    fn strength_zero_is_hard_and_a_great_one_is_ignored(case in case(2..3)) {
        let solution = case.solve(PreservationWeights { lambda: 1.0, rho: 0.0 }, &[0.0, 1e12], Form::Auto);
        prop_assume!(solution.diagnostics.condition < 1e16);
        let error = solution.update.times(case.keys.as_ref()) - &case.residual;
        prop_assert!(error.col(0).norm_l2() < 1e-6);
        let alone = Case {
            keys: Mat::from_fn(F, 1, |i, _| case.keys[(i, 0)]),
            residual: Mat::from_fn(D, 1, |i, _| case.residual[(i, 0)]),
            ..case.clone()
        };
        let only = alone.solve(PreservationWeights { lambda: 1.0, rho: 0.0 }, &[0.0], Form::Auto);
        prop_assert!(close(&solution.update.dense(), &only.update.dense(), 1e-6));
    }

    #[test]
    fn diagnostics_agree_with_the_dense_update(case in case(1..20), lambda in 0.5..50.0f64, rho in 0.0..5.0f64) {
        let solution = case.solve(PreservationWeights { lambda, rho }, &vec![1.0; case.batch()], Form::Auto);
        let dense = solution.update.dense();
        let d = solution.diagnostics;
        let cost = &dense * case.moment.mean() * dense.transpose();
        let trace: f64 = (0..D).map(|i| cost[(i, i)]).sum();
        prop_assert!((d.preservation - trace).abs() <= 1e-8 * (1.0 + trace));
        prop_assert!((d.frobenius - dense.norm_l2()).abs() <= 1e-9 * (1.0 + d.frobenius));
        let spectral = dense.singular_values().unwrap()[0];
        prop_assert!((d.spectral - spectral).abs() <= 1e-6 * (1.0 + spectral));
        prop_assert_eq!(d.primal, case.batch() > F);
    }

    #[test]
    fn a_rescaled_factor_equals_a_fresh_one(case in case(1..6), lambda in 0.1..1e3f64) {
        let mu = vec![1.0; case.batch()];
        let factor = Factor::new(&case.moment, PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap().rescaled(lambda).unwrap();
        let fresh = case.solve(PreservationWeights { lambda, rho: 0.0 }, &mu, Form::Auto).update.dense();
        // The second time the projected keys are known; other keys do not pass for them.
        for _ in 0..2 {
            prop_assert!(close(&case.solve_with(&factor, &mu, Form::Auto).update.dense(), &fresh, 1e-10));
        }
        let twice = Mat::from_fn(F, case.batch(), |i, j| 2.0 * case.keys[(i, j)]);
        let problem =
            Problem { keys: twice.as_ref(), direction: None, residual: case.residual.as_ref(), mu: &mu, form: Form::Auto };
        let other = Factor::new(&case.moment, PreservationWeights { lambda, rho: 0.0 }).unwrap();
        let [known, new] = [&factor, &other].map(|factor| solve(factor, &problem).unwrap().update.dense());
        prop_assert!(close(&known, &new, 1e-10));
    }

    #[test]
    fn moments_of_parts_add(values in prop::collection::vec(-3.0..3.0f32, 40 * F), cut in 0..40usize) {
        let mut whole = SecondMoment::new(F);
        whole.add(&values).unwrap();
        let (mut a, mut b) = (SecondMoment::new(F), SecondMoment::new(F));
        a.add(&values[..cut * F]).unwrap();
        b.add(&values[cut * F..]).unwrap();
        a.merge(&b).unwrap();
        prop_assert_eq!(a.count(), 40);
        prop_assert!(close(&a.mean(), &whole.mean(), 1e-12));
        let again = SecondMoment::from_sum(&a.sum(), F, a.count()).unwrap();
        prop_assert_eq!(again.sum(), a.sum());
    }
}

#[test]
fn memit_distribution_takes_a_growing_share() {
    let plan = Spread::Memit.plan(&[3, 5, 8]).unwrap();
    assert_eq!(plan.target_layer, 8);
    let shares: Vec<_> = plan.steps.iter().map(|s| (s.layer, s.fraction)).collect();
    assert_eq!(shares, [(3, 1.0 / 3.0), (5, 0.5), (8, 1.0)]);
    let single = Spread::Single.plan(&[3, 5, 8]).unwrap();
    assert_eq!(single.steps.iter().map(|s| s.layer).collect::<Vec<_>>(), [8]);
}

#[test]
fn strategies_share_out_the_whole_residual() {
    let weights = Spread::Weights(vec![1.0, 3.0, 4.0]);
    for spread in [Spread::Single, Spread::Memit, Spread::Sqrt, Spread::Uniform, weights.clone()] {
        let plan = spread.plan(&[3, 5, 8]).unwrap();
        assert_eq!((plan.target_layer, plan.retargets()), (8, false));
        let left = plan.steps.iter().fold(1.0, |left, step| left * (1.0 - step.fraction));
        assert!(left == 0.0, "{spread:?} leaves {left}");
    }
    let fractions =
        |spread: Spread| spread.plan(&[3, 5, 8]).unwrap().steps.iter().map(|s| s.fraction).collect::<Vec<_>>();
    assert_eq!(fractions(weights), [1.0 / 8.0, 3.0 / 7.0, 1.0]);
    assert_eq!(fractions(Spread::Sqrt), [1.0 / 3f64.sqrt(), 1.0 / 2f64.sqrt(), 1.0]);
    // Equal weights are MEMIT; uniform is MEMIT with nothing measured again.
    let memit = Spread::Memit.plan(&[3, 5, 8]).unwrap();
    assert_eq!(Spread::Weights(vec![2.0; 3]).plan(&[3, 5, 8]).unwrap(), memit);
    assert_eq!(Spread::Uniform.plan(&[3, 5, 8]).unwrap().refreshing(RefreshKind::Both), memit);
    let boundary = Spread::Boundary.plan(&[3, 5, 8]).unwrap();
    assert_eq!((boundary.target_layer, boundary.retargets()), (3, true));
    assert_eq!(boundary.steps.iter().map(|s| (s.layer, s.fraction)).collect::<Vec<_>>(), [(3, 1.0), (8, 1.0)]);
    assert_eq!(boundary.clone().refreshing(RefreshKind::None).steps[1], boundary.steps[1]);
    for wrong in [Spread::Boundary.plan(&[3]), Spread::Weights(vec![1.0]).plan(&[3, 5]), Spread::Memit.plan(&[])] {
        assert!(matches!(wrong, Err(MathError::Layers(_))));
    }
    assert!(Spread::Weights(vec![1.0, 0.0]).plan(&[3, 5]).is_err());
}

#[test]
fn mistakes_are_named() {
    let mut few = SecondMoment::new(F);
    few.add(&[1.0; F]).unwrap();
    let error = Factor::new(&few, PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap_err();
    assert!(matches!(error, MathError::NotPositiveDefinite { size: F, tokens: 1, .. }), "{error}");
    assert!(error.hint().unwrap().contains("samples"));
    assert!(Factor::new(&few, PreservationWeights { lambda: 1.0, rho: 0.1 }).is_ok());

    let mut moment = SecondMoment::new(2);
    moment.add(&[1.0, 0.0, 0.0, 1.0]).unwrap();
    let factor = Factor::new(&moment, PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap();
    let keys = Mat::from_fn(2, 2, |i, _| if i == 0 { 1.0 } else { 2.0 });
    let residual = Mat::from_fn(3, 2, |i, j| (i + j) as f64);
    let problem = Problem {
        keys: keys.as_ref(),
        direction: None,
        residual: residual.as_ref(),
        mu: &[0.0, 0.0],
        form: Form::Auto,
    };
    match solve(&factor, &problem).unwrap_err() {
        MathError::Collision { pairs } => assert_eq!((pairs[0].0, pairs[0].1), (0, 1)),
        other => panic!("{other}"),
    }
    assert!(solve(&factor, &Problem { mu: &[1.0, 1.0], ..problem }).is_ok());
    assert!(matches!(
        Objective::Rome { key: RomeKey::Average }.mu(&[None, None]),
        Err(MathError::SingleOnly { batch: 2 })
    ));
    assert!(Spread::Memit.plan(&[]).is_err());
    assert!(Spread::Memit.plan(&[4, 2]).is_err());
    assert!(PreservationWeights { lambda: f64::NAN, rho: 0.0 }.lambda.is_nan());
    assert!(Factor::new(&moment, PreservationWeights { lambda: f64::NAN, rho: 0.0 }).is_err());
}
