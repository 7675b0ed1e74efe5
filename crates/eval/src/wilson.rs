//! Intervals of shares.

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % score interval of a share of `n` trials (Wilson 1927, J. Am. Stat. Assoc. 22, 209): never a point, also where all trials agree.
/// Of a mean of `n` numbers between 0 and 1 that are no trials it is conservative: their variance is at most `share · (1 − share)`.
/// `None` without trials.
pub fn wilson(share: f64, n: usize) -> Option<[f64; 2]> {
    let n = if n == 0 { return None } else { n as f64 };
    let scale = 1.0 + Z * Z / n;
    let middle = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some([(middle - half).max(0.0), (middle + half).min(1.0)])
}
