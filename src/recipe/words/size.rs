//! Sizes, counts and ages.

use super::{Checked, digits};
use crate::recipe::diagnostic::Problem;

/// The longest age, in seconds: a hundred years.
const MAX_AGE: u64 = 100 * 366 * 86_400;

/// Parses an age into seconds: days, or a number with the unit `h`, `d` or `w`.
pub(in crate::recipe) fn age(text: &str) -> Checked<u64> {
    let help = "write days, for example 14, or \"36h\", \"14d\", \"4w\"";
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        Some((at, 'w')) => (&text[..at], 7 * 86_400),
        _ => (text, 86_400),
    };
    let number = digits(number).then(|| number.parse::<u64>().ok()).flatten();
    match number.and_then(|number| number.checked_mul(unit)) {
        Some(0) => Err(Problem::new("an age must be greater than 0").help(help)),
        Some(seconds) if seconds <= MAX_AGE => Ok(seconds),
        Some(_) => Err(Problem::new("more than a hundred years").help(help)),
        None => Err(Problem::new("not an age").help(help)),
    }
}

/// Parses a duration into seconds: a number with the unit `s`, `m`, `h`, `d` or `w`.
pub(in crate::recipe) fn duration(text: &str) -> Checked<u64> {
    let help = "write a number with a unit, for example \"30s\", \"10m\", \"2h\", \"7d\" or \"4w\"";
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        _ => return Err(Problem::new("not a duration").help(help)),
    };
    let number = &text[..text.len() - 1];
    let number = digits(number).then(|| number.parse::<u64>().ok()).flatten();
    match number.and_then(|number| number.checked_mul(unit)) {
        Some(0) => Err(Problem::new("a duration must be greater than 0").help(help)),
        Some(seconds) if seconds <= MAX_AGE => Ok(seconds),
        Some(_) => Err(Problem::new("more than a hundred years").help(help)),
        None => Err(Problem::new("not a duration").help(help)),
    }
}

/// Parses a number of bytes: a plain number, or one with the unit `K`, `M`, `G` or `T` (powers of 1024). The unit may also be
/// written as in `20 GiB`.
pub(in crate::recipe) fn bytes(text: &str) -> Option<u64> {
    let text = text.strip_suffix("iB").filter(|rest| rest.ends_with(char::is_alphabetic)).unwrap_or(text);
    let (number, unit) = match text.char_indices().last()? {
        (at, 'K' | 'k') => (&text[..at], 1 << 10),
        (at, 'M' | 'm') => (&text[..at], 1 << 20),
        (at, 'G' | 'g') => (&text[..at], 1 << 30),
        (at, 'T' | 't') => (&text[..at], 1 << 40),
        _ => (text, 1_u64),
    };
    let number = if unit > 1 { number.strip_suffix(' ').unwrap_or(number) } else { number };
    let number = digits(number).then(|| number.parse::<u64>().ok()).flatten();
    number.and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes <= i64::MAX as u64)
}

/// Parses a limit on a size.
pub(in crate::recipe) fn max_bytes(text: &str) -> Checked<u64> {
    let help = "write bytes, or for example \"20 GiB\"";
    match bytes(text) {
        Some(0) => Err(Problem::new("a size must be greater than 0").help(help)),
        Some(bytes) => Ok(bytes),
        None if text.ends_with('B') => Err(Problem::new("not a size").help("GB has two meanings: write GiB")),
        None => Err(Problem::new("not a size").help(help)),
    }
}

/// Parses a limit on the number of entries.
pub(in crate::recipe) fn max_entries(text: &str) -> Checked<u64> {
    match digits(text).then(|| text.parse::<u64>().ok()).flatten() {
        Some(number) if (1..=i64::MAX as u64).contains(&number) => Ok(number),
        _ => Err(Problem::new("not a number of entries").help("write 1 or more")),
    }
}

/// Parses `tmpfs:<size>` into the size in bytes, and `disk` into `None`.
pub(in crate::recipe) fn storage(text: &str) -> Checked<Option<u64>> {
    let help = "write \"disk\", or a size such as \"tmpfs:4G\"";
    if text == "disk" {
        return Ok(None);
    }
    let Some(size) = text.strip_prefix("tmpfs:") else {
        return Err(Problem::new("not disk or tmpfs:<size>").help(help));
    };
    match bytes(size) {
        Some(bytes) if bytes >= 1 << 20 => Ok(Some(bytes)),
        Some(_) => Err(Problem::new("less than 1 MiB").help(help)),
        None => Err(Problem::new("not a size").help(help)),
    }
}
