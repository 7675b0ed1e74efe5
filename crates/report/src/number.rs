//! Numbers as people read them.

/// Decimals for all values of a column: as many as the largest of them needs for four digits, and more where others would lose theirs
/// ([`readable`]); shares, in percent, have one.
pub fn decimals(
    percent: bool,
    values: impl Iterator<Item = f64> + Clone,
    widths: impl Iterator<Item = f64> + Clone,
) -> usize {
    let finite = || values.clone().filter(|value| value.is_finite());
    if percent {
        return readable(1, true, finite(), widths);
    }
    let least = match finite().map(f64::abs).fold(0.0, f64::max) {
        _ if finite().all(|value| value.fract() == 0.0) => 0,
        most if most >= 1000.0 => 0,
        most if most >= 100.0 => 1,
        most if most >= 10.0 => 2,
        most if most >= 0.1 => 3,
        _ => 4,
    };
    readable(least, false, finite(), widths)
}

/// `least` decimals, or more where the smallest of these values would be left with fewer than three digits, or the narrowest interval or
/// deviation of these widths with fewer than two. A value that has fewer digits of its own asks for no more than these; a share in percent, only that what is
/// not 0 is not written as 0. What is next to nothing beside the largest value asks for none.
pub fn readable(
    least: usize,
    percent: bool,
    values: impl Iterator<Item = f64> + Clone,
    widths: impl Iterator<Item = f64>,
) -> usize {
    const MOST: i32 = 6;
    const MOST_OF_SHARES: i32 = 3;
    let sizes = || values.clone().map(f64::abs).filter(|size| size.is_finite() && *size > 0.0);
    let largest = sizes().fold(0.0, f64::max);
    // So many decimals show so many digits of a number.
    let digits = |size: f64, digits: i32| digits - 1 - size.log10().floor() as i32;
    if percent {
        let most = sizes().filter(|size| *size >= 1e-6).map(|size| digits(size * 100.0, 1)).max().unwrap_or(0);
        return least.max(most.clamp(0, MOST_OF_SHARES) as usize);
    }
    let own = |size: f64| size.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len() as i32);
    let of_values = sizes().filter(|size| *size >= 1e-6 * largest).map(|size| digits(size, 3).min(own(size)));
    let of_widths = widths.map(f64::abs).filter(|width| width.is_finite() && *width > 1e-4 * largest);
    let most = of_values.chain(of_widths.map(|width| digits(width, 2))).max().unwrap_or(0);
    least.max(most.clamp(0, MOST) as usize)
}

/// With so many decimals; shares in percent, without the sign. Values that would be a row of digits or of zeros are written
/// with a power of ten.
pub fn fixed(value: f64, percent: bool, decimals: usize) -> String {
    let value = if percent { value * 100.0 } else { value };
    let size = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    if !percent && (size >= 1e6 || (size > 0.0 && size < 0.5 * 10f64.powi(-(decimals as i32)))) {
        return short(value);
    }
    // A minus sign proper, as wide as a digit.
    format!("{value:.decimals$}").replace('-', "−")
}

/// In at most three digits or so: 0.25, 1500, 1.5·10⁶.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    if size == 0.0 || (1e-3..1e5).contains(&size) {
        // As short as the value allows, and no longer than four significant digits unless it is a whole number.
        let plain = format!("{value}");
        let digits = 3 - size.max(1e-3).log10().floor() as i32;
        let rounded = format!("{value:.*}", digits.clamp(0, 6) as usize);
        let text = if plain.len() <= rounded.len() || value.fract() == 0.0 { plain } else { trimmed(&rounded) };
        return text.replace('-', "−");
    }
    let power = size.log10().floor() as i32;
    let digits = trimmed(&format!("{:.2}", value / 10f64.powi(power)));
    let ten = ten(power);
    match digits.as_str() {
        "1" => ten,
        "-1" => format!("−{ten}"),
        _ => format!("{}·{ten}", digits.replace('-', "−")),
    }
}

/// A power of ten.
pub fn ten(power: i32) -> String {
    format!("10{}", superscript(power))
}

/// Without zeros at the end of decimals.
fn trimmed(text: &str) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
}

fn superscript(power: i32) -> String {
    let raised = |digit: char| match digit {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit.to_digit(10).unwrap_or(0)).unwrap_or(digit),
    };
    power.to_string().chars().map(raised).collect()
}

/// "40 ms", "9.4 s", "2 min 12 s", "1 h 03 min".
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0 if seconds < 0.095 => format!("{:.0} ms", (seconds * 1000.0).ceil()),
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// "1.5 MiB".
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" || value >= 9.95 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digits of a column are those that its smallest value and its narrowest interval need.
    #[test]
    fn columns() {
        let check = |values: &[f64], widths: &[f64], expect: usize| {
            assert_eq!(
                decimals(false, values.iter().copied(), widths.iter().copied()),
                expect,
                "{values:?} {widths:?}"
            );
        };
        check(&[35.601_234], &[], 2);
        check(&[8.123_456, 12_345.678], &[], 2);
        check(&[1.023_456, 15_000.25], &[], 2);
        check(&[0.001_234_56, 12.345_678], &[], 5);
        check(&[0.5, 12.345_678], &[], 2);
        check(&[3.0, 15_000.0], &[], 0);
        check(&[1234.567], &[0.4], 2);
        check(&[1234.567], &[1e-9], 0);
        check(&[1e-9, 12.345_678], &[], 2);
        check(&[1.5e-5, 1.25e-4], &[], 6);
        assert_eq!(decimals(true, [0.98].into_iter(), [].into_iter()), 1);
        assert_eq!(decimals(true, [0.98, 0.000_234].into_iter(), [].into_iter()), 2);
    }

    #[test]
    fn numbers() {
        let check = |text: String, expect: &str| assert_eq!(text, expect);
        check(short(0.0), "0");
        check(short(64.0), "64");
        check(short(15000.0), "15000");
        check(short(0.1 + 0.2), "0.3");
        check(short(-1.5), "−1.5");
        check(short(1_500_000.0), "1.5·10⁶");
        check(short(1e-4), "10⁻⁴");
        check(short(f64::NAN), "–");
        check(fixed(0.98438, true, 1), "98.4");
        check(fixed(-0.25, false, 2), "−0.25");
        check(fixed(3e-9, false, 4), "3·10⁻⁹");
        check(fixed(0.0, false, 4), "0.0000");
        check(duration(0.0391), "40 ms");
        check(duration(0.0999), "0.1 s");
        check(duration(9.44), "9.4 s");
        check(duration(59.6), "1 min 00 s");
        check(duration(132.0), "2 min 12 s");
        check(duration(3780.0), "1 h 03 min");
        check(size(1536), "1.5 KiB");
    }
}
