//! Numbers as people read them.

pub use palinode::size;
pub use palinode_report::duration;

/// Time left, which nobody knows exactly.
pub fn left(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s left"),
        60..3600 => format!("{} min left", whole.div_ceil(60)),
        _ => format!("{} h {:02} min left", whole / 3600, whole % 3600 / 60),
    }
}

/// "3.2/s", "14/min" or "40 s each": whichever says something.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 100.0 => format!("{rate:.0}/s"),
        rate if rate >= 1.0 => format!("{rate:.1}/s"),
        rate if rate >= 0.1 => format!("{:.0}/min", rate * 60.0),
        rate if rate > 0.0 => format!("{} each", duration(1.0 / rate)),
        _ => String::new(),
    }
}

/// "57 GFLOP/s", "1.2 TFLOP/s": floating-point operations a second.
pub fn operations(per_second: f64) -> String {
    let (value, unit) = if per_second < 1e12 { (per_second / 1e9, "GFLOP/s") } else { (per_second / 1e12, "TFLOP/s") };
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// "3 min ago".
pub fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// "1 stage", "3 stages".
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check = |text: String, expect: &str| assert_eq!(text, expect);
        check(left(59.0), "59 s left");
        check(left(61.0), "2 min left");
        check(rate(1234.0), "1234/s");
        check(rate(3.24), "3.2/s");
        check(rate(0.5), "30/min");
        check(rate(0.025), "40 s each");
        check(rate(0.0), "");
        check(operations(5.72e10), "57 GFLOP/s");
        check(operations(7.9e14), "790 TFLOP/s");
        check(operations(1.25e12), "1.2 TFLOP/s");
        check(size(1023), "1023 B");
        check(size(1024 * 1024 - 1), "1.0 MiB");
        check(size(150 * 1024 * 1024), "150 MiB");
        check(ago(59), "just now");
        check(ago(7300), "2 h ago");
        check(count(1, "stage"), "1 stage");
    }
}
