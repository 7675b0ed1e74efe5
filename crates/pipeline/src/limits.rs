//! How long a stage may work, and how often it is tried.

use std::time::Duration;

/// What a pipeline says of a stage beside what it computes; in no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// How long one try may take.
    pub timeout: Option<Duration>,
}

/// The units of a duration, longest first, in seconds.
const UNITS: [(char, f64); 4] = [('d', 86_400.0), ('h', 3_600.0), ('m', 60.0), ('s', 1.0)];

/// Reads a duration such as `90s`, `30m`, `1.5h` or `1h30m`.
pub fn read_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text.trim();
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let end = rest.find(|char: char| !(char.is_ascii_digit() || char == '.'))?;
        let (number, after) = rest.split_at(end);
        let unit = after.chars().next()?;
        // Each unit at most once, in falling order, so that a slip such as `30m2h` is not a duration.
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * length;
        rest = after[unit.len_utf8()..].trim_start();
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

/// A duration as it is written in a pipeline.
pub fn written(duration: Duration) -> String {
    let mut left = duration.as_secs_f64();
    let mut text = String::new();
    for (unit, length) in UNITS {
        let count = if unit == 's' { left } else { (left / length).floor() };
        if count > 0.0 {
            text.push_str(&format!("{count}{unit}"));
            left -= count * length;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expect) in [
            ("90s", Some("1m30s")),
            ("30m", Some("30m")),
            ("2h", Some("2h")),
            ("1.5h", Some("1h30m")),
            ("1h 30m", Some("1h30m")),
            ("2d", Some("2d")),
            ("0.5s", Some("0.5s")),
            ("0s", None),
            ("", None),
            ("90", None),
            ("m", None),
            ("30 minutes", None),
            ("30m2h", None),
            ("1m1m", None),
            ("-1m", None),
            ("1e99h", None),
        ] {
            assert_eq!(read_duration(text).map(written).as_deref(), expect, "{text}");
        }
    }
}
