//! Days and instants in UTC as pure arithmetic, and which of them a build carries.
//!
//! A date crate would bring time zones and parsers for a problem of thirty lines.

use crate::error::{Error, Result};

const DAY: u64 = 86_400;

/// The instant that every time in an image is clamped to and every document carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    epoch: u64,
}

impl Moment {
    /// The instant of a build: `source_date_epoch` (the text of `SOURCE_DATE_EPOCH`) when given, else the beginning of the
    /// UTC day of `now`. The beginning of the day rather than the second, so that two builds of a day from the same inputs
    /// have the same bytes.
    pub fn of_build(source_date_epoch: Option<&str>, now: u64) -> Result<Self> {
        let Some(text) = source_date_epoch.filter(|text| !text.is_empty()) else {
            return Ok(Self::new(now - now % DAY));
        };
        let digits = !text.is_empty() && text.len() <= 11 && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(epoch) if digits => Ok(Self::new(epoch)),
            _ => Err(Error::usage("SOURCE_DATE_EPOCH is not a number of seconds since 1970").with_hint(
                "set it to digits only, for example SOURCE_DATE_EPOCH=$(git log -1 --format=%ct), or unset it",
            )),
        }
    }

    /// An instant, in seconds since 1970.
    pub fn new(epoch: u64) -> Self {
        Self { epoch }
    }

    /// Seconds since 1970.
    pub fn epoch(self) -> u64 {
        self.epoch
    }

    /// `YYYY-MM-DD`.
    pub fn dashed(self) -> String {
        let (year, month, day) = civil(self.epoch / DAY);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// `YYYYMMDD`.
    pub fn compact(self) -> String {
        let (year, month, day) = civil(self.epoch / DAY);
        format!("{year:04}{month:02}{day:02}")
    }

    /// `YYYY-MM-DDTHH:MM:SSZ`, as RFC 3339 has it.
    pub fn rfc3339(self) -> String {
        let second = self.epoch % DAY;
        format!("{}T{:02}:{:02}:{:02}Z", self.dashed(), second / 3600, second / 60 % 60, second % 60)
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`, for days not before 1970).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months counted from March, so that the leap day is the last of the year.
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
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
            assert_eq!(Moment::new(epoch).rfc3339(), text);
        }
        assert_eq!(Moment::new(1_709_251_199).compact(), "20240229");
    }

    #[test]
    fn the_environment_wins_over_the_clock() {
        assert_eq!(Moment::of_build(Some("1700000000"), 1_800_000_000).unwrap().epoch(), 1_700_000_000);
        assert_eq!(Moment::of_build(None, 1_709_251_199).unwrap().rfc3339(), "2024-02-29T00:00:00Z");
        assert_eq!(Moment::of_build(Some(""), 5).unwrap().epoch(), 0);
        for wrong in ["x", "-1", "+1", "1.5", " 1", "999999999999999999999"] {
            assert_eq!(Moment::of_build(Some(wrong), 0).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn days_follow_each_other(day in 0u64..80_000) {
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
