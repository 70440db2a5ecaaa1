//! A parser of `/proc/self/mountinfo`. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Returns the type of the file system at each mount point. Of several at one mount point the last, which covers the others, counts.
pub(super) fn parse(mountinfo: &[u8]) -> BTreeMap<PathBuf, String> {
    let line = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = unescape(fields.nth(4)?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some((PathBuf::from(point), String::from_utf8_lossy(kind).into_owned()))
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// Undoes the kernel's octal escapes of blanks and backslashes.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_and_types_are_read() {
        let text = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                     23 22 0:5 / /usr/with\\040blank\\134 rw - tmpfs tmpfs rw\n\
                     24 22 0:6 / /var rw master:1 propagate_from:2 - autofs x rw\n\
                     25 24 0:7 / /var rw - btrfs /dev/vdb rw\n\nnonsense\n26 22 0:8 / /x rw\n";
        let mounts = parse(text);
        let found: Vec<_> = mounts.iter().map(|(at, kind)| (at.to_str().unwrap(), kind.as_str())).collect();
        assert_eq!(found, [("/", "ext4"), ("/usr/with blank\\", "tmpfs"), ("/var", "btrfs")]);
    }
}
