//! How far an update would be another on other text of the same kind.

use faer::{Mat, MatRef};

use super::cholesky::Factor;
use super::metric::{Preservation as _, PreservationWeights};
use crate::matrix::check_size;
use crate::{MathError, SecondMoment};

/// How far the directions of an update are from each other that two halves of the text give: the mean of `‖u₁ − u₂‖ / ‖u‖` over keys `K`
/// `[f, n]`, with `u = C⁻¹k / kᵀC⁻¹k`. `Δ = r uᵀ` is the change of least effect on the text that moves the output at `k` by `r`; `‖u‖` is the mean of
/// the two. None where the halves are not known, or one of them has no inverse.
///
/// Of keys of several parts, `C` is a block for each, and only the parts that a key uses count for it. A key that uses a part of which a half has
/// no inverse is left out; None where all of them are.
///
/// Costs two factorisations, f³/3 each, and 2f² for each key.
///
/// # Errors
/// [`MathError::Dimension`] for keys of another size; [`MathError::NotFinite`].
pub fn difference_of_updates(moment: &SecondMoment, keys: MatRef<'_, f64>) -> Result<Option<f64>, MathError> {
    check_size("key size", keys.nrows(), moment.size())?;
    let [Some(one), Some(two)] = [false, true].map(|odd| Directions::of(moment, odd, keys)) else { return Ok(None) };
    let (one, two) = (one?, two?);
    let each = (0..keys.ncols()).filter(|&at| one.is_whole[at] && two.is_whole[at]).map(|at| {
        let (one, two) = (one.all.col(at), two.all.col(at));
        2.0 * (one - two).norm_l2() / (one.norm_l2() + two.norm_l2())
    });
    let (sum, count) = each.fold((0.0, 0_u32), |(sum, count), one| (sum + one, count + 1));
    let mean = sum / f64::from(count);
    Ok(mean.is_finite().then_some(mean))
}

/// The directions of an update at some keys that a half gives.
struct Directions {
    /// `[f, n]`.
    all: Mat<f64>,
    /// Whether the half has an inverse of all parts that the key uses.
    is_whole: Vec<bool>,
}

impl Directions {
    /// `None` where there is no such half. The parts are taken one after the other: what they need together is too much of a wide key.
    fn of(moment: &SecondMoment, odd: bool, keys: MatRef<'_, f64>) -> Option<Result<Self, MathError>> {
        let all = moment.odd_count().filter(|odd| *odd <= moment.count())?;
        let tokens = if odd { all } else { moment.count() - all };
        (tokens > 0).then(|| Self::of_half(moment, odd, keys))
    }

    fn of_half(moment: &SecondMoment, odd: bool, keys: MatRef<'_, f64>) -> Result<Self, MathError> {
        let mut found = Self { all: Mat::zeros(keys.nrows(), keys.ncols()), is_whole: vec![true; keys.ncols()] };
        let mut forms = vec![0.0; keys.ncols()];
        for (part, range) in moment.ranges().enumerate() {
            let own = keys.subrows(range.start, range.len());
            let users: Vec<usize> = (0..keys.ncols()).filter(|&at| own.col(at).norm_max() > 0.0).collect();
            if users.is_empty() {
                continue;
            }
            let Some(factor) = factor_of_half(moment, part, odd)? else {
                for &at in &users {
                    found.is_whole[at] = false;
                }
                continue;
            };
            let projected = factor.project(own)?;
            found.all.as_mut().subrows_mut(range.start, range.len()).copy_from(&projected.keys);
            for &at in &users {
                forms[at] += projected.gram[(at, at)];
            }
        }
        for (at, form) in forms.into_iter().enumerate() {
            found.is_whole[at] &= form > 0.0;
            (0..keys.nrows()).for_each(|i| found.all[(i, at)] /= form);
        }
        Ok(found)
    }
}

/// The factor of a part of a half, where it has one.
fn factor_of_half(moment: &SecondMoment, part: usize, odd: bool) -> Result<Option<Factor>, MathError> {
    let Some(half) = moment.half_of(part, odd) else { return Ok(None) };
    match Factor::new(&half, PreservationWeights { lambda: 1.0, rho: 0.0 }) {
        Ok(factor) => Ok(Some(factor)),
        Err(MathError::NotPositiveDefinite { .. } | MathError::OutOfRange { .. }) => Ok(None),
        Err(other) => Err(other),
    }
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
