//! Points in time as images have them: RFC 3339, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use humantime::{format_rfc3339_seconds, parse_rfc3339_weak};

/// Now, to the second: `2026-11-28T03:00:00Z`.
#[must_use]
pub fn now() -> String {
    format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Seconds since 1970 of a date, without its fraction; none if it is no date, or before that.
#[must_use]
pub fn read(text: &str) -> Option<u64> {
    let local = parse_rfc3339_weak(text.get(..19)?).ok()?;
    let local = local.duration_since(UNIX_EPOCH).ok()?.as_secs();
    // humantime reads UTC only; others may write how far they are from it.
    let zone = text[19..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let Some((hours, minutes)) = zone.get(1..)?.split_once(':') else { return Some(local) };
    let offset = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
    if zone.starts_with('-') { local.checked_add(offset) } else { local.checked_sub(offset) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use humantime::format_rfc3339_seconds;

    use super::read;

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
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(format_rfc3339_seconds(time).to_string(), text);
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
