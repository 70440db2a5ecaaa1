//! Unpacking over existing files, and over files of the same archive.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use tar::EntryType;

use super::{Tar, code, is_root, unpack};
use crate::archive::unpack::decode::Decoder;
use crate::archive::unpack::{Deferred, Limits, Unpacker, acl};
use crate::base::progress::Silent;
use crate::fs::rootfs::Rootfs;

/// Unpacks a layer over the layers `below`.
fn layer(archive: Vec<u8>, into: &Path, below: Deferred) -> crate::base::error::Result<Deferred> {
    let (root, limits) = (Rootfs::open(into)?, Limits::default());
    let decoder = Decoder::new(std::io::Cursor::new(archive)).unwrap();
    let unpacker = Unpacker { name: "layer", into: &root, limits: &limits, ui: &Silent };
    unpacker.layer(decoder, 0, below, &mut |_| Ok(true))
}

#[test]
fn only_layers_replace_a_directory_that_is_not_empty() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    fs_err::create_dir_all(path("full/deep")).unwrap();
    fs_err::write(path("full/deep/f"), "mine").unwrap();
    fs_err::create_dir(path("empty")).unwrap();
    fs_err::write(path("file"), "old").unwrap();
    let good = Tar::default().file("empty", b"new").dir("file/").symlink("link", "x").file("link", b"new").end();
    unpack(&good, place.path()).unwrap();
    assert_eq!(fs_err::read(path("empty")).unwrap(), b"new");
    assert!(path("file").is_dir());
    assert_eq!(fs_err::read(path("link")).unwrap(), b"new");
    let over = |kind| Tar::default().entry("full", kind, "file", b"").end();
    for kind in [EntryType::Regular, EntryType::Symlink, EntryType::Fifo, EntryType::Link] {
        let error = unpack(&over(kind), place.path()).unwrap_err();
        assert_eq!(code(&error), "directory-in-the-way", "{kind:?}");
        assert_eq!(fs_err::read(path("full/deep/f")).unwrap(), b"mine", "{kind:?}");
    }
    // The directory may come from the same archive.
    let own = Tar::default().dir("a/").file("a/1", b"").file("a", b"").end();
    assert_eq!(code(&unpack(&own, place.path()).unwrap_err()), "directory-in-the-way");
    let deferred = layer(over(EntryType::Regular), place.path(), Deferred::default()).unwrap();
    assert!(deferred.is_empty() && path("full").is_file());
}

#[test]
fn deferred_attributes_of_a_directory_come_from_its_last_entry() {
    let place = tempfile::tempdir().unwrap();
    // The kernel refuses these capabilities.
    let dir = |archive: Tar, value: &[u8]| archive.pax(&[("SCHILY.xattr.security.capability", value)]).dir("d/");
    let deferred = unpack(&dir(dir(Tar::default(), b"1"), b"2").end(), place.path()).unwrap();
    assert_eq!(deferred.xattrs()[Path::new("d")], [(b"security.capability".to_vec(), b"2".to_vec())]);
    let deferred = unpack(&dir(Tar::default(), b"1").dir("d/").end(), tempfile::tempdir().unwrap().path()).unwrap();
    assert!(deferred.is_empty(), "the second entry has none");
}

#[test]
fn a_directory_behind_a_symlink_is_reopened() {
    let place = tempfile::tempdir().unwrap();
    let mut archive = Tar::default().dir("d/").symlink("l", "d");
    let mut path = "l".to_owned();
    for _ in 0..100 {
        path += "/0";
        archive = archive.pax(&[("path", path.as_bytes())]).dir("x/");
    }
    let far = format!("{path}/f");
    let archive = archive.pax(&[("path", far.as_bytes())]).file("x", b"far").file("l/f", b"near").end();
    unpack(&archive, place.path()).unwrap();
    assert_eq!(fs_err::read(place.path().join("d/f")).unwrap(), b"near");
    assert_eq!(fs_err::read(place.path().join(far)).unwrap(), b"far");
}

#[test]
fn a_refused_archive_leaves_the_acl_of_a_directory() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("d");
    fs_err::create_dir(&dir).unwrap();
    let list = acl::parse(b"user::rwx,user:1000:rwx,group::r-x,mask::rwx,other::r-x").unwrap();
    setxattr(&dir, acl::DEFAULT, &list, XattrFlags::empty()).unwrap();
    let before = fs_err::metadata(&dir).unwrap();
    let archive = Tar::default().file("d/f", b"").file("d/../x", b"").end();
    assert_eq!(code(&unpack(&archive, place.path()).unwrap_err()), "parent-in-name");
    let mut found = [0; 100];
    let length = getxattr(&dir, acl::DEFAULT, &mut found[..]).unwrap();
    assert!(acl::same(&found[..length], &list));
    let after = fs_err::metadata(&dir).unwrap();
    assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
}

#[test]
fn files_in_a_setgid_directory_belong_to_root() {
    if !is_root("files_in_a_setgid_directory_belong_to_root") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let group = |name: &str| fs_err::symlink_metadata(path(name)).unwrap().gid();
    for name in ["theirs", "b"] {
        fs_err::create_dir(path(name)).unwrap();
    }
    std::os::unix::fs::chown(path("theirs"), None, Some(5)).unwrap();
    fs_err::set_permissions(path("theirs"), std::os::unix::fs::PermissionsExt::from_mode(0o2755)).unwrap();
    let mut becomes_theirs = Tar::header(b"b/up/b/", EntryType::Directory, 0);
    becomes_theirs.set_mode(0o2755);
    becomes_theirs.set_gid(5);
    let archive = Tar::default()
        .symlink("theirs/first", "x")
        .file("theirs/f", b"")
        .symlink("theirs/l", "x")
        .dir("theirs/d/")
        .entry("theirs/p", EntryType::Fifo, "", b"")
        .file("b/one", b"")
        .symlink("b/up", "..")
        // The same directory. So far, new files in it belonged to root.
        .raw(becomes_theirs, b"")
        .file("b/two", b"")
        .end();
    unpack(&archive, place.path()).unwrap();
    assert_eq!([group("theirs"), group("b")], [5, 5]);
    for name in ["theirs/first", "theirs/f", "theirs/l", "theirs/d", "theirs/p", "b/one", "b/up", "b/two"] {
        assert_eq!(group(name), 0, "{name}");
    }
}
