//! A merge of new packages that is killed before each of its changes to the shared directory.
#![allow(clippy::disallowed_methods, reason = "the test starts processes")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Packages, Part};
use crate::base::digest::Sha256;
use crate::base::progress::{Silent, Target};
use crate::portage::binpkg::fixture::Make;
use crate::portage::binpkg::index::Index;
use crate::portage::binpkg::key::Key;
use crate::store::packages::Shelf;
use crate::store::work::WorkPaths;

/// The variable that gives the child process its directory.
const PLACE: &str = "QUERN_TEST_MERGE";
/// Calls that change a file or a directory.
const CHANGES: [&str; 10] = [
    "openat",
    "mkdirat",
    "write",
    "copy_file_range",
    "sendfile",
    "fchmod",
    "fsync",
    "renameat",
    "utimensat",
    "unlinkat",
];
const EBUILD: &str = "EAPI=8\nKEYWORDS=\"amd64\"\n";

fn work(place: &Path) -> WorkPaths {
    WorkPaths::new(place.join("work"))
}

fn shelf(place: &Path) -> Shelf {
    Shelf::make(&place.join("shelf")).unwrap()
}

/// Writes the work directory of a build that made these packages.
fn built(place: &Path, packages: &[&str]) {
    let work = work(place);
    fs_err::create_dir_all(work.logs()).unwrap();
    let mut log = "1: Started emerge on: Nov 28, 2026 00:06:14\n".to_owned();
    for (number, name) in packages.iter().enumerate() {
        let bytes = Make::new("a", &format!("{name}-1")).key("repository", "own\n");
        let bytes = bytes.key(&format!("{name}-1.ebuild"), EBUILD).bytes();
        let path = work.private_packages(Target::Image).join(format!("a/{name}/{name}-1-1.gpkg.tar"));
        write(&path, &bytes);
        write(&place.join(format!("own/a/{name}/{name}-1.ebuild")), EBUILD.as_bytes());
        // Without a record, nobody can tell whether a package was built from this file.
        write(&place.join(format!("own/a/{name}/files/fix.patch")), b"fix");
        log.push_str(&format!("1:  >>> emerge ({number} of 9) a/{name}-1 to /quern/image/\n"));
        log.push_str(&format!("1:  === ({number} of 9) Compiling/Merging (a/{name}-1::/x.ebuild)\n"));
    }
    write(&work.logs().join("emerge.log"), log.as_bytes());
    let sources = serde_json::json!([{ "name": "own", "path": place.join("own"), "main": false }]);
    let key = Key::parse(br#"{"parts": {"CHOST": "x86_64-pc-linux-gnu"}}"#).unwrap();
    let packages = Packages {
        began: i64::MAX,
        in_place: false,
        open: true,
        write: true,
        sources: serde_json::from_value(sources).unwrap(),
        parts: vec![Part {
            target: Target::Image,
            directory: shelf(place).path().to_owned(),
            key,
            plain: None,
            any_key: false,
            header: BTreeMap::from([("ARCH".to_owned(), "amd64".to_owned())]),
            seen: BTreeSet::new(),
        }],
    };
    packages.record(&work).unwrap();
}

fn write(path: &Path, bytes: &[u8]) {
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, bytes).unwrap();
}

/// Checks that an index is whole and that its packages are there. Returns their paths.
fn named(shelf: &Shelf, index: &str) -> Vec<String> {
    let index = Index::read(&fs_err::read(shelf.path().join(index)).unwrap()).unwrap();
    let mut paths = Vec::new();
    for package in index.packages {
        let path = package.path().unwrap();
        assert_eq!(fs_err::metadata(shelf.path().join(path)).expect(path).len().to_string(), package.get("SIZE"));
        assert!(package.get("QUERN_SOURCE").len() == 64, "{path} will never be offered");
        paths.push(path.to_owned());
    }
    paths
}

/// Lists all files of the shelf.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Merges in a child process under strace, with these options. Returns true if it was not killed.
fn merged_by_child(place: &Path, options: &[&str]) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq"]).args(options).arg(std::env::current_exe().unwrap());
    strace.args(["--ignored", "--exact", "--test-threads=1", "builder::packages::killed::the_child_process_merges"]);
    strace
        .env(PLACE, place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
#[ignore = "the child process of the next test"]
fn the_child_process_merges() {
    let place = std::env::var_os(PLACE).expect("the directory of the parent");
    Packages::recover(&work(place.as_ref()), &Silent).unwrap();
}

#[test]
fn a_merge_that_is_killed_anywhere_leaves_a_whole_index_and_is_completed_later() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("QUERN_TEST_STRICT").is_none(), "strace is not installed");
        return;
    }
    let prepare = || {
        let place = tempfile::tempdir().unwrap();
        built(place.path(), &["old"]);
        Packages::recover(&work(place.path()), &Silent).unwrap();
        built(place.path(), &["old", "one", "two"]);
        place
    };
    let all = ["a/old/old-1-1.gpkg.tar", "a/one/one-1-1.gpkg.tar", "a/two/two-1-1.gpkg.tar"];
    let whole = prepare();
    let trace = whole.path().join("trace");
    assert!(merged_by_child(whole.path(), &["-o", trace.to_str().unwrap()]));
    let expected = files(shelf(whole.path()).path()).len();
    let trace = fs_err::read_to_string(&trace).unwrap();
    let (mut calls, mut locked, mut points) = (BTreeMap::new(), false, Vec::new());
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let name = call.trim_start().split('(').next().unwrap_or_default();
        locked |= name == "flock";
        let Some(kind) = CHANGES.iter().find(|kind| **kind == name) else { continue };
        // strace counts the calls of each thread.
        let count = calls.entry((thread, *kind)).and_modify(|count| *count += 1).or_insert(1);
        if locked && (*kind != "openat" || call.contains("O_CREAT")) {
            points.push(format!("inject={kind}:signal=KILL:when={count}"));
        }
    }
    assert!(points.len() > 25, "{points:?}");
    for point in points {
        let place = prepare();
        let shelf = shelf(place.path());
        let before = Sha256::of(&fs_err::read(shelf.path().join(all[0])).unwrap());
        assert!(!merged_by_child(place.path(), &["-o", "/dev/null", "-e", &point]), "{point}");
        for index in ["Packages", "Packages.gz"] {
            assert!([&all[..1], &all[..]].iter().any(|paths| named(&shelf, index) == *paths), "{point}: {index}");
        }
        // The next build completes it.
        Packages::recover(&work(place.path()), &Silent).unwrap();
        for index in ["Packages", "Packages.gz"] {
            assert_eq!(named(&shelf, index), all, "{point}: {index}");
        }
        let left = files(shelf.path());
        assert_eq!(left.len(), expected, "{point}: {left:?}");
        assert!(Sha256::of(&fs_err::read(shelf.path().join(all[0])).unwrap()) == before, "{point}");
    }
}
