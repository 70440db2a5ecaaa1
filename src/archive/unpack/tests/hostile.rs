//! Archives that try to reach what is beside the tree. Each is unpacked next to a canary that must stay as it was.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use tar::EntryType;

use super::{Tar, code, unpack};

/// Unpacks an archive beside a canary, and asserts that the canary, and all else outside the tree, stays as it was.
fn beside_canary(
    archive: impl Fn(&Path) -> Vec<u8>,
    check: impl Fn(crate::base::error::Result<crate::archive::unpack::Record>, &Path),
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
    assert_eq!(state(), before, "something outside the tree was touched");
    assert_eq!(fs_err::read(canary.join("file")).unwrap(), b"alive");
}

#[test]
fn links_lead_nowhere_but_inside() {
    // Through an absolute link: what looks like the canary's path is looked for inside the tree.
    let through =
        |canary: &Path| Tar::default().symlink("out", canary.to_str().unwrap()).file("out/file", b"dead").end();
    beside_canary(through, |result, _| assert_eq!(code(&result.unwrap_err()), "bad-parent"));

    let up = |_: &Path| Tar::default().symlink("out", "../canary").file("out/file", b"dead").end();
    beside_canary(up, |result, _| assert_eq!(code(&result.unwrap_err()), "bad-parent"));

    // With a directory of that name inside, it goes there.
    let up = |_: &Path| Tar::default().dir("canary/").symlink("out", "../../../canary").file("out/file", b"in").end();
    beside_canary(up, |result, tree| {
        result.unwrap();
        assert_eq!(fs_err::read(tree.join("canary/file")).unwrap(), b"in");
    });
}

#[test]
fn nothing_is_written_through_a_link() {
    let twice = |canary: &Path| {
        let file = canary.join("file");
        Tar::default().symlink("x", file.to_str().unwrap()).file("x", b"dead").end()
    };
    beside_canary(twice, |result, _| assert_eq!(code(&result.unwrap_err()), "duplicate-entry"));
}

#[test]
fn a_directory_does_not_become_a_link_under_way() {
    let swapped =
        |canary: &Path| Tar::default().dir("d/").symlink("d", canary.to_str().unwrap()).file("d/file", b"dead").end();
    beside_canary(swapped, |result, _| assert_eq!(code(&result.unwrap_err()), "duplicate-entry"));
    // A link, then a directory in its place, whose mode would be set through it.
    let chmod = |canary: &Path| Tar::default().symlink("d", canary.to_str().unwrap()).dir("d/").end();
    beside_canary(chmod, |result, _| assert_eq!(code(&result.unwrap_err()), "duplicate-entry"));
}

#[test]
fn names_do_not_climb() {
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
fn a_tree_that_holds_links_already_is_not_written_through() {
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
fn errors_name_the_entry_and_its_place_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let archive = Tar::default().file("ok", b"x").file("bad\x1b[31m/../x", b"").end();
    let error = unpack(&archive, place.path()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.exit_code(), 3);
    assert_eq!(cause, "entry bad\\x1b[31m/../x at byte 1024: its name has `..` in it [parent-in-name]");
}

#[test]
fn attributes_of_overlays_are_left_out() {
    let place = tempfile::tempdir().unwrap();
    let archive = Tar::default().pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")]).dir("d/").end();
    let record = unpack(&archive, place.path()).unwrap();
    assert!(record.is_empty());
    let mut list = [0u8; 256];
    assert_eq!(rustix::fs::listxattr(place.path().join("d"), &mut list[..]).unwrap(), 0);
}

#[test]
fn whiteouts_of_overlays_are_only_recorded() {
    let place = tempfile::tempdir().unwrap();
    let mut header = Tar::header(b"gone", EntryType::Char, 0);
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    let record = unpack(&Tar::default().raw(header, b"").hardlink("too", "gone").end(), place.path()).unwrap();
    assert_eq!(record.nodes().keys().collect::<Vec<_>>(), [Path::new("gone"), Path::new("too")]);
    assert!(!place.path().join("gone").exists());
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<crate::archive::unpack::Record>(&text).unwrap(), record);
}

/// A node that could only be recorded is one of the archive like those that could be made.
#[test]
fn what_is_recorded_is_in_the_way_of_what_comes_later() {
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
        unpack(&archive, place.path()).map_err(|error| code(&error)).map(|record| record.nodes().len())
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
    // Over a tree, the later one stays.
    let place = tempfile::tempdir().unwrap();
    fs_err::write(place.path().join("gone"), "x").unwrap();
    let record = unpack(&Tar(node("gone")).end(), place.path()).unwrap();
    assert!(record.nodes().len() == 1 && !place.path().join("gone").exists());
}

#[test]
fn attributes_that_only_directories_have_are_kept_beside_a_file() {
    let place = tempfile::tempdir().unwrap();
    let list = ("SCHILY.acl.default", &b"user::rw-,group::r--,other::r--"[..]);
    let record = unpack(&Tar::default().pax(&[list]).file("f", b"x").end(), place.path()).unwrap();
    let kept: Vec<_> =
        record.xattrs().iter().map(|(path, xattrs)| (path.to_str().unwrap(), &xattrs[0].0[..])).collect();
    assert_eq!(kept, [("f", &b"system.posix_acl_default"[..])]);
}
