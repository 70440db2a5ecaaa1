//! Archives that try to change files outside the tree. Each is unpacked next to a canary that must not change.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use tar::EntryType;

use super::{Tar, code, unpack};

/// Unpacks an archive next to a canary, and asserts that nothing outside the tree changes.
fn beside_canary(
    archive: impl Fn(&Path) -> Vec<u8>,
    check: impl Fn(crate::base::error::Result<crate::archive::unpack::Deferred>, &Path),
) {
    let place = tempfile::tempdir().unwrap();
    let (tree, canary) = (place.path().join("tree"), place.path().join("canary"));
    fs_err::create_dir(&tree).unwrap();
    fs_err::create_dir(&canary).unwrap();
    fs_err::write(canary.join("file"), "alive").unwrap();
    let state = || {
        let about =
            |path: &Path| fs_err::metadata(path).map(|m| (m.mode(), m.mtime(), m.ctime_nsec(), m.nlink())).unwrap();
        (about(place.path()), about(&canary), about(&canary.join("file")), fs_err::read_dir(&canary).unwrap().count())
    };
    let before = state();
    check(unpack(&archive(&canary), &tree), &tree);
    assert_eq!(state(), before, "something outside the tree changed");
    assert_eq!(fs_err::read(canary.join("file")).unwrap(), b"alive");
}

#[test]
fn symlinks_stay_inside() {
    // An absolute symlink to the canary is resolved inside the tree.
    let through =
        |canary: &Path| Tar::default().symlink("out", canary.to_str().unwrap()).file("out/file", b"dead").end();
    beside_canary(through, |result, _| assert_eq!(code(&result.unwrap_err()), "bad-parent"));

    let up = |_: &Path| Tar::default().symlink("out", "../canary").file("out/file", b"dead").end();
    beside_canary(up, |result, _| assert_eq!(code(&result.unwrap_err()), "bad-parent"));

    // If the tree has a directory of that name, the file goes there.
    let up = |_: &Path| Tar::default().dir("canary/").symlink("out", "../../../canary").file("out/file", b"in").end();
    beside_canary(up, |result, tree| {
        result.unwrap();
        assert_eq!(fs_err::read(tree.join("canary/file")).unwrap(), b"in");
    });
}

#[test]
fn nothing_is_written_through_a_symlink() {
    let twice = |canary: &Path| {
        let file = canary.join("file");
        Tar::default().symlink("x", file.to_str().unwrap()).file("x", b"dead").end()
    };
    beside_canary(twice, |result, _| assert_eq!(code(&result.unwrap_err()), "duplicate-entry"));
}

#[test]
fn a_directory_is_not_replaced_by_a_symlink() {
    let swapped =
        |canary: &Path| Tar::default().dir("d/").symlink("d", canary.to_str().unwrap()).file("d/file", b"dead").end();
    beside_canary(swapped, |result, _| assert_eq!(code(&result.unwrap_err()), "duplicate-entry"));
    // A symlink, then a directory in its place, whose mode would be set through the symlink.
    let chmod = |canary: &Path| Tar::default().symlink("d", canary.to_str().unwrap()).dir("d/").end();
    beside_canary(chmod, |result, _| assert_eq!(code(&result.unwrap_err()), "duplicate-entry"));
}

#[test]
fn names_with_dots_are_refused() {
    let climb = |_: &Path| Tar::default().file("../canary/file", b"dead").end();
    beside_canary(climb, |result, _| assert_eq!(code(&result.unwrap_err()), "parent-in-name"));
    let climb = |_: &Path| Tar::default().dir("a/").file("a/../../canary/file", b"dead").end();
    beside_canary(climb, |result, _| assert_eq!(code(&result.unwrap_err()), "parent-in-name"));
    let absolute = |canary: &Path| {
        let name = canary.join("file");
        let data = b"in";
        Tar::default().pax(&[("path", name.to_str().unwrap().as_bytes())]).file("x", data).end()
    };
    beside_canary(absolute, |result, _| drop(result.unwrap()));
}

#[test]
fn hard_links_stay_inside() {
    let out = |canary: &Path| {
        let target = canary.join("file");
        Tar::default().pax(&[("linkpath", target.to_str().unwrap().as_bytes())]).hardlink("h", "x").end()
    };
    beside_canary(out, |result, _| assert_eq!(code(&result.unwrap_err()), "bad-link"));
    let up = |_: &Path| Tar::default().hardlink("h", "../canary/file").end();
    beside_canary(up, |result, _| assert_eq!(code(&result.unwrap_err()), "parent-in-name"));
    let through = |_: &Path| Tar::default().symlink("out", "../canary").hardlink("h", "out/file").file("h", b"x").end();
    beside_canary(through, |result, _| assert_eq!(code(&result.unwrap_err()), "bad-link"));
    let dir = |_: &Path| Tar::default().dir("d/").hardlink("h", "d").end();
    beside_canary(dir, |result, _| assert_eq!(code(&result.unwrap_err()), "bad-link"));
}

#[test]
fn the_root_is_not_replaced() {
    for name in ["/.", "./", "/", "."] {
        let link = |canary: &Path| Tar::default().symlink(name, canary.to_str().unwrap()).file("file", b"dead").end();
        beside_canary(link, |result, _| assert_eq!(code(&result.unwrap_err()), "root-replaced"));
    }
    let file = |_: &Path| Tar::default().file(".", b"").end();
    beside_canary(file, |result, _| assert_eq!(code(&result.unwrap_err()), "root-replaced"));
}

#[test]
fn nothing_is_written_through_existing_symlinks() {
    let place = tempfile::tempdir().unwrap();
    let (tree, canary) = (place.path().join("tree"), place.path().join("canary"));
    fs_err::create_dir_all(&canary).unwrap();
    fs_err::create_dir(&tree).unwrap();
    fs_err::write(canary.join("file"), "alive").unwrap();
    symlink(canary.join("file"), tree.join("file")).unwrap();
    symlink(&canary, tree.join("dir")).unwrap();
    let archive = Tar::default().file("file", b"new").dir("dir/").file("dir/file", b"new").end();
    unpack(&archive, &tree).unwrap();
    assert_eq!(fs_err::read(canary.join("file")).unwrap(), b"alive");
    for path in ["file", "dir/file"] {
        assert_eq!(fs_err::read(tree.join(path)).unwrap(), b"new");
        assert!(fs_err::symlink_metadata(tree.join(path)).unwrap().is_file());
    }
}

#[test]
fn errors_name_the_entry_and_its_offset() {
    let place = tempfile::tempdir().unwrap();
    let archive = Tar::default().file("ok", b"x").file("bad\x1b[31m/../x", b"").end();
    let error = unpack(&archive, place.path()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.exit_code(), 3);
    assert_eq!(cause, "entry bad\\x1b[31m/../x at byte 1024: its name contains `..` [parent-in-name]");
}

#[test]
fn attributes_of_overlayfs_are_not_restored() {
    let place = tempfile::tempdir().unwrap();
    let archive = Tar::default().pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")]).dir("d/").end();
    let deferred = unpack(&archive, place.path()).unwrap();
    assert!(deferred.is_empty());
    let mut list = [0u8; 256];
    assert_eq!(rustix::fs::listxattr(place.path().join("d"), &mut list[..]).unwrap(), 0);
}

#[test]
fn whiteouts_of_overlayfs_are_deferred() {
    let place = tempfile::tempdir().unwrap();
    let mut header = Tar::header(b"gone", EntryType::Char, 0);
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    let deferred = unpack(&Tar::default().raw(header, b"").hardlink("too", "gone").end(), place.path()).unwrap();
    assert_eq!(deferred.nodes().keys().collect::<Vec<_>>(), [Path::new("gone"), Path::new("too")]);
    assert!(!place.path().join("gone").exists());
    let text = serde_json::to_string(&deferred).unwrap();
    assert_eq!(serde_json::from_str::<crate::archive::unpack::Deferred>(&text).unwrap(), deferred);
}

/// A deferred node makes later entries duplicates, like a file that was created.
#[test]
fn a_deferred_node_makes_later_entries_duplicates() {
    let node = |name: &str| {
        let mut header = Tar::header(name.as_bytes(), EntryType::Char, 0);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        Tar::default().raw(header, b"").0
    };
    let after = |later: Tar| {
        let place = tempfile::tempdir().unwrap();
        let base = Tar::default().dir("d/").symlink("l", "d");
        let archive = Tar([base.0, node("d/n"), later.0].concat()).end();
        unpack(&archive, place.path()).map_err(|error| code(&error)).map(|deferred| deferred.nodes().len())
    };
    for name in ["d/n", "l/n"] {
        assert_eq!(after(Tar::default().file(name, b"")), Err("duplicate-entry"), "{name}");
        assert_eq!(after(Tar::default().dir(name)), Err("duplicate-entry"), "{name}");
        assert_eq!(after(Tar(node(name))), Err("duplicate-entry"), "{name}");
        assert_eq!(after(Tar::default().file(&format!("{name}/x"), b"")), Err("bad-parent"), "{name}");
        assert_eq!(after(Tar::default().hardlink("h", name)), Ok(2), "{name}");
        assert_eq!(after(Tar::default().hardlink(name, "d/n")), Ok(1), "{name}: itself");
        assert_eq!(after(Tar::default().file("f", b"").hardlink("f", name)), Err("duplicate-entry"), "{name}");
    }
    assert_eq!(
        after(Tar(Tar::default().file("f", b"").0.into_iter().chain(node("f")).collect())),
        Err("duplicate-entry")
    );
    // In a tree with files, the later entry replaces the file.
    let place = tempfile::tempdir().unwrap();
    fs_err::write(place.path().join("gone"), "x").unwrap();
    let deferred = unpack(&Tar(node("gone")).end(), place.path()).unwrap();
    assert!(deferred.nodes().len() == 1 && !place.path().join("gone").exists());
}

#[test]
fn a_default_acl_of_a_file_is_deferred() {
    let place = tempfile::tempdir().unwrap();
    let list = ("SCHILY.acl.default", &b"user::rw-,group::r--,other::r--"[..]);
    let deferred = unpack(&Tar::default().pax(&[list]).file("f", b"x").end(), place.path()).unwrap();
    let kept: Vec<_> =
        deferred.xattrs().iter().map(|(path, xattrs)| (path.to_str().unwrap(), &xattrs[0].0[..])).collect();
    assert_eq!(kept, [("f", &b"system.posix_acl_default"[..])]);
}
