//! Checks of the fields of a lock file. People merge and edit it, so each value is checked where it is read.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::base::digest::{Blake2b, Sha256, Sha512};
use crate::base::time::is_build_timestamp;
use crate::verify::MAX_FILE;

fn checked<'de, D: Deserializer<'de>>(deserializer: D, what: &str, fits: fn(&str) -> bool) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if fits(&text) { Ok(text) } else { Err(D::Error::custom(format!("expected {what}"))) }
}

fn lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, "a line of text", |text| text.len() <= 1000 && !text.chars().any(char::is_control))
}

pub(super) fn some_line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    line(deserializer).map(Some)
}

pub(super) fn file_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, "the name of a file", |text| {
        let fit = |char: char| !char.is_control() && char != '/';
        !text.is_empty() && text.len() <= 200 && !text.starts_with('.') && text.chars().all(fit)
    })
}

pub(super) fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let url = checked(deserializer, "an address that begins with http:// or https://", |text| {
        let schemes = ["https://", "http://"];
        text.len() <= 2000 && schemes.iter().any(|s| text.starts_with(s)) && text.bytes().all(|b| b.is_ascii_graphic())
    });
    url.map(Some)
}

pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(deserializer)?;
    if (1..=MAX_FILE).contains(&size) { Ok(size) } else { Err(D::Error::custom("no stage3 has this size")) }
}

pub(super) fn sha512<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha512, D::Error> {
    let text = checked(deserializer, "128 lower-case hex digits", lower_hex)?;
    Sha512::parse(&text).ok_or_else(|| D::Error::custom("expected 128 lower-case hex digits"))
}

pub(super) fn blake2b<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Blake2b>, D::Error> {
    let text = checked(deserializer, "128 lower-case hex digits", lower_hex)?;
    Blake2b::parse(&text).map(Some).ok_or_else(|| D::Error::custom("expected 128 lower-case hex digits"))
}

pub(super) fn sha256<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha256>, D::Error> {
    let text = checked(deserializer, "64 lower-case hex digits", lower_hex)?;
    Sha256::parse(&text).map(Some).ok_or_else(|| D::Error::custom("expected 64 lower-case hex digits"))
}

pub(super) fn commit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let fits = |text: &str| matches!(text.len(), 40 | 64) && lower_hex(text);
    checked(deserializer, "a commit of 40 or 64 lower-case hex digits", fits)
}

pub(super) fn some_commit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    commit(deserializer).map(Some)
}

pub(super) fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, "a timestamp, YYYYMMDDTHHMMSSZ", is_build_timestamp).map(Some)
}

pub(super) fn fingerprint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let fingerprint = checked(deserializer, "a fingerprint of 40 or 64 upper-case hex digits", |text| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
    });
    fingerprint.map(Some)
}
