use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tar::EntryType;

use super::{Tar, code, is_root, unpack};
use crate::archive::unpack::{Limits, Unpacker, acl};
use crate::base::error::Kind;
use crate::base::progress::Silent;
use crate::fs::rootfs::Rootfs;

fn xz(plain: &[u8]) -> Vec<u8> {
    let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn gz(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn bz2(plain: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn sample() -> Vec<u8> {
    Tar::default().dir("./").dir("./d/").file("./d/f", &b"content ".repeat(300_000)).symlink("./l", "/d/f").end()
}

fn good(archive: &[u8]) {
    let place = tempfile::tempdir().unwrap();
    unpack(archive, place.path()).unwrap();
    assert_eq!(fs_err::read(place.path().join("d/f")).unwrap(), b"content ".repeat(300_000));
    assert_eq!(fs_err::read_link(place.path().join("l")).unwrap(), Path::new("/d/f"));
    assert_eq!(fs_err::metadata(place.path()).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs_err::metadata(place.path().join("d")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs_err::metadata(place.path().join("d/f")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn the_content_decides_the_format() {
    let plain = sample();
    good(&plain);
    good(&xz(&plain));
    good(&gz(&plain));
    good(&bz2(&plain));
    let zst = zstd::encode_all(&plain[..], 1).unwrap();
    good(&zst);
    good(&[&b"\x50\x2a\x4d\x18\x04\0\0\0skip"[..], &zst].concat());
    // Several streams, members or frames behind each other are one file.
    let (first, second) = plain.split_at(plain.len() / 3);
    good(&[xz(first), vec![0; 8], xz(second)].concat());
    good(&[gz(first), gz(second)].concat());
    good(&[bz2(first), bz2(second)].concat());
    let place = tempfile::tempdir().unwrap();
    let error = unpack(b"BZh91AY&SY and so on", place.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
}

#[test]
fn truncated_and_changed_files_are_refused() {
    let plain = sample();
    for packed in [xz(&plain), gz(&plain), bz2(&plain), zstd::encode_all(&plain[..], 1).unwrap(), plain.clone()] {
        for keep in [packed.len() - 20, packed.len() / 2, 100, 3, 0] {
            let place = tempfile::tempdir().unwrap();
            let error = unpack(&packed[..keep.min(packed.len())], place.path()).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{keep} of {}: {error}", packed.len());
        }
    }
    let place = tempfile::tempdir().unwrap();
    let error = unpack(&gz(&Tar::default().file("f", &plain).0[..1000]), place.path()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "entry f at byte 0: the archive is cut off [truncated]");
    // The checksum of the .xz file comes after the end of the archive and is still verified.
    let mut packed = xz(&[plain.clone(), vec![0; 8192]].concat());
    let at = packed.len() - 40;
    packed[at] ^= 1;
    let place = tempfile::tempdir().unwrap();
    assert_eq!(unpack(&packed, place.path()).unwrap_err().kind(), Kind::Refused);
    let mut packed = xz(&plain);
    packed.extend_from_slice(b"garbage!");
    let place = tempfile::tempdir().unwrap();
    assert_eq!(unpack(&packed, place.path()).unwrap_err().kind(), Kind::Refused);
}

#[test]
fn the_size_an_xz_file_claims_is_checked_against_free_space() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&xz(&sample())).unwrap();
    assert_eq!(crate::archive::unpack::decode::claimed_size(&file), Some(sample().len() as u64));
    let place = tempfile::tempdir().unwrap();
    let root = Rootfs::open(place.path()).unwrap();
    let limits = Limits::default();
    Unpacker { name: "x", into: &root, limits: &limits, ui: &Silent }.file(file).unwrap();
}

#[test]
fn a_hard_link_to_a_symlink_is_the_symlink() {
    let place = tempfile::tempdir().unwrap();
    let archive = Tar::default().file("f", b"x").hardlink("g", "./f").symlink("l", "nowhere").hardlink("m", "/l").end();
    unpack(&archive, place.path()).unwrap();
    let inode = |name: &str| fs_err::symlink_metadata(place.path().join(name)).unwrap().ino();
    assert_eq!(inode("f"), inode("g"));
    assert_eq!(inode("l"), inode("m"));
    assert_eq!(fs_err::read_link(place.path().join("m")).unwrap(), Path::new("nowhere"));
}

#[test]
fn missing_parents_are_created_and_the_umask_is_ignored() {
    let place = tempfile::tempdir().unwrap();
    let mut header = Tar::header(b"a/b/f", EntryType::Regular, 0);
    header.set_mode(0o7777);
    unpack(&Tar::default().raw(header, b"").end(), place.path()).unwrap();
    let mode = |name: &str| fs_err::metadata(place.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/b/f")), (0o755, 0o755, 0o7777));
}

/// A directory gets the time of its entry, whatever the order of the entries. Without an entry it keeps its time.
#[test]
fn directories_keep_their_times() {
    let place = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(place.path().join("old/below")).unwrap();
    for path in ["old/below", "old"] {
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(5, 7);
        fs_err::File::open(place.path().join(path)).unwrap().set_modified(old).unwrap();
    }
    let archive = Tar::default()
        .dir("a/")
        .dir("b/")
        .file("a/f", b"x")
        .file("c/d/f", b"x")
        .dir("c/")
        .file("a/new/deep/f", b"x")
        .symlink("a/l", "/b")
        .file("a/l/f", b"x")
        .hardlink("a/l/g", "a/f")
        .dir("c/d/")
        .file("old/below/f", b"x")
        .file("old/new/f", b"x")
        .end();
    unpack(&archive, place.path()).unwrap();
    let time =
        |name: &str| fs_err::metadata(place.path().join(name)).map(|meta| (meta.mtime(), meta.mtime_nsec())).unwrap();
    for path in ["a", "b", "c", "c/d", "b/g"] {
        assert_eq!(time(path), (1_000_000_000, 0), "{path}");
    }
    assert_eq!((time("old"), time("old/below")), ((5, 7), (5, 7)));
}

/// An ACL with a named user, in binary form.
const LIST: &[u8] = b"\x02\0\0\0\
    \x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x05\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
    \x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";

/// The image specification says: "If the entry and the existing path are both directories, then the existing path's attributes
/// MUST be replaced by those of the entry". New files get the attributes in the archive and inherit none.
#[test]
fn attributes_of_directories_are_replaced_and_never_inherited() {
    use rustix::fs::{XattrFlags, getxattr, listxattr, setxattr};
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    fs_err::create_dir_all(path("named/below")).unwrap();
    fs_err::create_dir(path("unnamed")).unwrap();
    for dir in ["", "named", "named/below", "unnamed"] {
        setxattr(path(dir), "user.old", b"old", XattrFlags::empty()).unwrap();
        setxattr(path(dir), "system.posix_acl_default", LIST, XattrFlags::empty()).unwrap();
    }
    setxattr(path("named"), "system.posix_acl_access", LIST, XattrFlags::empty()).unwrap();
    let file = |tar: Tar, name: &str| tar.file(name, b"x");
    let archive = Tar::default().pax(&[("SCHILY.xattr.user.new", b"new")]).dir("named/");
    let archive =
        ["named/f", "named/new/f", "named/below/f", "unnamed/f", "unnamed/new/f", "f"].into_iter().fold(archive, file);
    unpack(&archive.dir("named/twice/").dir("named/twice/").end(), place.path()).unwrap();
    let names = |name: &str| {
        let mut list = [0u8; 256];
        let length = listxattr(path(name), &mut list[..]).unwrap();
        String::from_utf8(list[..length].to_vec()).unwrap().replace("security.selinux\0", "")
    };
    assert_eq!(names("named"), "user.new\0");
    assert_eq!(fs_err::metadata(path("named")).unwrap().mode() & 0o7777, 0o755);
    for new in ["named/f", "named/new", "named/new/f", "named/twice", "named/below/f", "unnamed/f", "unnamed/new", "f"]
    {
        assert_eq!(names(new), "", "{new}");
    }
    let mut list = [0u8; 256];
    for kept in ["", "named/below", "unnamed"] {
        assert_eq!(getxattr(path(kept), "user.old", &mut list[..]), Ok(3), "{kept}");
        assert_eq!(getxattr(path(kept), "system.posix_acl_default", &mut list[..]), Ok(LIST.len()), "{kept}");
    }
}

#[test]
fn a_default_acl_of_the_root_does_not_change_modes() {
    let place = tempfile::tempdir().unwrap();
    let list = acl::parse(b"user::rwx,group::---,other::---").unwrap();
    let root = Rootfs::open(place.path()).unwrap();
    match rustix::fs::fsetxattr(root.fd(), acl::DEFAULT, &list, rustix::fs::XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => return,
        other => other.unwrap(),
    }
    let mut header = Tar::header(b"f", EntryType::Regular, 0);
    header.set_mode(0o664);
    unpack(&Tar::default().raw(header, b"").file("d/f", b"").end(), place.path()).unwrap();
    let mode = |name: &str| fs_err::metadata(place.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("f"), mode("d/f")), (0o664, 0o644));
}

#[test]
fn an_unreadable_directory_still_gets_its_content() {
    let place = tempfile::tempdir().unwrap();
    let mut header = Tar::header(b"d/", EntryType::Directory, 0);
    header.set_mode(0);
    unpack(&Tar::default().raw(header, b"").file("d/f", b"x").end(), place.path()).unwrap();
    assert_eq!(fs_err::metadata(place.path().join("d")).unwrap().mode() & 0o7777, 0);
    Rootfs::open(place.path()).unwrap().remove(Path::new("d")).unwrap();
    assert!(!place.path().join("d").exists());
}

#[test]
fn holes_stay_holes() {
    let place = tempfile::tempdir().unwrap();
    let size = 64u64 << 20;
    let map = format!("4096,3,{size},0");
    let archive = Tar::default()
        .pax(&[
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.size", size.to_string().as_bytes()),
            ("GNU.sparse.name", b"sparse"),
        ])
        .file("GNUSparseFile.0/sparse", b"abc")
        .end();
    unpack(&archive, place.path()).unwrap();
    let meta = fs_err::metadata(place.path().join("sparse")).unwrap();
    assert_eq!(meta.len(), size);
    assert!(meta.blocks() < 64, "{} blocks", meta.blocks());
    assert_eq!(&fs_err::read(place.path().join("sparse")).unwrap()[4095..4100], b"\0abc\0");
}

#[test]
fn long_runs_of_zeros_become_holes() {
    use std::os::unix::fs::MetadataExt as _;
    let place = tempfile::tempdir().unwrap();
    let zeros = |count: usize| vec![0u8; count];
    let cases = [
        [vec![7; 100_001], zeros(5 << 20), vec![8; 3], zeros(9 << 20)].concat(),
        [zeros(3 << 20), vec![1]].concat(),
        zeros(2 << 20),
        [vec![1; 5000], zeros(60_000), vec![2; 5000]].concat(),
    ];
    let archive =
        cases.iter().enumerate().fold(Tar::default(), |tar, (at, data)| tar.file(&at.to_string(), data)).end();
    unpack(&archive, place.path()).unwrap();
    for (at, data) in cases.iter().enumerate() {
        let path = place.path().join(at.to_string());
        assert!(fs_err::read(&path).unwrap() == *data, "{at}");
        let blocks = fs_err::metadata(&path).unwrap().blocks();
        assert!(blocks < 300, "{at}: {blocks} blocks");
    }
}

#[test]
fn root_everything_is_restored() {
    if !is_root("root_everything_is_restored") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut node = Tar::header(b"null", EntryType::Char, 0);
    node.set_device_major(1).unwrap();
    node.set_device_minor(3).unwrap();
    node.set_mode(0o666);
    node.set_gid(5);
    let mut setuid = Tar::header(b"su", EntryType::Regular, 1);
    setuid.set_mode(0o4711);
    setuid.set_uid(1234);
    setuid.set_gid(4321);
    let mut link = Tar::header(b"link", EntryType::Symlink, 0);
    link.as_mut_bytes()[157] = b'x';
    link.set_uid(77);
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let archive = Tar::default()
        .raw(node, b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("SCHILY.xattr.system.nfs4_acl", b"list"),
            ("mtime", b"1234567890.123456789"),
        ])
        .raw(setuid, b"s")
        .raw(link, b"")
        .entry("pipe", EntryType::Fifo, "", b"")
        .end();
    let deferred = unpack(&archive, place.path()).unwrap();
    assert!(deferred.is_empty(), "{deferred:?}");
    let about = |name: &str| fs_err::symlink_metadata(place.path().join(name)).unwrap();
    let null = about("null");
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o7777, null.gid(), null.mtime()), (0x103, 0o666, 5, 1_000_000_000));
    let su = about("su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4711, 1234, 4321));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_234_567_890, 123_456_789));
    let mut value = [0u8; 64];
    let length = rustix::fs::getxattr(place.path().join("su"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..length], capability);
    assert_eq!((about("link").uid(), about("link").mtime()), (77, 1_000_000_000));
    assert!(about("pipe").file_type().is_fifo());
}

#[test]
fn a_link_to_nothing_is_refused() {
    let place = tempfile::tempdir().unwrap();
    assert_eq!(code(&unpack(&Tar::default().hardlink("a", "b").end(), place.path()).unwrap_err()), "bad-link");
}
