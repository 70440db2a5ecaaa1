//! Encodes the headers of a deterministic archive: ustar, with PAX records only for values that do not fit, and numeric owners without
//! names. Pure.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{EntryType, Header};

use crate::archive::unpack::acl;
use crate::archive::unpack::entry::{Meta, NodeKind, Time};

/// Size of a tar block.
pub const BLOCK: usize = 512;
/// The two zero blocks at the end of an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Maximum values of octal fields of 8 and 12 bytes.
const MAX_8: u64 = 0o7_777_777;
const MAX_12: u64 = 0o77_777_777_777;

/// Appends the header blocks of an entry to `to`. Returns the size of its PAX records in bytes.
pub fn header(to: &mut Vec<u8>, path: &Path, kind: &NodeKind, meta: &Meta, size: u64) -> usize {
    header_of(to, &archived(path, *kind == NodeKind::Dir), kind, meta, size)
}

/// Appends the header blocks of an entry whose name in the archive is `name`. Returns the size of its PAX records in bytes.
pub fn header_of(to: &mut Vec<u8>, name: &[u8], kind: &NodeKind, meta: &Meta, size: u64) -> usize {
    let mut records = Vec::new();
    let mut header = Header::new_ustar();
    let bytes = header.as_mut_bytes();
    match split(name) {
        Some((prefix, name)) => {
            bytes[..name.len()].copy_from_slice(name);
            bytes[345..345 + prefix.len()].copy_from_slice(prefix);
        }
        None => {
            record(&mut records, b"path", name);
            bytes[..100].copy_from_slice(&name[..100]);
        }
    }
    let link = match kind {
        NodeKind::Hardlink(target) => archived(target, false),
        NodeKind::Symlink(target) => target.clone(),
        _ => Vec::new(),
    };
    if link.len() > 100 {
        record(&mut records, b"linkpath", &link);
    }
    let length = link.len().min(100);
    bytes[157..157 + length].copy_from_slice(&link[..length]);

    header.set_entry_type(match kind {
        NodeKind::File => EntryType::Regular,
        NodeKind::Hardlink(_) => EntryType::Link,
        NodeKind::Symlink(_) => EntryType::Symlink,
        NodeKind::Char(..) => EntryType::Char,
        NodeKind::Block(..) => EntryType::Block,
        NodeKind::Dir => EntryType::Directory,
        NodeKind::Fifo => EntryType::Fifo,
    });
    header.set_mode(meta.mode);
    header.set_uid(plain_or_record(&mut records, "uid", meta.uid.into(), MAX_8));
    header.set_gid(plain_or_record(&mut records, "gid", meta.gid.into(), MAX_8));
    header.set_size(plain_or_record(&mut records, "size", size, MAX_12));
    let whole = u64::try_from(meta.mtime.sec).ok().filter(|sec| *sec <= MAX_12);
    if whole.is_none() || meta.mtime.nsec != 0 {
        record(&mut records, b"mtime", decimal(meta.mtime).as_bytes());
    }
    header.set_mtime(whole.unwrap_or(0));
    if let NodeKind::Char(major, minor) | NodeKind::Block(major, minor) = kind {
        octal(&mut header.as_mut_bytes()[329..337], *major);
        octal(&mut header.as_mut_bytes()[337..345], *minor);
    }
    // Extended attributes belong to the inode: only its first name carries them.
    if !matches!(kind, NodeKind::Hardlink(_)) {
        let has = |name: &str| meta.xattrs.iter().any(|(have, _)| have == name.as_bytes());
        if has(acl::DEFAULT) && !has(acl::ACCESS) {
            // GNU tar writes both ACLs if a directory has one.
            record(&mut records, b"SCHILY.acl.access", &acl::of_mode(meta.mode));
        }
        for (name, value) in &meta.xattrs {
            attribute(&mut records, name, value);
        }
    }
    header.set_cksum();
    if !records.is_empty() {
        extension(to, name, &records);
    }
    to.extend_from_slice(header.as_bytes());
    records.len()
}

/// Returns the length of the padding after `size` bytes of data.
pub fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// Returns the name of `path` in the archive: with the prefix `./`, and with a final slash for a directory.
pub fn archived(path: &Path, dir: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    name.extend_from_slice(path.as_os_str().as_bytes());
    if dir && name.len() > 2 {
        name.push(b'/');
    }
    name
}

/// Splits a name into the prefix and name fields of a ustar header, if it fits.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((&[], name));
    }
    // Choose the longest prefix that fits. The name must not be empty, so skip the final slash of a directory.
    let last = name.len().checked_sub(2)?.min(155);
    let at = name[..=last].iter().rposition(|byte| *byte == b'/')?;
    let (prefix, rest) = (&name[..at], &name[at + 1..]);
    (!prefix.is_empty() && rest.len() <= 100).then_some((prefix, rest))
}

fn plain_or_record(records: &mut Vec<u8>, key: &str, value: u64, max: u64) -> u64 {
    if value <= max {
        return value;
    }
    record(records, key.as_bytes(), value.to_string().as_bytes());
    0
}

fn attribute(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // GNU tar restores ACLs from their text form, container tools from the attribute. Write both, as GNU tar does.
    let list: Option<&[u8]> = match name {
        _ if name == acl::ACCESS.as_bytes() => Some(b"SCHILY.acl.access"),
        _ if name == acl::DEFAULT.as_bytes() => Some(b"SCHILY.acl.default"),
        _ => None,
    };
    if let (Some(key), Some(text)) = (list, acl::format(value)) {
        record(records, key, &text);
    }
    let mut key = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            // A key ends at the first `=`.
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            byte => key.push(*byte),
        }
    }
    record(records, &key, value);
}

/// Appends one PAX record. Its length includes its own digits.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn extension(to: &mut Vec<u8>, name: &[u8], records: &[u8]) {
    let mut header = Header::new_ustar();
    let base = name.strip_suffix(b"/").unwrap_or(name);
    let base = base.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = [b"./PaxHeaders/", &base[..base.len().min(80)]].concat();
    header.as_mut_bytes()[..name.len()].copy_from_slice(&name);
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    header.set_cksum();
    to.extend_from_slice(header.as_bytes());
    to.extend_from_slice(records);
    to.resize(to.len() + padding(records.len() as u64), 0);
}

fn octal(field: &mut [u8], value: u32) {
    let text = format!("{value:07o}\0");
    field.copy_from_slice(text.as_bytes());
}

/// Formats a time as a PAX decimal, without trailing zeros.
fn decimal(time: Time) -> String {
    let (sign, sec, nsec) = match (time.sec < 0, time.nsec) {
        (true, 0) => ("-", time.sec.unsigned_abs(), 0),
        (true, nsec) => ("-", (time.sec + 1).unsigned_abs(), 1_000_000_000 - nsec),
        (false, nsec) => ("", time.sec.unsigned_abs(), nsec),
    };
    let text = format!("{sign}{sec}.{nsec:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
