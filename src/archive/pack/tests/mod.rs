//! Tests of the packer. They compare it with our own reader, with GNU tar and with NetBSD's mtree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps};

use super::*;
use crate::archive::unpack::Node;
use crate::archive::unpack::entry::{Meta, NodeKind, Time};
use crate::archive::unpack::limits::Limits;
use crate::archive::unpack::reader::entries;
use crate::archive::unpack::tests::unpack;
use crate::base::progress::{Event, Silent};

mod faults;
mod lists;

fn packed(tree: &Path, record: &Deferred, options: &Options) -> (Vec<u8>, Packed, String) {
    let mut file = tempfile::tempfile().unwrap();
    let mut contents = Vec::new();
    let root = Rootfs::open(tree).unwrap();
    let outputs = Outputs { contents: Some(&mut contents), ..Outputs::archive(&mut file) };
    let packed = pack(Tree { root: &root, deferred: record, part: None }, outputs, options, &Silent).unwrap();
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut file).unwrap();
    io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    (bytes, packed, String::from_utf8(contents).unwrap())
}

fn plain(gz: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    io::Read::read_to_end(&mut flate2::bufread::MultiGzDecoder::new(gz), &mut plain).unwrap();
    plain
}

fn time(path: &Path, sec: i64, nsec: i64) {
    let time = Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn header_of(path: &str, kind: NodeKind, meta: &Meta, size: u64) -> Vec<u8> {
    let mut blocks = Vec::new();
    tar::header(&mut blocks, Path::new(path), &kind, meta, size);
    assert!(blocks.len().is_multiple_of(512));
    blocks
}

#[test]
fn pax_is_used_only_where_it_is_needed() {
    let meta = Meta { mode: 0o644, ..Meta::default() };
    assert_eq!(header_of("a", NodeKind::File, &meta, 1).len(), 512);
    assert_eq!(header_of(&format!("{}/{}", "d".repeat(150), "f".repeat(99)), NodeKind::File, &meta, 1).len(), 512);
    assert_eq!(header_of(&format!("{}/{}", "d".repeat(150), "f".repeat(101)), NodeKind::File, &meta, 1).len(), 1536);
    assert_eq!(header_of(&"d".repeat(100), NodeKind::Dir, &meta, 0).len(), 1536);
    assert_eq!(header_of(&"d".repeat(99), NodeKind::Dir, &meta, 0).len(), 512);
    assert_eq!(header_of("l", NodeKind::Symlink(vec![b'x'; 100]), &meta, 0).len(), 512);
    assert_eq!(header_of("l", NodeKind::Symlink(vec![b'x'; 101]), &meta, 0).len(), 1536);
    assert_eq!(header_of("big", NodeKind::File, &meta, 8 << 30).len(), 1536);
    let late = Meta { mtime: Time { sec: 1, nsec: 5 }, ..Meta::default() };
    assert_eq!(header_of("a", NodeKind::File, &late, 1).len(), 1536);
}

proptest! {
    #[test]
    fn headers_are_read_back(
        path in prop::collection::vec("[a-z.\u{e9}\n]{1,120}", 1..6),
        link in prop::collection::vec(1u8..=255, 1..300),
        (mode, uid, gid) in (0u32..0o10000, 0u32..u32::MAX, 0u32..u32::MAX),
        (sec, nsec) in (-(1i64 << 40)..1i64 << 40, 0u32..1_000_000_000),
        xattr in prop::collection::vec(any::<u8>(), 0..200),
        size in 0u64..1 << 37,
        kind in 0..4,
    ) {
        let path: PathBuf = path.iter().filter(|part| !part.chars().all(|c| c == '.')).collect();
        prop_assume!(!path.as_os_str().is_empty());
        let xattrs = vec![(b"user.x=\n%25%3D".to_vec(), xattr)];
        let meta = Meta { mode, uid, gid, mtime: Time { sec, nsec }, xattrs };
        let kind = match kind {
            0 => NodeKind::File,
            1 => NodeKind::Symlink(link),
            2 => NodeKind::Dir,
            _ => NodeKind::Char(mode & 0xfff, gid & 0xf_ffff),
        };
        let size = if kind == NodeKind::File { size } else { 0 };
        let mut archive = Vec::new();
        tar::header(&mut archive, &path, &kind, &meta, size);
        // The archive has no data. The reader looks for it only before the next entry.
        let mut reader = crate::archive::unpack::reader::Reader::new(&archive[..], Limits::default());
        let entry = reader.next_entry().unwrap().unwrap();
        prop_assert_eq!(entry.path, path);
        prop_assert_eq!(entry.kind, kind);
        prop_assert_eq!(entry.meta, meta);
        prop_assert_eq!(entry.size, size);
    }
}

#[test]
fn times_are_clamped_and_order_is_fixed() {
    let place = tempfile::tempdir().unwrap();
    for name in ["b", "a.b", "a/c", "a/B"] {
        let path = place.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, name).unwrap();
        time(&path, 2_000_000_000, 5);
    }
    time(&place.path().join("b"), 999, 5);
    let (gz, packed, contents) =
        packed(place.path(), &Deferred::default(), &Options { epoch: 1000, ..Options::default() });
    let plain = plain(&gz);
    let all = entries(&plain, Limits::default()).unwrap();
    let names: Vec<_> = all.iter().map(|entry| entry.path.to_str().unwrap()).collect();
    assert_eq!(names, ["", "a", "a/B", "a/c", "a.b", "b"]);
    assert_eq!(all[5].meta.mtime, Time { sec: 999, nsec: 5 });
    assert!(all[..5].iter().all(|entry| entry.meta.mtime == Time { sec: 1000, nsec: 0 }));
    assert_eq!(packed.entries, 6);
    assert_eq!(contents.lines().count(), 6);
    assert_eq!((packed.size, packed.tar_size), (gz.len() as u64, plain.len() as u64));
    assert_eq!((packed.sha256, packed.diff_id), (Sha256::of(&gz), Sha256::of(&plain)));
}

#[test]
fn a_time_in_a_span_of_work_counts_as_the_latest_time() {
    let options = Options { epoch: 1000, spans: vec![100..=110, 500..=500], ..Options::default() };
    let of = |sec| options.clamped(Time { sec, nsec: 7 });
    for plain in [-5, 99, 111, 499, 501] {
        assert_eq!(of(plain), Time { sec: plain, nsec: 7 });
    }
    for new in [100, 110, 500, 1000, 1001] {
        assert_eq!(of(new), Time { sec: 1000, nsec: 0 }, "{new}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let place = tempfile::tempdir().unwrap();
    let mut noise = 1u64;
    let data: Vec<u8> = (0..5_000_000)
        .map(|at| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if at % 3 == 0 { (noise >> 60) as u8 } else { b'x' }
        })
        .collect();
    fs_err::write(place.path().join("big"), &data).unwrap();
    fs_err::write(place.path().join("zeros"), vec![0; 3 << 20]).unwrap();
    let with = |threads| packed(place.path(), &Deferred::default(), &Options { threads, ..Options::default() });
    let (one, about, _) = with(1);
    for threads in [2, 4, 13] {
        let (other, about_other, _) = with(threads);
        assert!(one == other, "{threads} threads");
        assert_eq!(about, about_other);
    }
    let tree = tempfile::tempdir().unwrap();
    unpack(&one, tree.path()).unwrap();
    assert!(fs_err::read(tree.path().join("big")).unwrap() == data);
}

#[test]
fn every_format_holds_the_same_archive_for_any_number_of_threads() {
    let place = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..9_000_000u64).map(|at| (at.wrapping_mul(at) >> 20) as u8).collect();
    fs_err::write(place.path().join("big"), data).unwrap();
    let with = |format, threads| {
        packed(place.path(), &Deferred::default(), &Options { format, threads, level: Some(1), ..Options::default() })
    };
    let (plain, about, _) = with(Format::Plain, 1);
    assert_eq!((about.size, &about.sha256), (about.tar_size, &about.diff_id));
    for (format, program) in [(Format::Gzip, "gzip"), (Format::Xz, "xz"), (Format::Zstd, "zstd")] {
        let (one, told, _) = with(format, 1);
        assert_eq!((told.tar_size, &told.diff_id), (about.tar_size, &about.diff_id), "{program}");
        assert!(one == with(format, 3).0, "{program}");
        let file = place.path().with_extension(program);
        fs_err::write(&file, &one).unwrap();
        let output = Command::new(program).arg("-dc").stdin(fs_err::File::open(&file).unwrap().into_file()).output();
        fs_err::remove_file(&file).unwrap();
        let output = output.unwrap();
        assert!(output.status.success() && output.stdout == plain, "{program}");
        let mut decoded = Vec::new();
        let mut decoder = crate::archive::unpack::decode::Decoder::new(io::Cursor::new(one)).unwrap();
        io::Read::read_to_end(&mut decoder, &mut decoded).unwrap();
        assert!(decoded == plain, "{program}");
    }
}

#[test]
fn holes_give_the_same_bytes_as_zeros() {
    let place = tempfile::tempdir().unwrap();
    let (holes, zeros) = (place.path().join("holes"), place.path().join("zeros"));
    // Data begins and ends at chunks, in the middle of a block, at the end, or nowhere.
    let size = 20 << 20;
    let cases: [&[usize]; 5] = [&[], &[0], &[3 << 20, (9 << 20) - 1], &[size - 1], &[4097, 8 << 20]];
    for (number, data) in cases.iter().enumerate() {
        let mut all = vec![0; size];
        data.iter().for_each(|at| all[*at] = 7);
        for dir in [&holes, &zeros] {
            fs_err::create_dir_all(dir).unwrap();
            let path = dir.join(number.to_string());
            if *dir == zeros {
                fs_err::write(&path, &all).unwrap();
            } else {
                let file = fs_err::File::create(&path).unwrap();
                file.set_len(size as u64).unwrap();
                let write = |at| std::os::unix::fs::FileExt::write_all_at(file.file(), &[7], at as u64).unwrap();
                data.iter().copied().for_each(write);
                use std::os::unix::fs::MetadataExt;
                assert!(file.metadata().unwrap().blocks() < 1000, "this file system has no holes");
            }
            time(&path, 1, 0);
        }
    }
    let of = |tree: &Path| {
        time(tree, 1, 0);
        packed(tree, &Deferred::default(), &Options { level: Some(1), ..Options::default() })
    };
    let (with, without) = (of(&holes), of(&zeros));
    assert_eq!(with.1, without.1);
    assert!(with.0 == without.0);
}

#[test]
fn deferred_nodes_come_back_unless_another_file_has_the_name() {
    let place = tempfile::tempdir().unwrap();
    fs_err::create_dir(place.path().join("dev")).unwrap();
    fs_err::write(place.path().join("dev/tty"), "in the way").unwrap();
    let node = |minor| Node {
        block: false,
        major: 5,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 5,
        mtime: Time { sec: 7, nsec: 0 },
        xattrs: Vec::new(),
        inode: 0,
    };
    let mut record = Deferred::default();
    for (minor, path) in ["dev/tty", "dev/console", "dev/zzz", "gone/tty"].into_iter().enumerate() {
        record.add_node(path.into(), node(minor as u32));
    }
    assert!(record.link_node(Path::new("dev/zzz"), "dev/yyy".into(), record.next_inode()));
    record.add_xattr(Path::new("dev/tty"), b"user.kept".to_vec(), b"v".to_vec());
    let (gz, ..) = packed(place.path(), &record, &Options::default());
    let all = entries(&plain(&gz), Limits::default()).unwrap();
    let found: Vec<_> = all.iter().map(|entry| (entry.path.to_str().unwrap(), entry.kind.clone())).collect();
    assert_eq!(
        found,
        [
            ("", NodeKind::Dir),
            ("dev", NodeKind::Dir),
            ("dev/console", NodeKind::Char(5, 1)),
            ("dev/tty", NodeKind::File),
            ("dev/yyy", NodeKind::Char(5, 2)),
            ("dev/zzz", NodeKind::Hardlink("dev/yyy".into()))
        ]
    );
    assert_eq!(all[3].meta.xattrs, [(b"user.kept".to_vec(), b"v".to_vec())]);
    assert_eq!((all[2].meta.mode, all[2].meta.gid, all[2].meta.mtime.sec), (0o666, 5, 7));
}

/// Returns the error of packing `tree`.
fn refused(tree: &Path, record: &Deferred, options: &Options) -> Error {
    let mut file = tempfile::tempfile().unwrap();
    let root = Rootfs::open(tree).unwrap();
    pack(Tree { root: &root, deferred: record, part: None }, Outputs::archive(&mut file), options, &Silent).unwrap_err()
}

#[test]
fn more_attributes_than_the_reader_accepts_are_not_packed() {
    let place = tempfile::tempdir().unwrap();
    fs_err::write(place.path().join("f"), "x").unwrap();
    let with = |count: usize, bytes| {
        let mut record = Deferred::default();
        (0..count)
            .for_each(|at| record.add_xattr(Path::new("f"), format!("user.{at}").into_bytes(), vec![b'x'; bytes]));
        record
    };
    let (gz, ..) = packed(place.path(), &with(17, 60_000), &Options::default());
    assert_eq!(entries(&plain(&gz), Limits::default()).unwrap()[1].meta.xattrs.len(), 17);
    let error = refused(place.path(), &with(18, 60_000), &Options::default());
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("packing f in ") && error.hint().is_some(), "{error}");
}

#[test]
fn attributes_of_the_host_are_left_out() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("f");
    fs_err::write(&file, "x").unwrap();
    // The kernel allows an ordinary user only the first.
    let set = |name: &str| rustix::fs::setxattr(&file, name, b"v", rustix::fs::XattrFlags::empty());
    set("user.kept").unwrap();
    let _ = ["security.SMACK64", "security.evm"].map(set);
    let mut record = Deferred::default();
    for name in ["security.apparmor", "security.ima", "system.nfs4_acl"] {
        record.add_xattr(Path::new("f"), name.into(), b"v".to_vec());
    }
    let (gz, ..) = packed(place.path(), &record, &Options::default());
    let all = entries(&plain(&gz), Limits::default()).unwrap();
    let names: Vec<_> = all[1].meta.xattrs.iter().map(|(name, _)| str::from_utf8(name).unwrap()).collect();
    assert_eq!(names, ["security.ima", "user.kept"]);
}

#[test]
fn a_file_that_is_modified_meanwhile_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("f");
    // Far more than the packer buffers.
    let size = 48 << 20;
    fs_err::write(&file, vec![b'x'; size]).unwrap();
    let grow = || fs_err::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"y").unwrap();
    let touch = || time(&file, 5, 0);
    let cut = || fs_err::OpenOptions::new().write(true).open(&file).unwrap().set_len(size as u64 - 1).unwrap();
    for change in [&grow as &(dyn Fn() + Sync), &cut, &touch] {
        let (mut from, to) = io::pipe().unwrap();
        let error = std::thread::scope(|scope| {
            scope.spawn(move || {
                // Wait until the packer has read a part of it.
                io::Read::read_exact(&mut from, &mut [0]).unwrap();
                change();
                io::copy(&mut from, &mut io::sink()).unwrap();
            });
            let options = Options { format: Format::Plain, threads: 1, ..Options::default() };
            let mut out = File::from(OwnedFd::from(to));
            let root = Rootfs::open(place.path()).unwrap();
            let tree = Tree { root: &root, deferred: &Deferred::default(), part: None };
            pack(tree, Outputs::archive(&mut out), &options, &Silent)
        });
        let error = error.unwrap_err();
        assert!(error.exit_code() == 4 && error.to_string().contains("reading f in "), "{error}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    fs_err::write(place.path().join("f"), vec![7; 9 << 20]).unwrap();
    let Ok(mut full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let root = Rootfs::open(place.path()).unwrap();
    let mut contents = Vec::new();
    let outputs = Outputs { contents: Some(&mut contents), ..Outputs::archive(&mut full) };
    let tree = Tree { root: &root, deferred: &Deferred::default(), part: None };
    let error = pack(tree, outputs, &Options::default(), &Silent).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.hint().is_some());
}

#[test]
fn hard_links_are_stored_once_under_their_first_name() {
    let place = tempfile::tempdir().unwrap();
    fs_err::create_dir(place.path().join("b")).unwrap();
    fs_err::write(place.path().join("z"), "data").unwrap();
    fs_err::hard_link(place.path().join("z"), place.path().join("b/y")).unwrap();
    fs_err::os::unix::fs::symlink("t", place.path().join("l")).unwrap();
    rustix::fs::linkat(
        rustix::fs::CWD,
        place.path().join("l"),
        rustix::fs::CWD,
        place.path().join("m"),
        AtFlags::empty(),
    )
    .unwrap();
    let mut record = Deferred::default();
    record.add_xattr(Path::new("z"), b"trusted.kept".to_vec(), b"v".to_vec());
    let (gz, ..) = packed(place.path(), &record, &Options::default());
    let all = entries(&plain(&gz), Limits::default()).unwrap();
    let with_attributes: Vec<_> =
        all.iter().filter(|entry| !entry.meta.xattrs.is_empty()).map(|entry| &entry.path).collect();
    assert_eq!(with_attributes, [Path::new("b/y")]);
    let kinds: BTreeMap<_, _> = all.iter().map(|entry| (entry.path.to_str().unwrap(), entry.kind.clone())).collect();
    assert_eq!(kinds["b/y"], NodeKind::File);
    assert_eq!(kinds["z"], NodeKind::Hardlink("b/y".into()));
    assert_eq!(kinds["m"], NodeKind::Hardlink("l".into()));
}

#[test]
fn sockets_are_left_out_and_mounts_are_not_entered() {
    let place = tempfile::tempdir().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(place.path().join("socket")).unwrap();
    let (_, packed, _) = packed(place.path(), &Deferred::default(), &Options::default());
    assert_eq!(packed.entries, 1);
    let root = Rootfs::open(Path::new("/")).unwrap();
    let result =
        walk::walk(Tree { root: &root, deferred: &Deferred::default(), part: None }, &[], &Silent, &mut |item| {
            // The walk ends at /proc.
            assert!(!item.path.starts_with("proc/self"));
            if item.path.starts_with("proc") { Err(Error::build("entered")) } else { Ok(()) }
        });
    assert!(result.is_err_and(|error| error.kind() == crate::base::error::Kind::System));
}

#[test]
fn a_directory_that_is_replaced_meanwhile_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let (top, other) = (place.path().join("a"), place.path().join("b"));
    // Deeper than the walker keeps directories open.
    let deep: PathBuf = ["a"].into_iter().chain(["d"; 80]).collect();
    fs_err::create_dir_all(place.path().join(&deep)).unwrap();
    fs_err::write(top.join("z"), "of the first").unwrap();
    let root = Rootfs::open(place.path()).unwrap();
    let mut seen = Vec::new();
    let walked =
        walk::walk(Tree { root: &root, deferred: &Deferred::default(), part: None }, &[], &Silent, &mut |item| {
            if item.path == deep {
                fs_err::rename(&top, &other).unwrap();
                fs_err::create_dir_all(place.path().join(&deep)).unwrap();
                fs_err::write(top.join("z"), "of the second").unwrap();
            }
            seen.push(item.path);
            Ok(())
        });
    assert!(walked.unwrap_err().to_string().ends_with(": it was replaced while the tree was packed"));
    assert_eq!(seen.last(), Some(&deep));
}
