//! Layers that are differences of trees: applied one after the other, they must make the last tree.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, XattrFlags};

use super::{made, umoci};
use crate::archive::pack::{Format, Options, Outputs, Part, Tree, difference, pack};
use crate::archive::unpack::entry::Time;
use crate::archive::unpack::limits::Limits;
use crate::archive::unpack::reader::entries;
use crate::archive::unpack::tests::is_root;
use crate::archive::unpack::{Deferred, Node};
use crate::base::progress::Silent;
use crate::fs::rootfs::Rootfs;

/// Later times are clamped to this one.
const EPOCH: u64 = 1_700_000_000;

/// A change of a tree. Numbers select names.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, u8, u64),
    Directory(usize),
    Link(usize, usize),
    Symlink(usize, u8),
    Fifo(usize),
    Remove(usize),
    Rename(usize, usize),
    Mode(usize, u32),
    Attribute(usize, u8),
    Time(usize, u64),
}

const NAMES: [&str; 12] = ["a", "a/x", "a/x/y", "a/z", "a.b", "b", "b/x", "b/x/é", "c", "c/.hidden", "c/d", "-z"];

fn change() -> impl Strategy<Value = Change> {
    let name = || 0..NAMES.len();
    let time = || prop::sample::select(vec![1, 2, EPOCH, EPOCH + 5, EPOCH + 6]);
    prop_oneof![
        4 => (name(), 0..2u8, time()).prop_map(|(name, data, time)| Change::Write(name, data, time)),
        3 => name().prop_map(Change::Directory),
        4 => (name(), name()).prop_map(|(from, to)| Change::Link(from, to)),
        1 => (name(), 0..2u8).prop_map(|(name, target)| Change::Symlink(name, target)),
        1 => name().prop_map(Change::Fifo),
        3 => name().prop_map(Change::Remove),
        2 => (name(), name()).prop_map(|(from, to)| Change::Rename(from, to)),
        1 => (name(), prop::sample::select(vec![0o644, 0o4755, 0o700])).prop_map(|(name, mode)| Change::Mode(name, mode)),
        1 => (name(), 0..2u8).prop_map(|(name, value)| Change::Attribute(name, value)),
        1 => (name(), time()).prop_map(|(name, time)| Change::Time(name, time)),
    ]
}

/// Makes a change, if the tree allows it.
fn apply(root: &Path, change: &Change) {
    let at = |name: &usize| root.join(NAMES[*name]);
    // Impossible changes, such as a file below a file, are left out.
    let _ = match change {
        // Opening a pipe would wait for a reader.
        Change::Write(name, ..) if at(name).symlink_metadata().is_ok_and(|file| !file.is_file()) => Ok(()),
        Change::Write(name, data, time) => fs_err::write(at(name), [*data]).map(|()| set_time(&at(name), *time)),
        Change::Directory(name) => fs_err::create_dir(at(name)),
        Change::Link(from, to) => fs_err::hard_link(at(from), at(to)),
        Change::Symlink(name, target) => symlink(format!("{target}"), at(name)),
        Change::Fifo(name) => {
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(rustix::fs::CWD, at(name), rustix::fs::FileType::Fifo, mode, 0).map_err(Into::into)
        }
        Change::Remove(name) => fs_err::remove_dir_all(at(name)).or_else(|_| fs_err::remove_file(at(name))),
        Change::Rename(from, to) => fs_err::rename(at(from), at(to)),
        Change::Mode(name, mode) if !at(name).is_symlink() => {
            fs_err::set_permissions(at(name), std::fs::Permissions::from_mode(*mode))
        }
        Change::Attribute(name, value) => {
            rustix::fs::lsetxattr(at(name), "user.test", &[*value], XattrFlags::empty()).map_err(Into::into)
        }
        Change::Time(name, time) if at(name).symlink_metadata().is_ok() => {
            set_time(&at(name), *time);
            Ok(())
        }
        Change::Mode(..) | Change::Time(..) => Ok(()),
    };
}

fn set_time(path: &Path, time: u64) {
    let time = Timespec { tv_sec: time as _, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Packs a tree, or a part of it, without compression.
fn packed(root: &Path, part: Option<&Part>, deferred: &Deferred) -> Vec<u8> {
    let (root, mut file) = (Rootfs::open(root).unwrap(), tempfile::tempfile().unwrap());
    let tree = Tree { root: &root, deferred, part };
    let options = Options { format: Format::Plain, epoch: EPOCH, layer: true, ..Options::default() };
    pack(tree, Outputs::archive(&mut file), &options, &Silent).unwrap();
    bytes(file)
}

fn bytes(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Packs the layers of a list of trees.
fn layers(trees: &[&Path], deferred: &Deferred) -> Vec<Vec<u8>> {
    let first = packed(trees[0], None, deferred);
    let more = trees.windows(2).map(|pair| {
        let (older, newer) = (Rootfs::open(pair[0]).unwrap(), Rootfs::open(pair[1]).unwrap());
        let tree = |root| Tree { root, deferred, part: None };
        let part = difference(tree(&older), tree(&newer), &Options { epoch: EPOCH, ..Options::default() }).unwrap();
        packed(pair[1], Some(&part), deferred)
    });
    [first].into_iter().chain(more).collect()
}

fn names(layer: &[u8]) -> Vec<String> {
    let entries = entries(layer, Limits::default()).unwrap();
    entries.into_iter().map(|entry| entry.path.to_str().unwrap().to_owned()).collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Makes a tree in steps. Returns the layers, the paths of the trees and their directory.
fn in_steps(steps: &[&dyn Fn(&Path)]) -> (Vec<Vec<u8>>, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let work = place.path().join("work");
    fs_err::create_dir(&work).unwrap();
    let mut trees = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        step(&work);
        let tree = place.path().join(number.to_string());
        copy(&work, &tree);
        trees.push(tree);
    }
    let trees: Vec<&Path> = trees.iter().map(|tree| tree.as_path()).collect();
    (layers(&trees, &Deferred::default()), place)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn layers_make_the_last_tree(steps in prop::collection::vec(prop::collection::vec(change(), 0..16), 1..5)) {
        let steps: Vec<_> = steps.iter().map(|changes| {
            move |root: &Path| changes.iter().for_each(|change| apply(root, change))
        }).collect();
        let steps: Vec<&dyn Fn(&Path)> = steps.iter().map(|step| step as _).collect();
        let (layers, place) = in_steps(&steps);
        let expected = packed(&place.path().join("work"), None, &Deferred::default());
        let made = made(&layers, |_| {});
        prop_assert_eq!(made.codes(), [""; 0]);
        made.unpack().unwrap();
        // The same archive: names, data, attributes, times and hard links.
        prop_assert!(packed(&made.tree(), None, &Deferred::default()) == expected);
    }
}

fn write(path: &Path, data: &str) {
    fs_err::write(path, data).unwrap();
    set_time(path, 1);
}

#[test]
fn a_layer_has_what_changed_and_nothing_else() {
    let first = |root: &Path| {
        for name in ["gone", "gone-too", "kept", "to-file"] {
            fs_err::create_dir(root.join(name)).unwrap();
            write(&root.join(name).join("file"), "1");
        }
        write(&root.join("to-directory"), "1");
        write(&root.join("same-size"), "1");
        write(&root.join("-early"), "1");
        fs_err::create_dir(root.join("untouched")).unwrap();
        write(&root.join("untouched/file"), "1");
    };
    let second = |root: &Path| {
        fs_err::remove_dir_all(root.join("gone")).unwrap();
        fs_err::remove_dir_all(root.join("gone-too")).unwrap();
        fs_err::remove_file(root.join("kept/file")).unwrap();
        fs_err::remove_file(root.join("-early")).unwrap();
        fs_err::remove_dir_all(root.join("to-file")).unwrap();
        write(&root.join("to-file"), "2");
        fs_err::remove_file(root.join("to-directory")).unwrap();
        fs_err::create_dir(root.join("to-directory")).unwrap();
        write(&root.join("to-directory/file"), "2");
        // The same time and the same size.
        write(&root.join("same-size"), "2");
        // A time beyond the latest one changes no archive.
        set_time(&root.join("untouched"), EPOCH + 7);
    };
    let (layers, _place) = in_steps(&[&first, &second, &|_: &Path| {}]);
    let expected = [
        "",
        ".wh.-early",
        ".wh.gone",
        ".wh.gone-too",
        "kept",
        "kept/.wh.file",
        "same-size",
        "to-directory",
        "to-directory/file",
        "to-file",
    ];
    assert_eq!(names(&layers[1]), expected);
    assert_eq!(names(&layers[2]), [""], "nothing changed");
}

#[test]
fn names_of_one_file_stay_together_in_a_layer() {
    let first = |root: &Path| {
        for name in ["one", "other", "pair-1", "split-1"] {
            write(&root.join(name), name);
        }
        fs_err::hard_link(root.join("pair-1"), root.join("pair-2")).unwrap();
        fs_err::hard_link(root.join("split-1"), root.join("split-2")).unwrap();
    };
    let second = |root: &Path| {
        fs_err::hard_link(root.join("one"), root.join("two")).unwrap();
        fs_err::remove_file(root.join("pair-1")).unwrap();
        fs_err::remove_file(root.join("split-2")).unwrap();
        write(&root.join("split-2"), "split-1");
    };
    let (layers, place) = in_steps(&[&first, &second]);
    assert_eq!(names(&layers[1]), ["", ".wh.pair-1", "one", "split-2", "two"]);
    let made = made(&layers, |_| {});
    made.unpack().unwrap();
    let inode = |name: &str| fs_err::metadata(made.tree().join(name)).unwrap();
    assert_eq!(inode("one").ino(), inode("two").ino());
    assert_eq!((inode("pair-2").nlink(), inode("split-1").nlink(), inode("split-2").nlink()), (1, 1, 1));
    if is_root("the comparison with umoci") && Command::new("umoci").arg("--version").output().is_ok() {
        let expected = packed(&place.path().join("work"), None, &Deferred::default());
        assert!(packed(&umoci(&made), None, &Deferred::default()) == expected);
    }
}

#[test]
fn deferred_nodes_are_in_the_layer_of_their_directory() {
    let mut record = Deferred::default();
    for (name, inode) in [("dev/null", 0), ("dev/one", 7), ("dev/two", 7)] {
        let (mtime, xattrs) = (Time::default(), Vec::new());
        let node = Node { block: false, major: 1, minor: 3, mode: 0o666, uid: 0, gid: 0, mtime, xattrs, inode };
        record.add_node(name.into(), node);
    }
    let place = tempfile::tempdir().unwrap();
    let trees = ["0", "1", "2"].map(|name| place.path().join(name));
    trees.iter().for_each(|tree| fs_err::create_dir(tree).unwrap());
    for tree in &trees[1..] {
        fs_err::create_dir(tree.join("dev")).unwrap();
        set_time(&tree.join("dev"), 1);
    }
    write(&trees[2].join("dev/one"), "a file in place of the node");
    set_time(&trees[2].join("dev"), 1);
    let trees: Vec<&Path> = trees.iter().map(|tree| tree.as_path()).collect();
    let layers = layers(&trees, &record);
    assert_eq!(names(&layers[1]), ["", "dev", "dev/null", "dev/one", "dev/two"]);
    assert_eq!(names(&layers[2]), ["", "dev", "dev/one"]);
}

#[test]
fn a_name_that_means_a_removal_is_refused() {
    let place = tempfile::tempdir().unwrap();
    write(&place.path().join(".wh.x"), "");
    let (root, deferred) = (Rootfs::open(place.path()).unwrap(), Deferred::default());
    let tree = Tree { root: &root, deferred: &deferred, part: None };
    let error = difference(tree, tree, &Options { epoch: EPOCH, ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("/.wh.x") && error.hint().unwrap().contains("strip.paths"), "{error}");
}
