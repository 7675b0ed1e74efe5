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

/// The 95 % interval of a share: Wilson's where it is the mean of `each`, all of which succeed (1) or fail (0), and where `drawn`, the interval of a
/// bootstrap, is a point because all agree; else `drawn`. `None` where nothing was drawn: no interval is wanted.
pub fn share_interval(each: &[f64], share: f64, drawn: Option<[f64; 2]>) -> Option<[f64; 2]> {
    let [low, high] = drawn?;
    let trials = each.iter().all(|value| *value == 0.0 || *value == 1.0);
    let mean = each.iter().sum::<f64>() / each.len() as f64;
    if low == high || trials && (mean - share).abs() < 1e-12 { wilson(share, each.len()) } else { drawn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_share_is_without_doubt() {
        let drawn = Some([0.0, 0.0]);
        assert_eq!(share_interval(&[0.0; 10], 0.0, drawn), wilson(0.0, 10));
        assert!(share_interval(&[0.0; 10], 0.0, drawn).unwrap()[1] > 0.25);
        assert_eq!(share_interval(&[0.0, 1.0], 0.5, Some([0.0, 1.0])), wilson(0.5, 2));
        // A mean of shares, and what is no mean of single successes, such as F1.
        assert_eq!(share_interval(&[0.5, 1.0], 0.75, Some([0.5, 1.0])), Some([0.5, 1.0]));
        assert_eq!(share_interval(&[0.0, 1.0], 0.4, Some([0.1, 0.6])), Some([0.1, 0.6]));
        assert_eq!(share_interval(&[1.0], 1.0, None), None);
    }
}
