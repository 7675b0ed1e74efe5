//! Names of runs: sortable by time, readable, different.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::utc;

/// A new name, such as `20260131-235959-1f3a`, in UTC.
pub fn new() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mark = (now.subsec_nanos() >> 4) ^ std::process::id();
    format!("{}-{:04x}", stamp(now.as_secs()), mark & 0xffff)
}

/// `YYYY-MM-DD HH:MM` in UTC for a number of milliseconds since 1970.
pub fn utc(milliseconds: u64) -> String {
    let stamp = stamp(milliseconds / 1000);
    let (date, time) = stamp.split_once('-').unwrap_or((&stamp, ""));
    let part = |text: &str, from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    let year = date.len().saturating_sub(4);
    let day = [part(date, 0, year), part(date, year, year + 2), part(date, year + 2, year + 4)].join("-");
    format!("{day} {}:{}", part(time, 0, 2), part(time, 2, 4))
}

/// `YYYYMMDD-HHMMSS` in UTC for a number of seconds since 1970.
fn stamp(seconds: u64) -> String {
    utc(seconds).replace(['-', ':'], "").replace(' ', "-")
}

#[cfg(test)]
mod tests {
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
        assert_eq!(super::utc(951_782_399_999), "2000-02-28 23:59");
    }
}
