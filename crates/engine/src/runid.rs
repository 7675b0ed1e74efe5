//! Names of runs: sortable by time, readable, different.

use std::time::{SystemTime, UNIX_EPOCH};

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
    let (days, rest) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days to a date of the proleptic Gregorian calendar, counted in years that begin in March so that a leap day comes last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
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
