//! Points in time as images have them: RFC 3339, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, to the second: `2026-11-28T03:00:00Z`.
#[must_use]
pub fn now() -> String {
    write(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()))
}

/// Seconds since 1970 as a date.
#[must_use]
pub fn write(seconds: u64) -> String {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

/// Seconds since 1970 of a date, without its fraction; none if it is no date, or before that.
#[must_use]
pub fn read(text: &str) -> Option<u64> {
    let number = |from: usize, length: usize| text.get(from..from + length)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || hour > 23 {
        return None;
    }
    let days = (1970..year).map(days_of_year).sum::<u64>()
        + (1..month).map(|month| days_of_month(year, month)).sum::<u64>()
        + day.checked_sub(1)?;
    let local = days * 86_400 + hour * 3600 + minute * 60 + second;
    let zone = text[19..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let Some((hours, minutes)) = zone.get(1..)?.split_once(':') else { return Some(local) };
    let offset = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
    if zone.starts_with('-') { local.checked_add(offset) } else { local.checked_sub(offset) }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::{read, write};

    #[test]
    fn dates_are_those_of_date_1() {
        // Each number is what `date -u -d TEXT +%s` says.
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2024-03-01T00:00:00Z", 1_709_251_200),
            ("2026-11-28T03:00:00Z", 1_795_834_800),
        ] {
            assert_eq!(read(text), Some(seconds), "{text}");
            assert_eq!(write(seconds), text);
        }
        assert_eq!(read("2024-03-01T01:30:00.123456789+01:30"), Some(1_709_251_200));
        assert_eq!(read("2024-02-29T19:00:00-05:00"), Some(1_709_251_200));
        for wrong in [
            "",
            "yesterday",
            "2024-13-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "2024-00-00T00:00:00Z",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
