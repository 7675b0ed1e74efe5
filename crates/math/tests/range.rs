//! λ and ρ at the ends of what a number can be: said as what it is, not as dependent keys or a singular second moment.

use palinode_math::{Factor, Form, Mat, MathError, PreservationWeights, Problem, SecondMoment, solve};

fn moment() -> SecondMoment {
    let mut moment = SecondMoment::new(2);
    moment.add(&[1.0, 0.5, 0.0, 2.0, 1.0, -1.0]).unwrap();
    moment
}

fn edit(weights: PreservationWeights) -> Result<(), MathError> {
    let factor = Factor::new(&moment(), weights)?;
    let (keys, residual) = (Mat::from_fn(2, 1, |_, _| 3.0), Mat::from_fn(4, 1, |_, _| 1.0));
    let problem =
        Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu: &[0.0], form: Form::Auto };
    solve(&factor, &problem).map(drop)
}

#[test]
fn weights_out_of_range_are_named() {
    for (lambda, rho) in [(1e-308, 0.0), (1e-320, 0.0), (1e308, 1e308), (1e308, 0.0), (f64::MAX, 0.0)] {
        let found = edit(PreservationWeights { lambda, rho });
        let named = matches!(found, Err(MathError::OutOfRange { .. }));
        assert!(named || found.is_ok(), "{lambda:e}, {rho:e}: {found:?}");
    }
    for (lambda, rho) in [(1e-308, 0.0), (1e308, 1e308)] {
        let error = edit(PreservationWeights { lambda, rho }).unwrap_err();
        assert!(error.to_string().contains("λ or ρ is too large or too small"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("`lambda`")));
    }
    for lambda in [1e-100, 1.0, 1e100] {
        edit(PreservationWeights { lambda, rho: 0.0 }).unwrap();
    }
}
