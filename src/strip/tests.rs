use std::os::unix::fs::symlink;
use std::sync::Mutex;

use super::*;
use crate::base::progress::{Event, Progress};

/// Collects warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn emit(&self, event: Event<'_>) {
        if let Event::Warn(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

/// Applies the rules of an image and returns the warnings.
fn strip(tree: &Rootfs, paths: &[&str], doc: bool, kind: TreeKind) -> Result<Vec<String>> {
    with(tree, &Strip { doc, paths: owned(paths), empty: Vec::new() }, kind)
}

fn with(tree: &Rootfs, strip: &Strip, kind: TreeKind) -> Result<Vec<String>> {
    let warnings = Warnings::default();
    apply(tree, &rules(strip, kind, true), &warnings)?;
    Ok(warnings.0.into_inner().unwrap())
}

fn owned(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn tree(files: &[&str]) -> (tempfile::TempDir, Rootfs) {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "x").unwrap();
    }
    let rootfs = Rootfs::open(root.path()).unwrap();
    (root, rootfs)
}

fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs_err::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn only_files_that_match_a_rule_are_removed() {
    let keep =
        ["etc/conf-d/x", "etc/passwd", "usr/bin/python3", "usr/lib/python3.11/os.py", "usr/share/doc-base", "var/db/x"];
    let lose = [
        ".dockerenv",
        "etc/._cfg0000_make.conf",
        "etc/env.d/._cfg0001_00x",
        "etc/machine-id",
        "etc/passwd-",
        "etc/resolv.conf",
        "quern/config/etc/portage/make.conf",
        "tmp/.hidden",
        "usr/lib/python3.11/test/a.py",
        "usr/share/doc/x/README",
        "usr/share/man/man1/x.1",
        "var/cache/binpkgs-builder/Packages",
        "var/cache/edb/mtimedb",
        "var/cache/ldconfig/aux-cache",
        "var/db/pkg/a/b/CONTENTS",
        "var/db/repos/gentoo/x",
        "var/git/meta-repo/kits/core-kit/x",
        "var/log/portage/x.log",
        "var/tmp/portage/x",
    ];
    let (root, rootfs) = tree(&[&keep[..], &lose[..]].concat());
    let paths = ["/var/db/pkg", "/usr/lib/python3.11/test/", "/usr/lib/*/test", "/no/such", "/etc/no*"];
    let warnings = strip(&rootfs, &paths, true, TreeKind::Stage4).unwrap();
    assert_eq!(listing(root.path()), keep);
    let missing = ["/usr/lib/*/test", "/no/such", "/etc/no*"];
    assert_eq!(warnings, missing.map(|path| format!("strip.paths: the image has no {path}")));
    for directory in ["tmp", "usr/share/doc", "var/log/portage", "var/db/repos"] {
        assert!(root.path().join(directory).is_dir(), "{directory} stays");
    }
    assert!(!root.path().join("var/git/meta-repo").exists());
    assert!(strip(&rootfs, &[], true, TreeKind::Stage4).unwrap().is_empty());
    assert_eq!(listing(root.path()), keep);
}

#[test]
fn documentation_and_repositories_stay_in_an_image_by_default() {
    let files = ["usr/share/doc/x/README", "var/db/repos/mine/x", "var/git/meta-repo/x"];
    let (root, rootfs) = tree(&files);
    strip(&rootfs, &[], false, TreeKind::Image).unwrap();
    assert_eq!(listing(root.path()), files);
}

#[test]
fn symlinks_are_removed_and_not_followed() {
    let (root, rootfs) = tree(&["usr/keep", "usr/doc/x", "var/x"]);
    let outside = tempfile::tempdir().unwrap();
    fs_err::write(outside.path().join("precious"), "x").unwrap();
    symlink("usr", root.path().join("tmp")).unwrap();
    symlink("../run/resolv.conf", root.path().join("etc-resolv")).unwrap();
    fs_err::create_dir(root.path().join("etc")).unwrap();
    symlink("../run/systemd/resolve/stub-resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
    symlink(outside.path(), root.path().join("var/tmp")).unwrap();
    symlink(outside.path(), root.path().join("usr/out")).unwrap();
    symlink("usr", root.path().join("u")).unwrap();
    let warnings = strip(&rootfs, &["/usr/out", "/u/doc"], true, TreeKind::Image).unwrap();
    assert!(outside.path().join("precious").exists());
    assert_eq!(listing(root.path()), ["etc-resolv", "etc/resolv.conf", "tmp", "u", "usr/keep", "var/tmp", "var/x"]);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn directories_are_emptied_and_stay() {
    let (root, rootfs) = tree(&["var/cache/a/b", "var/cache/.hidden", "var/cachet", "run2/x", "srv/x", "etc/file"]);
    symlink("../run2", root.path().join("var/run2")).unwrap();
    symlink("/nowhere", root.path().join("var/cache/link")).unwrap();
    let empty = owned(&["/var/cache", "/var/run2", "/etc/file", "/no/such", "/etc/file/below", "/var/cache/a"]);
    let strip = Strip { doc: false, paths: Vec::new(), empty };
    let missing = ["/etc/file", "/no/such", "/etc/file/below", "/var/cache/a"];
    let missing = missing.map(|path| format!("strip.empty: the image has no directory {path}"));
    assert_eq!(with(&rootfs, &strip, TreeKind::Image).unwrap(), missing);
    assert_eq!(listing(root.path()), ["etc/file", "srv/x", "var/cachet", "var/run2"]);
    assert!(root.path().join("var/cache").is_dir() && root.path().join("run2").is_dir());
    // An empty directory is not a mistake.
    assert_eq!(with(&rootfs, &strip, TreeKind::Image).unwrap(), missing);
}

#[test]
fn the_root_directory_cannot_be_stripped() {
    let (_root, rootfs) = tree(&["x"]);
    assert_eq!(strip(&rootfs, &["/"], true, TreeKind::Image).unwrap_err().exit_code(), 2);
}
