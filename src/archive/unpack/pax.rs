//! Records of PAX extended headers. Pure.
//!
//! The iterator of the `tar` crate splits records at newlines, which values of extended attributes may contain. This parser uses
//! the lengths of the records, as POSIX requires.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::entry::{MAX_NAME, Time, Xattrs};
use super::sparse;
use crate::base::refusal::{Code, Reason};

/// Largest value of an extended attribute on Linux.
const MAX_XATTR: usize = 64 << 10;
/// Longest list of attribute names on Linux, with a NUL after each name.
const MAX_XATTR_LIST: usize = 64 << 10;

/// The records of one extended header.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Pax {
    /// `path`
    pub path: Option<Vec<u8>>,
    /// `linkpath`
    pub linkpath: Option<Vec<u8>>,
    /// `size`
    pub size: Option<u64>,
    /// `uid`
    pub uid: Option<u64>,
    /// `gid`
    pub gid: Option<u64>,
    /// `mtime`
    pub mtime: Option<Time>,
    /// `SCHILY.acl.access`, text.
    pub acl_access: Option<Vec<u8>>,
    /// `SCHILY.acl.default`, text.
    pub acl_default: Option<Vec<u8>>,
    /// Properties that have no counterpart on Linux or are never restored, for a warning.
    pub dropped: BTreeSet<&'static str>,
    /// `GNU.sparse.*`
    pub sparse: sparse::Records,
    /// Set if there is a record `SCHILY.devmajor` or `SCHILY.devminor`.
    pub device_numbers: bool,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    encoded_xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Pax {
    /// Parses the records of a header. A global header must not contain records that change an entry: some programs apply them to
    /// all following entries and some ignore them.
    pub fn parse(mut data: &[u8], global: bool) -> Result<Self, Reason> {
        let mut pax = Self::default();
        while !data.is_empty() {
            let (key, value, rest) =
                record(data).ok_or_else(|| Reason::new(Code::BadPax, "a PAX record is malformed"))?;
            pax.take(key, value)?;
            data = rest;
        }
        if global && pax != Self::default() {
            return Err(Reason::new(Code::BadGlobal, "a global PAX header contains records for single entries"));
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Reason> {
        match key {
            b"path" => once(&mut self.path, key, text(key, value)?),
            b"linkpath" => once(&mut self.linkpath, key, text(key, value)?),
            b"size" => once(&mut self.size, key, decimal(key, value)?),
            b"uid" => once(&mut self.uid, key, decimal(key, value)?),
            b"gid" => once(&mut self.gid, key, decimal(key, value)?),
            b"mtime" => once(&mut self.mtime, key, time(value).ok_or_else(|| bad(key))?),
            // Not used, but GNU tar refuses malformed values.
            b"atime" | b"ctime" => time(value).map(drop).ok_or_else(|| bad(key)),
            b"hdrcharset" => match value {
                b"BINARY" | b"ISO-IR 10646 2000 UTF-8" => Ok(()),
                _ => Err(Reason::new(Code::UnsupportedRecord, "its names are in a character set other than UTF-8")),
            },
            b"SCHILY.acl.access" => once(&mut self.acl_access, key, value.to_vec()),
            b"SCHILY.acl.default" => once(&mut self.acl_default, key, value.to_vec()),
            b"SCHILY.acl.ace" => self.drop_one("NFSv4 ACL"),
            b"SCHILY.fflags" => self.drop_one("file flags"),
            // GNU tar writes the label of SELinux as a record of its own.
            b"RHT.security.selinux" => self.drop_one("security.selinux"),
            b"SCHILY.devmajor" | b"SCHILY.devminor" => {
                self.device_numbers = true;
                Ok(())
            }
            // These records change how the archive must be read.
            b"SCHILY.realsize" | b"SCHILY.filetype" | b"SCHILY.offset" | b"SUN.holesdata" => Err(unsupported(key)),
            _ if key.starts_with(b"GNU.sparse") && !key.starts_with(b"GNU.sparse.") => Err(unsupported(key)),
            _ if key.starts_with(b"GNU.volume.") || key.starts_with(b"GNU.dumpdir") => Err(unsupported(key)),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    attribute(&mut self.xattrs, unescaped(name), value.to_vec())
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = unpercent(name).ok_or_else(|| bad(key))?;
                    attribute(&mut self.encoded_xattrs, name, unbase64(value).ok_or_else(|| bad(key))?)
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(name, value)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn drop_one(&mut self, what: &'static str) -> Result<(), Reason> {
        self.dropped.insert(what);
        Ok(())
    }

    /// Takes the extended attributes out, sorted by name. bsdtar writes each attribute twice, plain and encoded; both must agree.
    pub fn take_xattrs(&mut self) -> Result<Xattrs, Reason> {
        let mut all = std::mem::take(&mut self.xattrs);
        for (name, value) in std::mem::take(&mut self.encoded_xattrs) {
            attribute(&mut all, name, value)?;
        }
        if all.keys().map(|name| name.len() + 1).sum::<usize>() > MAX_XATTR_LIST {
            return Err(Reason::new(Code::BadXattr, "it has more extended attributes than Linux allows"));
        }
        Ok(all.into_iter().collect())
    }
}

/// Splits off the first record (`length key=value newline`). The length counts the whole record. Returns key, value and rest.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(8).position(|byte| *byte == b' ')?;
    let digits = &data[..space];
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    if length > data.len() || length <= space + 1 {
        return None;
    }
    let (record, rest) = data.split_at(length);
    let body = record[space + 1..].strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let key = &body[..equals];
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, &body[equals + 1..], rest))
}

/// Stores a value. A key that occurs twice must have the same value.
pub(super) fn once<T: PartialEq>(slot: &mut Option<T>, key: &[u8], value: T) -> Result<(), Reason> {
    match slot {
        Some(have) if *have != value => Err(contradiction(key)),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn attribute(to: &mut BTreeMap<Vec<u8>, Vec<u8>>, name: Vec<u8>, value: Vec<u8>) -> Result<(), Reason> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains(&0) || value.len() > MAX_XATTR {
        return Err(Reason::new(Code::BadXattr, "an extended attribute has an invalid name or is too large"));
    }
    match to.entry(name) {
        Entry::Occupied(have) if *have.get() != value => Err(contradiction(have.key())),
        Entry::Occupied(_) => Ok(()),
        Entry::Vacant(place) => {
            place.insert(value);
            Ok(())
        }
    }
}

fn contradiction(key: &[u8]) -> Reason {
    Reason::new(Code::PaxContradiction, format!("PAX gives two values for {}", key.escape_ascii()))
}

fn text(key: &[u8], value: &[u8]) -> Result<Vec<u8>, Reason> {
    // To some programs an empty value means "ignore the header", to others an empty name.
    if value.is_empty() || value.contains(&0) { Err(bad(key)) } else { Ok(value.to_vec()) }
}

/// Parses a decimal number without a sign.
pub(super) fn decimal(key: &[u8], value: &[u8]) -> Result<u64, Reason> {
    let number = || -> Option<u64> {
        if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(value).ok()?.parse().ok()
    };
    number().filter(|number| *number <= i64::MAX as u64).ok_or_else(|| bad(key))
}

/// Parses a time: seconds with an optional sign, and a fraction of any length. Digits beyond nanoseconds round towards the past.
pub(crate) fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let sec = whole.iter().try_fold(0i64, |sum, digit| {
        let (sum, digit) = (sum.checked_mul(10)?, i64::from(digit - b'0'));
        if negative { sum.checked_sub(digit) } else { sum.checked_add(digit) }
    })?;
    let digit = |at: usize| fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    let mut nsec = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
    if !negative {
        return Some(Time { sec, nsec });
    }
    // -1.25 is 0.75 after -2.
    if fraction.iter().skip(9).any(|digit| *digit != b'0') {
        nsec += 1;
    }
    if nsec == 0 {
        return Some(Time { sec, nsec });
    }
    Some(Time { sec: sec.checked_sub(1)?, nsec: 1_000_000_000 - nsec })
}

/// Decodes an attribute name as GNU tar writes it. Only `=`, which would end the key, and `%` are encoded.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'%', b'3', b'D', after @ ..] => (b'=', after),
            [b'%', b'2', b'5', after @ ..] => (b'%', after),
            _ => (*first, after),
        };
        out.push(byte);
        rest = after;
    }
    out
}

fn unpercent(name: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let pair = [*bytes.next()?, *bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            byte => *byte,
        });
    }
    Some(out)
}

fn unbase64(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.strip_suffix(b"==").or_else(|| value.strip_suffix(b"=")).unwrap_or(value);
    let mut out = Vec::with_capacity(value.len() / 4 * 3 + 2);
    for group in value.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
        match group.len() {
            4 => out.extend(&bytes[1..]),
            3 => out.extend(&bytes[1..3]),
            2 => out.extend(&bytes[1..2]),
            _ => return None,
        }
    }
    Some(out)
}

fn bad(key: &[u8]) -> Reason {
    Reason::new(Code::BadPax, format!("the PAX record {} has an invalid value", key.escape_ascii()))
}

fn unsupported(key: &[u8]) -> Reason {
    Reason::new(Code::UnsupportedRecord, format!("the PAX record {} is not supported", key.escape_ascii()))
}
