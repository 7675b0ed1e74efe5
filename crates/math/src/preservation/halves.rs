//! How far an update would be another on other text of the same kind.

use faer::MatRef;

use super::cholesky::Factor;
use super::metric::{Preservation as _, PreservationWeights};
use crate::{MathError, SecondMoment};

/// How far the directions of an update are from each other that two halves of the text give: the mean of `‖u₁ − u₂‖ / ‖u‖` over keys `K`
/// `[f, n]`, with `u = C⁻¹k / kᵀC⁻¹k`. `Δ = r uᵀ` is the change of least effect on the text that moves the output at `k` by `r`; `‖u‖` is the mean of
/// the two. None where the halves are not known, or one of them has no inverse.
///
/// Costs two factorisations, f³/3 each, and 2f² for each key.
///
/// # Errors
/// [`MathError::Dimension`] for keys of another size; [`MathError::NotFinite`].
pub fn difference_of_updates(moment: &SecondMoment, keys: MatRef<'_, f64>) -> Result<Option<f64>, MathError> {
    let directions = |half: Option<SecondMoment>| {
        let Some(half) = half.filter(|half| half.count() > 0) else { return Ok(None) };
        let weights = PreservationWeights { lambda: 1.0, rho: 0.0 };
        let projected = match Factor::new(&half, weights) {
            Ok(factor) => factor.project(keys)?,
            Err(MathError::NotPositiveDefinite { .. } | MathError::OutOfRange { .. }) => return Ok(None),
            Err(other) => return Err(other),
        };
        let mut directions = projected.keys;
        for at in 0..directions.ncols() {
            for i in 0..directions.nrows() {
                directions[(i, at)] /= projected.gram[(at, at)];
            }
        }
        Ok(Some(directions))
    };
    let Some(one) = directions(moment.even())? else { return Ok(None) };
    let Some(two) = directions(moment.odd())? else { return Ok(None) };
    let each = one.col_iter().zip(two.col_iter());
    let each = each.map(|(one, two)| 2.0 * (one - two).norm_l2() / (one.norm_l2() + two.norm_l2()));
    let mean = each.sum::<f64>() / one.ncols() as f64;
    Ok(mean.is_finite().then_some(mean))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_row_major;

    /// Halves that are the same give the same; of halves that are scaled copies the direction is the same too.
    #[test]
    fn only_what_differs_in_direction_counts() {
        let key = from_row_major("keys", &[1.0, 2.0], 2, 1).unwrap();
        let measured = |one: &[f32], two: &[f32]| {
            let mut moment = SecondMoment::new(2);
            moment.add(one).unwrap();
            moment.begin_odd();
            moment.add(two).unwrap();
            moment.end_odd();
            difference_of_updates(&moment, key.as_ref()).unwrap()
        };
        let text = [1.0, 0.0, 0.5, 2.0];
        assert!(measured(&text, &text).unwrap() < 1e-9);
        assert!(measured(&text, &text.map(|x| 3.0 * x)).unwrap() < 1e-9);
        assert_eq!(measured(&text, &[1.0, 1.0]), None, "one token spans one direction");
        // C₁ = diag(½, ½) and C₂ = diag(2, ½): u₁ = (1, 2)/5, u₂ = (½, 4)/(17/2).
        let expect = {
            let (a, b) = ([0.2, 0.4], [0.5 / 8.5, 4.0 / 8.5]);
            let norm = |x: [f64; 2]| f64::hypot(x[0], x[1]);
            2.0 * norm([a[0] - b[0], a[1] - b[1]]) / (norm(a) + norm(b))
        };
        let found = measured(&[1.0, 0.0, 0.0, 1.0], &[2.0, 0.0, 0.0, 1.0]).unwrap();
        assert!((found - expect).abs() < 1e-9, "{found} {expect}");
        let mut moment = SecondMoment::new(2);
        moment.add(&text).unwrap();
        assert_eq!(difference_of_updates(&moment, key.as_ref()).unwrap(), None, "one half is empty");
    }
}
