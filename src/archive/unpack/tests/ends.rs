//! Ends of archives and of compressed files, times, formats that are not supported, and attributes that are not restored.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

use super::{Tar, code, unpack};
use crate::archive::unpack::decode::Decoder;
use crate::archive::unpack::entry::Time;
use crate::archive::unpack::pax;
use crate::archive::unpack::reader::{Reader, entries};
use crate::archive::unpack::{Limits, Unpacker};
use crate::base::error::Kind;
use crate::base::progress::{Event, Progress};
use crate::fs::rootfs::Rootfs;

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn emit(&self, event: Event<'_>) {
        if let Event::Warn(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

/// Unpacks an archive into a new directory. Returns the warnings.
fn warnings(archive: &[u8]) -> Vec<String> {
    let place = tempfile::tempdir().unwrap();
    let (root, limits, warnings) = (Rootfs::open(place.path()).unwrap(), Limits::default(), Warnings::default());
    let unpacker = Unpacker { name: "a.tar", into: &root, limits: &limits, ui: &warnings };
    unpacker.stream(std::io::Cursor::new(archive.to_vec()), None, &mut |_| Ok(true)).unwrap();
    warnings.0.into_inner().unwrap()
}

/// The error of unpacking an archive that is called `name`.
fn refusal(name: &str, archive: Vec<u8>) -> (crate::base::error::Error, String) {
    let place = tempfile::tempdir().unwrap();
    let (root, limits, warnings) = (Rootfs::open(place.path()).unwrap(), Limits::default(), Warnings::default());
    let unpacker = Unpacker { name, into: &root, limits: &limits, ui: &warnings };
    let error = unpacker.stream(std::io::Cursor::new(archive), None, &mut |_| Ok(true)).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    (error, cause)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(plain: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_archive_without_zero_blocks_is_accepted_with_a_warning() {
    let archive = Tar::default().dir("d/").file("d/f", &[7; 600]);
    let ended = warnings(&archive.0);
    assert_eq!(ended, ["a.tar: the archive has no end mark (two blocks of zeros); entries may be missing"]);
    assert_eq!(warnings(&gzip(&archive.0)), ended);
    let names = |bytes: &[u8]| entries(bytes, Limits::default()).map(|entries| entries.len());
    assert_eq!(names(&archive.0).unwrap(), 2);
    assert_eq!(names(&[&archive.0[..], &[0; 512]].concat()).unwrap(), 2, "one block of zeros");
    assert_eq!(warnings(&archive.end()), [""; 0]);
}

#[test]
fn an_archive_that_ends_elsewhere_is_refused() {
    let archive = Tar::default().file("a", b"x").pax(&[("comment", b"y")]).file("b", &[7; 600]).0;
    let link = Tar::default().file("a", b"x").entry("L", tar::EntryType::GNULongName, "", b"long\0").0;
    let global = Tar::default().file("a", b"x").entry("g", tar::EntryType::XGlobalHeader, "", b"13 comment=x\n").0;
    let place = || tempfile::tempdir().unwrap();
    let told = |bytes: &[u8]| unpack(bytes, place().path()).map(drop).map_err(|error| code(&error));
    for length in 1..archive.len() {
        let expected = match length {
            1024 | 3584 => Ok(()),
            1536 if told(&archive[..length]) == Err("truncated") => Err("truncated"),
            2048 => Err("orphan"),
            _ => Err("truncated"),
        };
        // Every multiple of 64 and its neighbours.
        if length % 64 < 2 {
            assert_eq!(told(&archive[..length]), expected, "{length}");
        }
    }
    assert_eq!((told(&link), told(&global)), (Err("orphan"), Err("orphan")));
    assert_eq!(told(&[&archive[..1024], &[0; 700]].concat()), Err("truncated"), "half a block of zeros");
    assert_eq!((told(b""), told(&gzip(b""))), (Err("truncated"), Err("truncated")));
    assert_eq!(told(&[&archive[..1024], &archive[..100]].concat()), Err("truncated"));
    // The compressed file is cut off where the plain archive has an entry's end.
    let (first, second) = (gzip(&archive[..1024]), gzip(&archive[1024..]));
    assert_eq!(told(&first), Ok(()));
    for length in [1, 9, 15, second.len() - 9, second.len() - 1] {
        let error = unpack(&[&first[..], &second[..length]].concat(), place().path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{length}");
    }
}

/// Container tools accept this, GNU tar, bsdtar and Python do not.
#[test]
fn only_a_layer_may_lack_the_padding_of_its_last_entry() {
    let archive = Tar::default().file("a", b"x").file("b", &[7; 600]).0;
    let read = |length: usize, layer: bool| {
        let new = if layer { Reader::of_layer } else { Reader::new };
        let mut reader = new(&archive[..length], Limits::default());
        let mut count = 0;
        while reader.next_entry()?.is_some() {
            count += 1;
        }
        reader.finish().map(|_| count)
    };
    // The data of the second entry ends at byte 2136, its padding at 2560.
    for length in [2136, 2137, 2559, 2560] {
        assert_eq!(read(length, true).unwrap(), 2, "{length}");
        assert_eq!(read(length, false).is_ok(), length == 2560, "{length}");
    }
    for length in [512, 2135, 1100] {
        assert!(read(length, true).is_err(), "{length}");
    }
    assert_eq!(read(513, true).unwrap(), 1);
}

#[test]
fn zeros_after_the_last_stream_are_ignored() {
    let plain = Tar::default().file("f", &[7; 100_000]).end();
    let decoded = |bytes: Vec<u8>| {
        let mut out = Vec::new();
        Decoder::new(std::io::Cursor::new(bytes)).unwrap().read_to_end(&mut out).map(|_| out)
    };
    for encode in [gzip, bzip2] {
        let (whole, half) = (encode(&plain), [encode(&plain[..500]), encode(&plain[500..])].concat());
        for zeros in [1, 7, 512, 10_240, 300_000] {
            let padding = vec![0; zeros];
            assert!(decoded([&whole[..], &padding].concat()).unwrap() == plain, "{zeros}");
            assert!(decoded([&half[..], &padding].concat()).unwrap() == plain, "{zeros}");
            // gzip ignores a member after the zeros, Python reads it.
            assert!(decoded([&whole[..], &padding, &whole].concat()).is_err(), "{zeros}");
            assert!(decoded([&whole[..], &padding, b"x"].concat()).is_err(), "{zeros}");
        }
        assert!(decoded([&whole[..], b"x"].concat()).is_err());
        assert!(decoded(vec![0; 512]).is_ok_and(|plain| plain == [0; 512]), "zeros alone are not compressed");
    }
}

#[test]
fn times_of_any_length_are_read() {
    let at = |sec, nsec| Some(Time { sec, nsec });
    for (text, time) in [
        ("9223372036854775807", at(i64::MAX, 0)),
        ("1000000000000000000.5", at(1_000_000_000_000_000_000, 500_000_000)),
        ("9223372036854775807.999999999999999999999999", at(i64::MAX, 999_999_999)),
        ("-9223372036854775808", at(i64::MIN, 0)),
        ("-9223372036854775807.000000001", at(i64::MIN, 999_999_999)),
        ("-1.9999999999999999999999", at(-2, 0)),
        ("-0.25", at(-1, 750_000_000)),
        ("-0", at(0, 0)),
        ("00000000000000000000000000001.", at(1, 0)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("-9223372036854775808.1", None),
        (".5", None),
        ("-", None),
        ("1.2.3", None),
        ("1e3", None),
        ("+1", None),
        ("1 ", None),
    ] {
        assert_eq!(pax::time(text.as_bytes()), time, "{text}");
    }
    let archive = Tar::default().pax(&[("mtime", b"1000000000000000000.123456789012")]).file("f", b"").end();
    assert_eq!(entries(&archive, Limits::default()).unwrap()[0].meta.mtime.nsec, 123_456_789);
    // The file system may have smaller bounds for times.
    let place = tempfile::tempdir().unwrap();
    unpack(&archive, place.path()).unwrap();
    assert!(fs_err::metadata(place.path().join("f")).unwrap().mtime() > 1 << 31);
}

#[test]
fn formats_that_are_not_supported_are_named() {
    let heads: [(&[u8], &str); 9] = [
        (b"\x04\x22\x4d\x18\x64\x40\xa7", "lz4"),
        (b"]\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0", "lzma"),
        (b"LZIP\x01\x0c", "lzip"),
        (b"PK\x03\x04\x0a", "zip"),
        (b"070701000", "cpio"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "7z"),
        (b"\xed\xab\xee\xdb\x03", "RPM"),
        (b"\x1f\x9d\x90", "compress (.Z)"),
        (b"\x89LZO\0\r\n\x1a\n", "lzop"),
    ];
    for (head, format) in heads {
        // Shorter than a block of tar, and longer.
        for rest in [0, 40, 5000] {
            let (error, cause) = refusal("x", [head, &vec![0x41; rest]].concat());
            assert_eq!((error.kind(), code(&error)), (Kind::Refused, "unsupported-format"), "{format}");
            assert!(cause.contains(format) && cause.contains("gzip, xz, zstd or bzip2"), "{cause}");
        }
        let (_, cause) = refusal("x", gzip(&[head, &[0x41; 600]].concat()));
        assert!(cause.contains(format), "{cause}");
    }
    let (_, cause) = refusal("x", gzip(&gzip(&Tar::default().file("f", b"").end())));
    assert!(cause.contains("it contains a gzip file where a plain tar archive is expected"), "{cause}");
    for short in [vec![0x1b, 0x30, 0, 0xf8], vec![0x1b; 5000]] {
        let (_, cause) = refusal("x.tar.br", short);
        assert!(cause.contains("a brotli file") && cause.contains("[unsupported-format]"), "{cause}");
    }
    let (error, _) = refusal("x", vec![0x1b; 5000]);
    assert!(error.hint().unwrap().starts_with("supported are tar archives"));
    // A file may have any name.
    for name in ["070701", "LZIP", "Rar!", "MSCF"] {
        assert_eq!(entries(&Tar::default().file(name, b"").end(), Limits::default()).unwrap().len(), 1);
    }
}

#[test]
fn attributes_that_are_not_restored_are_counted() {
    let label = ("SCHILY.xattr.security.selinux", &b"label"[..]);
    let archive = Tar::default()
        .pax(&[label])
        .dir("d/")
        .pax(&[label, ("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.system.nfs4_acl", b"x")])
        .dir("d/e/")
        .pax(&[
            ("RHT.security.selinux", b"label"),
            ("SCHILY.fflags", b"nodump"),
            ("SCHILY.acl.ace", b"owner@:r::allow"),
        ])
        .file("f", b"")
        .end();
    assert_eq!(
        warnings(&archive),
        [
            "a.tar: not restored: 7 attributes: NFSv4 ACL (1), file flags (1), security.selinux (3), system.nfs4_acl (1), \
         trusted.overlay.opaque (1)"
        ]
    );
    assert_eq!(warnings(&Tar::default().pax(&[label]).file("f", b"").end()).len(), 1);
    assert_eq!(warnings(&Tar::default().file("f", b"").end()), [""; 0]);
}

/// Attribute names come from the archive, so the message must stay short.
#[test]
fn the_message_about_attributes_is_bounded() {
    let names: Vec<String> = (0..300).map(|number| format!("SCHILY.xattr.system.{number:03}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b"x"[..])).collect();
    let told = warnings(&Tar::default().pax(&records).file("f", b"").end());
    assert!(
        told[0].contains("300 attributes:") && told[0].contains("others (200)") && told[0].len() < 3000,
        "{told:?}"
    );
}
