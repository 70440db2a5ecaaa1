//! Sparse files in the four formats of GNU tar. An archive is either unpacked to the bytes that GNU tar writes, or refused.

use std::path::Path;

use super::{Tar, code, unpack};

type Map = &'static [(u64, u64)];

/// Writes one sparse file in each of the four formats.
fn archives(map: Map, size: u64, data: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let numbers: Vec<String> = map.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
    let (count, size_text) = (map.len().to_string(), size.to_string());
    let (count, size_text) = (count.as_bytes(), size_text.as_bytes());

    let pairs: Vec<(String, String)> =
        map.iter().map(|(offset, length)| (offset.to_string(), length.to_string())).collect();
    let mut records = vec![("GNU.sparse.size", size_text), ("GNU.sparse.numblocks", count)];
    for (offset, length) in &pairs {
        records.push(("GNU.sparse.offset", offset.as_bytes()));
        records.push(("GNU.sparse.numbytes", length.as_bytes()));
    }
    let pax00 = Tar::default().pax(&records).file("f", data).end();

    let joined = numbers.join(",");
    let records = [
        ("GNU.sparse.size", size_text),
        ("GNU.sparse.numblocks", count),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.map", joined.as_bytes()),
    ];
    let pax01 = Tar::default().pax(&records).file("GNUSparseFile.0/f", data).end();

    let mut stored = format!("{}\n", map.len()).into_bytes();
    map.iter().for_each(|(offset, length)| stored.extend(format!("{offset}\n{length}\n").bytes()));
    stored.resize(stored.len().next_multiple_of(512), 0);
    stored.extend_from_slice(data);
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.realsize", size_text),
    ];
    let pax10 = Tar::default().pax(&records).file("GNUSparseFile.0/f", &stored).end();

    vec![("old GNU", old_gnu(map, size, data)), ("PAX 0.0", pax00), ("PAX 0.1", pax01), ("PAX 1.0", pax10)]
}

fn old_gnu(map: Map, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(data.len() as u64);
    header.as_mut_bytes()[0] = b'f';
    let octal = |value: u64| format!("{value:011o}\0").into_bytes();
    let bytes = header.as_mut_bytes();
    bytes[483..495].copy_from_slice(&octal(size));
    let put = |bytes: &mut [u8], at: usize, (offset, length): (u64, u64)| {
        bytes[at..at + 12].copy_from_slice(&octal(offset));
        bytes[at + 12..at + 24].copy_from_slice(&octal(length));
    };
    let (first, rest) = map.split_at(map.len().min(4));
    first.iter().enumerate().for_each(|(index, segment)| put(bytes, 386 + 24 * index, *segment));
    bytes[482] = u8::from(!rest.is_empty());
    let mut extended = Vec::new();
    for (index, chunk) in rest.chunks(21).enumerate() {
        let mut block = vec![0; 512];
        chunk.iter().enumerate().for_each(|(index, segment)| put(&mut block, 24 * index, *segment));
        block[504] = u8::from(rest.len() > 21 * (index + 1));
        extended.extend(block);
    }
    Tar::default().raw(header, &[&extended, data].concat()).end()
}

/// Unpacks with GNU tar. `None` if there is no GNU tar, or if it fails.
fn by_gnu_tar(archive: &[u8], into: &Path) -> Option<Vec<u8>> {
    fs_err::write(into.join("a.tar"), archive).unwrap();
    super::foreign::status("tar", &["-xf", "a.tar", "f"], into)?.then(|| fs_err::read(into.join("f")).unwrap())
}

/// Maps with the size of the file. Segments are filled with a different byte each.
const MAPS: &[(Map, u64, bool)] = &[
    // Valid: data, holes in the middle and at the end.
    (&[(0, 512), (1024, 100), (1124, 0)], 1124, true),
    (&[(0, 512), (1024, 100)], 1124, true),
    (&[(512, 1024), (4096, 512), (8192, 0)], 8192, true),
    (&[(512, 1024), (2000, 0), (4096, 512), (8192, 0)], 8192, true),
    (&[(8192, 0)], 8192, true),
    (&[(0, 0)], 0, true),
    (&[(0, 512), (1024, 512), (2048, 512), (3072, 512), (4096, 512), (5120, 7), (9000, 0)], 9000, true),
    // The final empty segment is missing.
    (&[(0, 512), (1024, 100)], 5000, false),
    (&[(512, 1024)], 1 << 20, false),
    (&[], 5000, false),
    // A segment before the last is not a multiple of 512 bytes long.
    (&[(0, 100), (1024, 512)], 1536, false),
    (&[(0, 100), (1024, 512), (2000, 0)], 2000, false),
    (&[(0, 512), (1024, 1), (2048, 1), (4096, 0)], 4096, false),
    (&[(10, 513), (1000, 511)], 1511, false),
    // Both.
    (&[(0, 100), (1024, 100)], 9999, false),
];

#[test]
fn sparse_files_are_those_of_gnu_tar_or_refused() {
    for (map, size, valid) in MAPS {
        let data: Vec<u8> =
            map.iter().zip(1u8..).flat_map(|((_, length), byte)| vec![byte; *length as usize]).collect();
        for (format, archive) in archives(map, *size, &data) {
            let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let found = unpack(&archive, ours.path()).map(|_| fs_err::read(ours.path().join("f")).unwrap());
            match found {
                Ok(bytes) => {
                    assert!(valid, "{format} {map:?} of {size} bytes is unpacked");
                    if let Some(expected) = by_gnu_tar(&archive, theirs.path()) {
                        assert!(bytes == expected, "{format} {map:?} of {size} bytes differs from GNU tar");
                    }
                }
                Err(error) => {
                    assert!(!valid, "{format} {map:?} of {size} bytes is refused: {error:?}");
                    assert_eq!(code(&error), "bad-sparse");
                }
            }
        }
    }
}
