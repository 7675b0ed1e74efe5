//! Names of runs: sortable by time, readable, different.

use std::time::{SystemTime, UNIX_EPOCH};

use palinode_error::utc;

/// A new name, such as `20260131-235959-1f3a`, in UTC; the last part counts 65,536ths of a second, so that names are in the
/// order of time. One store is run by one process at a time.
pub fn new() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let part = u64::from(now.subsec_nanos()) * 0x1_0000 / 1_000_000_000;
    format!("{}-{part:04x}", stamp(now.as_secs()))
}

/// Whether this could be the name of a run.
pub fn is_one(name: &str) -> bool {
    let digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = name.split('-');
    let [day, time, part] = [parts.next(), parts.next(), parts.next()].map(Option::unwrap_or_default);
    let part = part.len() == 4 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits(day, 8) && digits(time, 6) && part && parts.next().is_none()
}

/// `YYYYMMDD-HHMMSS` in UTC for a number of seconds since 1970.
fn stamp(seconds: u64) -> String {
    utc(seconds).replace(['-', ':'], "").replace(' ', "-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names() {
        assert!(super::is_one(&super::new()));
        for other in
            ["zzz", "", "20260131-235959", "20260131-235959-1F3A", "20260131-235959-1f3a-2", "../20260131-235959-1f3a"]
        {
            assert!(!super::is_one(other), "{other}");
        }
    }

    #[test]
    fn stamps() {
        for (seconds, expect) in [
            (0, "19700101-000000"),
            (951_782_399, "20000228-235959"),
            (951_782_400, "20000229-000000"),
            (1_790_899_201, "20261002-000001"),
        ] {
            assert_eq!(super::stamp(seconds), expect);
        }
    }
}
