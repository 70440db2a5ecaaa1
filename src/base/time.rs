//! The calendar (UTC, proleptic Gregorian) and the date that a build carries.

use std::time::{SystemTime, UNIX_EPOCH};

use super::error::{Error, Result};

const DAY: u64 = 86_400;

/// The last day that is written as a date, in the year 8965. A clock beyond it is wrong.
const LAST_DAY: u64 = 365 * 7000;

/// Returns the present time in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Formats seconds since 1970 for a message: `2026-08-10 23:30 UTC`.
pub fn readable(seconds: u64) -> String {
    if seconds / DAY > LAST_DAY {
        return format!("{seconds} seconds after 1970");
    }
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{} {hour:02}:{minute:02} UTC", SourceDate::new(seconds).dashed())
}

/// Formats an age in seconds with its largest unit: `40s ago`, `5min ago`, `2h ago`, `3d ago`.
pub fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}min ago", seconds / 60),
        3600..DAY => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / DAY),
    }
}

/// Formats seconds since 1970, cut to the minute, as Gentoo's release builds are named: `20260810T233000Z`. Times beyond four-digit
/// years sort after every build.
pub fn build_timestamp(seconds: u64) -> String {
    if seconds / DAY > LAST_DAY {
        return "99999999T999999Z".to_owned();
    }
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{}T{hour:02}{minute:02}00Z", SourceDate::new(seconds).compact())
}

/// Returns true for a build timestamp, `YYYYMMDDTHHMMSSZ`.
pub fn is_build_timestamp(text: &str) -> bool {
    // On bytes: a slice of the text could end inside a character.
    let form = b"00000000T000000Z";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form })
}

/// The time to which every time in an image is clamped, and that every document carries. See
/// <https://reproducible-builds.org/specs/source-date-epoch/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceDate {
    epoch: u64,
}

impl SourceDate {
    /// Chooses the date of a build: `source_date_epoch` (the value of `SOURCE_DATE_EPOCH`) if set, otherwise the beginning of
    /// the UTC day of `now`. The beginning of the day rather than the second, so that two builds of one day from the same
    /// inputs have the same bytes.
    ///
    /// # Errors
    /// [`Kind::Usage`](super::error::Kind::Usage) when the variable is not a number of seconds.
    pub fn of_build(source_date_epoch: Option<&str>, now: u64) -> Result<Self> {
        let Some(text) = source_date_epoch.filter(|text| !text.is_empty()) else {
            return Ok(Self::new(now - now % DAY));
        };
        let digits = text.len() <= 11 && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(epoch) if digits => Ok(Self::new(epoch)),
            _ => Err(Error::usage("SOURCE_DATE_EPOCH is not a number of seconds since 1970").with_hint(
                "set it to digits only, for example SOURCE_DATE_EPOCH=$(git log -1 --format=%ct), or unset it",
            )),
        }
    }

    /// Takes seconds since 1970.
    pub fn new(epoch: u64) -> Self {
        Self { epoch }
    }

    /// Seconds since 1970.
    pub fn epoch(self) -> u64 {
        self.epoch
    }

    /// Formats as `YYYY-MM-DD`.
    pub fn dashed(self) -> String {
        let (year, month, day) = civil((self.epoch / DAY) as i64);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// Formats as `YYYYMMDD`.
    pub fn compact(self) -> String {
        let (year, month, day) = civil((self.epoch / DAY) as i64);
        format!("{year:04}{month:02}{day:02}")
    }

    /// Formats as `YYYY-MM-DDTHH:MM:SSZ` (RFC 3339).
    pub fn rfc3339(self) -> String {
        let second = self.epoch % DAY;
        format!("{}T{:02}:{:02}:{:02}Z", self.dashed(), second / 3600, second / 60 % 60, second % 60)
    }
}

/// Returns the seconds since 1970 of a build's timestamp (`YYYYMMDDTHHMMSSZ`), `None` for anything else.
pub fn of_build_timestamp(text: &str) -> Option<u64> {
    if !is_build_timestamp(text) {
        return None;
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    // The number of days: http://howardhinnant.github.io/date_algorithms.html, days_from_civil.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = part(9, 11)? * 3600 + part(11, 13)? * 60 + part(13, 15)?;
    u64::try_from(days * 86_400 + seconds).ok()
}

/// Converts days since 1970-01-01, which may be negative, to year, month and day (Howard Hinnant, `civil_from_days`).
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months counted from March, so that the leap day is the last of the year.
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_days() {
        // Every expectation is the output of `date -u -d @EPOCH`.
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (epoch, text) in cases {
            assert_eq!(SourceDate::new(epoch).rfc3339(), text);
        }
        assert_eq!(SourceDate::new(1_709_251_199).compact(), "20240229");
    }

    #[test]
    fn formats_for_messages_and_build_names() {
        assert_eq!(readable(1_709_251_199), "2024-02-29 23:59 UTC");
        assert_eq!(readable(u64::MAX), "18446744073709551615 seconds after 1970");
        assert_eq!(build_timestamp(1_709_251_199), "20240229T235900Z");
        assert_eq!(build_timestamp(u64::MAX), "99999999T999999Z");
    }

    #[test]
    fn the_environment_wins_over_the_clock() {
        assert_eq!(SourceDate::of_build(Some("1700000000"), 1_800_000_000).unwrap().epoch(), 1_700_000_000);
        assert_eq!(SourceDate::of_build(None, 1_709_251_199).unwrap().rfc3339(), "2024-02-29T00:00:00Z");
        assert_eq!(SourceDate::of_build(Some(""), 5).unwrap().epoch(), 0);
        for wrong in ["x", "-1", "+1", "1.5", " 1", "999999999999999999999"] {
            assert_eq!(SourceDate::of_build(Some(wrong), 0).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn days_follow_each_other(day in -80_000i64..80_000) {
            let (year, month, date) = civil(day);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            let next = match (month, date) {
                (12, 31) => (year + 1, 1, 1),
                (_, last) if last == length => (year, month + 1, 1),
                _ => (year, month, date + 1),
            };
            prop_assert_eq!(civil(day + 1), next);
        }
    }
}
