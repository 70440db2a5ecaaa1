//! Small archives that need many resources. Each is generated while it is read, and the bytes read are counted.

use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tar::EntryType;

use super::{Tar, code};
use crate::archive::unpack::Unpacker;
use crate::archive::unpack::decode::{Decoder, Format};
use crate::archive::unpack::limits::{Limits, RaisedBy, Spent};
use crate::archive::unpack::reader::Reader;
use crate::archive::unpack::refusal::ReadError;
use crate::base::error::{Error, Kind};
use crate::base::progress::Silent;
use crate::fs::rootfs::Rootfs;

const MIB: u64 = 1 << 20;

/// An endless input that repeats the same bytes.
struct Endless {
    bytes: Vec<u8>,
    at: usize,
    given: Arc<AtomicU64>,
}

impl Endless {
    fn new(bytes: Vec<u8>) -> (Self, Arc<AtomicU64>) {
        let given = Arc::new(AtomicU64::new(0));
        (Self { bytes, at: 0, given: given.clone() }, given)
    }
}

impl Read for Endless {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let count = to.len().min(self.bytes.len() - self.at);
        to[..count].copy_from_slice(&self.bytes[self.at..][..count]);
        self.at = (self.at + count) % self.bytes.len();
        self.given.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Reads an endless plain archive. Returns the code of its refusal and the number of bytes read.
fn read(head: &[u8], rest: Vec<u8>, limits: Limits) -> (&'static str, u64) {
    let (endless, given) = Endless::new(rest);
    let mut reader = Reader::new(BufReader::new(head.chain(endless)), limits);
    let refused = loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => break reader.finish().map(drop).unwrap_err(),
            Err(error) => break error,
        }
    };
    match refused {
        ReadError::Refused(refusal) => (refusal.reason.code.as_str(), given.load(Ordering::Relaxed)),
        ReadError::Input(error) => panic!("{error}"),
    }
}

#[test]
fn trailing_bytes_are_limited() {
    let (code, given) = read(&Tar::default().file("a", b"").end(), vec![0; 1 << 20], Limits::default());
    assert!(code == "trailing-data" && given <= 65 * MIB, "{code} after {given}");
}

#[test]
fn headers_and_maps_are_limited() {
    let small = Limits { bytes: 4 * MIB, ..Limits::default() };
    // Empty files with long names, and headers without a file.
    let long =
        Tar::default().entry("L", EntryType::GNULongName, "", &[&[b'n'; 250][..], &[0]].concat()).file("n", b"").0;
    let (code, given) = read(&[], long, small.clone());
    assert!(code == "too-large" && given <= 5 * MIB, "{code} after {given}");
    let global = Tar::default().entry("g", EntryType::XGlobalHeader, "", b"11 comment=\n").0;
    let (code, given) = read(&[], global.clone(), small);
    assert!(code == "bad-pax" || code == "too-large" && given <= 5 * MIB, "{code} after {given}");
    let record = b"13 comment=x\n";
    let global = Tar::default().entry("g", EntryType::XGlobalHeader, "", record).0;
    let (code, given) = read(&[], global, Limits { entries: 1000, ..Limits::default() });
    assert!(code == "too-many-entries" && given <= 2 * MIB, "{code} after {given}");
    // A sparse map that continues without a segment.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.as_mut_bytes()[0] = b's';
    header.set_size(0);
    header.as_mut_bytes()[482] = 1;
    let head = Tar::default().raw(header, b"").0;
    let mut block = vec![0; 512];
    block[504] = 1;
    let (code, given) = read(&head, block, Limits::default());
    assert!(code == "bad-sparse" && given <= MIB, "{code} after {given}");
}

#[test]
fn a_claim_is_refused_before_its_data_is_read() {
    for size in [5 << 40, 1 << 60] {
        let mut header = Tar::header(b"large", EntryType::Regular, 0);
        header.set_size(size);
        let (code, given) = read(&Tar::default().raw(header, b"").0, vec![0; 4096], Limits::default());
        assert!(code == "too-large" && given <= MIB, "{code} after {given}");
    }
    let head = Tar::default().entry("p", EntryType::XHeader, "", b"").0;
    let mut header = Tar::header(b"p", EntryType::XHeader, 0);
    header.set_size(4 << 30);
    let (code, given) = read(&Tar::default().raw(header, b"").0, head, Limits::default());
    assert!(code == "extension-too-large" && given <= MIB, "{code} after {given}");
}

#[test]
fn several_archives_share_their_limits() {
    let archive = Tar::default().file("a", b"12345").end();
    let spent = |spent, bytes| {
        let mut reader = Reader::new(&archive[..], Limits { spent, bytes, entries: 2, ..Limits::default() });
        reader.next_entry().map(|_| reader.spent())
    };
    let first = spent(Spent::default(), 2048).unwrap();
    assert_eq!(first, Spent { entries: 1, bytes: 1024 });
    let second = spent(first, 2048).unwrap();
    assert_eq!(second, Spent { entries: 2, bytes: 2048 });
    assert!(spent(second, 1 << 20).unwrap_err().to_string().contains("[too-many-entries]"));
    assert!(spent(first, 2047).unwrap_err().to_string().contains("more than 2047 bytes unpacked [too-large]"));
}

/// Unpacks an endless archive. Returns the error and the number of bytes read.
fn unpack(head: Vec<u8>, rest: Vec<u8>, into: &Path, limits: &Limits) -> (Error, u64) {
    let (endless, given) = Endless::new(rest);
    let root = Rootfs::open(into).unwrap();
    let input = std::io::Cursor::new(head).chain(endless);
    let unpacker = Unpacker { name: "bomb.tar", into: &root, limits, ui: &Silent };
    let error = unpacker.stream(input, None, &mut |_| Ok(true)).unwrap_err();
    (error, given.load(Ordering::Relaxed))
}

#[test]
fn a_bomb_is_refused_at_once_with_a_hint() {
    let place = tempfile::tempdir().unwrap();
    let file = Tar::default().file("f", &[0; 1000]);
    let mut header = Tar::header(b"next", EntryType::Regular, 0);
    header.set_size(20 * MIB);
    let limits = Limits::default().set(Some(16 * MIB), Some(9), RaisedBy::Source);
    let (error, given) = unpack(file.raw(header, b"").0, vec![0; 1 << 20], place.path(), &limits);
    assert_eq!((error.kind(), code(&error)), (Kind::Refused, "too-large"));
    // The decoder reads ahead by a few chunks.
    assert!(given <= 8 * MIB, "{given}");
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(said, "entry next at byte 1536: the archive has more than 16777216 bytes unpacked [too-large]");
    assert_eq!(
        error.hint(),
        Some("if the archive is meant to be that large, raise the limit with source.max-unpacked")
    );
    assert_eq!(fs_err::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn directories_without_an_entry_are_counted() {
    let place = tempfile::tempdir().unwrap();
    let limits = Limits { entries: 20, ..Limits::default() };
    let name = "a/".repeat(50) + "f\0";
    let long = Tar::default().entry("L", EntryType::GNULongName, "", name.as_bytes()).file("f", b"").0;
    let (error, _) = unpack(long, vec![0; 512], place.path(), &limits);
    assert_eq!(code(&error), "too-many-entries");
}

#[test]
fn memory_for_paths_is_released_when_they_are_left() {
    let mut many = Tar::default();
    for number in 0..20 {
        let name = format!("{number:03}{}\0", format!("/{}", "n".repeat(250)).repeat(15));
        many = many.entry("L", EntryType::GNULongName, "", name.as_bytes()).entry("d", EntryType::Directory, "", b"");
    }
    let outcome = |memory| {
        let place = tempfile::tempdir().unwrap();
        let limits = Limits { memory, ..Limits::default() };
        let root = Rootfs::open(place.path()).unwrap();
        let input = std::io::Cursor::new(many.0.clone()).chain(&[0; 1024][..]);
        let unpacker = Unpacker { name: "bomb.tar", into: &root, limits: &limits, ui: &Silent };
        unpacker.stream(input, None, &mut |_| Ok(true)).map(drop).map_err(|error| code(&error))
    };
    assert_eq!(outcome(64 << 10), Ok(()));
    assert_eq!(outcome(16 << 10), Err("too-much-memory"));
}

#[test]
fn thousands_of_attributes_are_read() {
    let names: Vec<String> = (0..6_000).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let mut records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"1"[..])).collect();
    let read = |records: &[(&str, &[u8])]| {
        let archive = Tar::default().pax(records).file("f", b"").end();
        crate::archive::unpack::reader::entries(&archive, Limits::default())
            .map(|mut all| all.remove(0).meta.xattrs.len())
    };
    assert_eq!(read(&records).unwrap(), 6_000);
    records.push((&names[7], b"2"));
    assert!(read(&records).unwrap_err().to_string().contains("[pax-contradiction]"));
}

#[test]
fn thousands_of_streams_are_decoded() {
    let plain = Tar::default().file("a", b"x").end();
    let (empty, whole) = (vec![], &plain[..]);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let bzip2 = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let xz = |bytes: &[u8]| {
        let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 0);
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let packed: [(&str, Vec<u8>, Vec<u8>); 4] = [
        ("gzip", gzip(&empty), gzip(whole)),
        ("zstd", zstd(&empty), zstd(whole)),
        ("bzip2", bzip2(&empty), bzip2(whole)),
        ("xz", xz(&empty), xz(whole)),
    ];
    let decoded = |bytes: Vec<u8>| {
        let mut out = Vec::new();
        Decoder::new(std::io::Cursor::new(bytes)).unwrap().read_to_end(&mut out).map(|_| out)
    };
    for (what, empty, whole) in &packed {
        let out = decoded([&empty[..], whole, &empty.repeat(3000)].concat()).unwrap();
        assert!(out == plain, "{what}");
        // Starting a stream of bzip2 or xz is expensive, so the number of short streams is limited.
        let dear = ["bzip2", "xz"].contains(what);
        let refused = |bytes| decoded(bytes).is_err_and(|error| error.to_string().contains("streams have fewer"));
        assert_eq!(refused(empty.repeat(10_300)), dear, "{what}");
        assert!(!refused(empty.repeat(9_900)), "{what}");
    }
    let long = vec![0; 2_000_000];
    for (empty, long) in [(bzip2(&empty), bzip2(&long)), (xz(&empty), xz(&long))] {
        assert!(decoded([&long[..], &empty.repeat(10_190)].concat()).is_ok());
        assert!(decoded([&long[..], &empty.repeat(10_210)].concat()).is_err());
    }
}

#[test]
fn windows_that_need_too_much_memory_are_refused() {
    // A frame with a window of 2 GiB; a block header with a dictionary of 4 GiB.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut xz = vec![0xfd, b'7', b'z', b'X', b'Z', 0, 0, 1, 0x69, 0x22, 0xde, 0x36];
    xz.extend([2, 0, 0x21, 1, 40, 0, 0, 0, 0xe6, 0xa0, 0x11, 0xb3, 1, 0, 0]);
    for (format, bytes) in [(Format::Zstd, zstd.to_vec()), (Format::Xz, xz)] {
        let mut decoder = Decoder::of(format, std::io::Cursor::new(bytes)).unwrap();
        let error = decoder.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("memory"), "{format:?}: {error}");
    }
}

#[test]
fn the_size_in_an_xz_index_is_checked_first() {
    use std::io::Write as _;
    let place = tempfile::tempdir().unwrap();
    let mut encoder = xz2::write::XzEncoder::new(tempfile::tempfile().unwrap(), 0);
    encoder.write_all(&Tar::default().file("f", &[0; 5000]).end()).unwrap();
    let file = encoder.finish().unwrap();
    let root = Rootfs::open(place.path()).unwrap();
    let check = |bytes| {
        let limits = Limits::default().set(Some(bytes), None, RaisedBy::Options);
        Unpacker { name: "x", into: &root, limits: &limits, ui: &Silent }.check_size(&file)
    };
    assert!(check(8192).is_ok());
    let error = check(4096).unwrap_err();
    assert_eq!((error.kind(), code(&error)), (Kind::Refused, "too-large"));
    assert!(error.hint().is_some_and(|hint| hint.contains("--max-bytes")));
}
