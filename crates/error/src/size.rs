//! Sizes as people read them.

/// "1.5 GiB".
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", units[unit]) } else { format!("{value:.0} {}", units[unit]) }
}

/// A size as people write it: `50GiB`, `1.5 TB`, `800M`, `123456`. Units with an `i`, or of one letter, are powers of 1024.
pub fn read_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|char: char| !(char.is_ascii_digit() || char == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let (base, name) = match unit.strip_suffix('b').unwrap_or(&unit) {
        binary if binary.ends_with('i') && binary.len() > 1 => (1024.0, &binary[..binary.len() - 1]),
        decimal if unit.ends_with('b') => (1000.0, decimal),
        letter => (1024.0, letter),
    };
    // Who writes 50 means gigabytes or items, hardly bytes.
    if unit.is_empty() && number.chars().any(|char| char.is_ascii_digit() && char != '0') {
        return None;
    }
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == name)?;
    let bytes = number.parse::<f64>().ok()? * f64::powi(base, power as i32);
    (bytes.is_finite() && bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [(1023, "1023 B"), (1024 * 1024 - 1, "1.0 MiB"), (150 * 1024 * 1024, "150 MiB")] {
            assert_eq!(size(bytes), text);
        }
        for (text, bytes) in [
            ("50GiB", Some(50 << 30)),
            ("50 gib", Some(50 << 30)),
            ("50G", Some(50 << 30)),
            ("1.5GB", Some(1_500_000_000)),
            ("123456", None),
            ("50", None),
            ("0.0", Some(0)),
            ("123456B", Some(123_456)),
            ("12B", Some(12)),
            ("0", Some(0)),
            ("12i", None),
            ("", None),
            ("GiB", None),
            ("-1G", None),
            ("1PiB", None),
            ("1e30G", None),
            ("much", None),
        ] {
            assert_eq!(read_size(text), bytes, "{text}");
        }
    }
}
