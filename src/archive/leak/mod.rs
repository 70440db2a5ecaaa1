//! Finds the values of secrets in the files of a tree ([`Scan`]), and hides them in the output of a command ([`Mask`]).
//!
//! A value is found as it is, in hexadecimal digits, percent-encoded, in a JSON string, and in base64, also broken into lines of 64 or 76
//! characters. It is not found if it is compressed, encrypted or changed in another way. One line end after a value is not a part of it.

mod mask;
mod scan;
mod search;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

pub use self::mask::Mask;
pub use self::scan::{Found, Scan};
use crate::base::digest::hex;

/// The shortest value that is looked for in files, in bytes. Shorter ones are in many files by chance.
pub const SHORTEST: usize = 6;

/// The text in place of a value.
const MASK: &[u8] = b"***";

/// The lengths of the lines that programs break base64 into: those of PEM, and those of MIME and base64(1).
const BASE64_LINES: [usize; 2] = [64, 76];

/// A secret: its name and its value.
pub type Secret<'a> = (&'a str, &'a [u8]);

/// Returns a value without one line end.
pub fn trimmed(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

/// Returns a value as it is and in its encodings, without doubles.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let lower = hex(value);
    let mut forms = vec![value.to_vec(), lower.to_ascii_uppercase().into_bytes(), lower.into_bytes()];
    forms.extend([percent(value, b"0123456789ABCDEF"), percent(value, b"0123456789abcdef")]);
    if let Ok(text) = std::str::from_utf8(value) {
        let quoted = serde_json::Value::from(text).to_string();
        forms.push(quoted.as_bytes()[1..quoted.len() - 1].to_vec());
    }
    for before in 0..3 {
        // A character of base64 has six bits: those of the first and the last one may belong to bytes beside the value.
        let bytes = [&vec![0; before], value].concat();
        let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.push(encoded.as_bytes()[first..last].to_vec());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// Returns a value with all bytes but letters, digits and `-._~` as `%` and two digits (RFC 3986).
fn percent(value: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(*byte),
            _ => text.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    text
}

/// Returns the base64 of a value that is encoded alone, in one line and broken into lines.
fn base64_alone(value: &[u8]) -> Vec<Vec<u8>> {
    let whole = STANDARD.encode(value).into_bytes();
    let mut texts = vec![URL_SAFE.encode(value).into_bytes()];
    for length in BASE64_LINES.into_iter().filter(|length| *length < whole.len()) {
        texts.push(whole.chunks(length).collect::<Vec<_>>().join(&b'\n'));
    }
    texts.push(whole);
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_forms_that_other_programs_write() {
        let has = |value: &[u8], form: &str| {
            assert!(forms(value).contains(&form.as_bytes().to_vec()), "{form}: {:?}", forms(value));
        };
        for form in ["hunter2/\"?\"", "68756e746572322f223f22", "68756E746572322F223F22", "hunter2%2F%22%3F%22"] {
            has(b"hunter2/\"?\"", form);
        }
        has(b"hunter2/\"?\"", "hunter2/\\\"?\\\"");
        has(b"line\nline", "line\\nline");
        // Encoded by coreutils: printf hunter2-hunter2, and the same after one and two other bytes.
        for form in ["aHVudGVyMi1odW50ZXIy", "h1bnRlcjItaHVudGVyM", "odW50ZXIyLWh1bnRlcj"] {
            has(b"hunter2-hunter2", form);
        }
        assert_eq!(trimmed(b"a\r\n"), b"a");
        assert_eq!(trimmed(b"a\n\n"), b"a\n");
    }
}
