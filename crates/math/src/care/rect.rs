//! RECT: a change's largest entries relative to the weight, and no others (arXiv 2401.04700).

use faer::MatRef;

use crate::{Delta, MathError, Sparse};

/// Added to the signed weight before it divides, as in the published code.
const EPSILON: f64 = 1e-8;

/// Keeps the share `keep` of a change's entries that is largest relative to the weight `[out, in]` as it was before the change.
///
/// With `T = |Δ / (W + 1e-8)|` entry by entry, `n` entries, and `t` the `k`-th smallest of `T`, `k = ⌊(1 − keep) n⌋`: entries with `T ≥ t`
/// are kept, `n − k + 1` of them where no two are equal. With `k = 0` nothing changes. What is kept comes back as its entries where that
/// takes less room than all of them, zeros included.
///
/// # Errors
/// [`MathError::Parameter`] for a share that is not above 0 and at most 1; [`MathError::Dimension`].
pub fn rect(change: &Delta, weight: MatRef<'_, f64>, keep: f64) -> Result<Delta, MathError> {
    if !(keep > 0.0 && keep <= 1.0) {
        return Err(MathError::Parameter { name: "keep", value: keep, expected: "above 0, and 1 at most" });
    }
    let [rows, columns] = [weight.nrows(), weight.ncols()];
    change.check_shape([rows, columns])?;
    let dropped = ((1.0 - keep) * (rows * columns) as f64) as usize;
    if dropped == 0 {
        return Ok(change.clone());
    }
    let dense = change.dense();
    // An entry that does not change is the smallest, whatever the weight.
    let relative = |i: usize, j: usize| match dense[(i, j)] {
        0.0 => 0.0,
        value => (value / (weight[(i, j)] + EPSILON)).abs(),
    };
    let shares: Vec<f64> =
        (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| relative(i, j)).collect();
    let mut order = shares.clone();
    let (_, threshold, _) = order.select_nth_unstable_by(dropped - 1, f64::total_cmp);
    let threshold = *threshold;
    let kept = Delta::Sparse(Sparse::of(dense.as_ref(), |at| shares[at] >= threshold));
    Ok(if kept.numbers() <= rows * columns { kept } else { Delta::Dense(kept.dense()) })
}
