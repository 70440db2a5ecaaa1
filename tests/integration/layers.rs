//! Layers made through real overlays, as root and as an ordinary user.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use quern_builder::testing::changes::{self, Changes};
use quern_builder::testing::overlay::{Overlay, mount};
use quern_builder::testing::{Rootfs, Silent, layers};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::env::{Privilege, twins};
use crate::overlay::{PLACE, in_namespaces};

twins!(layers_have_the_same_digest_for_everybody => root_layers_have_the_same_digest_for_everybody, userns_layers_have_the_same_digest_for_everybody);
twins!(merged_layers_give_the_same_tree => root_merged_layers_give_the_same_tree, userns_merged_layers_give_the_same_tree);

fn layers_have_the_same_digest_for_everybody(privilege: Privilege) {
    in_namespaces(privilege, "layers::digests_in_a_child");
}

fn merged_layers_give_the_same_tree(privilege: Privilege) {
    in_namespaces(privilege, "layers::merges_in_a_child");
}

/// The digest of the result of [`digests_in_a_child`]. If it changes, every layer is made again: change the versions of the formats, too.
const DIGEST: &str = "0f47d719cda8b3aa66fd6c4cdd0529e8fbe65c4a86af05c53a7c86781a38c223";

/// Directories below the place of a test.
struct Place {
    root: PathBuf,
    /// The layers, uppermost first; the last one is the base.
    lowers: Vec<PathBuf>,
}

impl Place {
    /// The place that the parent process named, with an empty base; `None` in the parent process.
    fn find() -> Option<Self> {
        let root = PathBuf::from(std::env::var_os(PLACE)?);
        let mut place = Self { root, lowers: Vec::new() };
        place.lowers = vec![place.directory("base")];
        Some(place)
    }

    fn directory(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.root.join(name)).unwrap();
        self.root.join(name)
    }

    /// Runs a step in the tree, and returns its upper directory, which becomes the uppermost layer.
    fn step(&mut self, step: impl FnOnce(&Path)) -> PathBuf {
        let upper = self.directory(&format!("upper-{}", self.lowers.len()));
        let work = self.directory(&format!("work-{}", self.lowers.len()));
        let at = self.directory("at");
        let overlay = Overlay { lowers: &self.lowers, upper: Some((&upper, &work)) };
        let mounted = mount(overlay, fs::File::open(&at).unwrap().as_fd(), &at).unwrap();
        step(&at);
        mounted.unmount().unwrap();
        fs::remove_dir_all(work).unwrap();
        self.lowers.insert(0, upper.clone());
        upper
    }

    /// Lists the tree that `lowers` give.
    fn view(&self, lowers: &[PathBuf]) -> Changes {
        let at = self.directory("at");
        let lowers: Vec<PathBuf> = [self.directory("empty")].into_iter().chain(lowers.iter().cloned()).collect();
        let overlay = Overlay { lowers: &lowers, upper: None };
        let mounted = mount(overlay, fs::File::open(&at).unwrap().as_fd(), &at).unwrap();
        let tree = Rootfs::open(&at).unwrap();
        let later = SystemTime::now() + Duration::from_secs(1 << 30);
        let list = changes::read(&tree, later, &|_| false, &Silent).unwrap();
        drop(tree);
        mounted.unmount().unwrap();
        list
    }

    /// Merges `count` layers, the uppermost of which is the one with the number `first`, and checks the tree.
    fn merges(&self, first: usize, count: usize, expected: &Changes) {
        let chain: Vec<&Path> = self.lowers[first..first + count].iter().map(PathBuf::as_path).collect();
        let into = self.directory("merged");
        layers::flatten(&chain, &into).unwrap();
        let (above, below) = (&self.lowers[..first], &self.lowers[first + count..]);
        let found = self.view(&above.iter().chain([&into]).chain(below).cloned().collect::<Vec<_>>());
        for (one, other) in found.entries().iter().zip(expected.entries()) {
            assert_eq!(one, other, "{count} from {first}");
        }
        assert_eq!(found.entries().len(), expected.entries().len(), "{count} from {first}");
        fs::remove_dir_all(into).unwrap();
    }
}

/// The digest of a step's result is a constant: it depends on no file system, no kernel and no privilege.
#[test]
fn digests_in_a_child() {
    let Some(mut place) = Place::find() else { return };
    let base = place.lowers[0].clone();
    for directory in ["gone", "again", "kept/inner"] {
        fs::create_dir_all(base.join(directory)).unwrap();
        fs::write(base.join(directory).join("file"), directory).unwrap();
    }
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
    let old = |path: &Path| fs::File::open(path).unwrap().set_modified(time).unwrap();
    ["", "kept", "kept/inner"].iter().for_each(|path| old(&base.join(path)));
    for number in 0..2 {
        let began = changes::now(&place.root).unwrap();
        let upper = place.step(|tree| {
            fs::remove_dir_all(tree.join("gone")).unwrap();
            fs::remove_dir_all(tree.join("again")).unwrap();
            fs::create_dir(tree.join("again")).unwrap();
            fs::write(tree.join("again/new"), "text").unwrap();
            fs::hard_link(tree.join("again/new"), tree.join("again/link")).unwrap();
            fs::set_permissions(tree.join("again/new"), fs::Permissions::from_mode(0o4755)).unwrap();
            fs::write(tree.join("kept/inner/file"), "other").unwrap();
            old(&tree.join("kept/inner/file"));
            symlink("/nowhere", tree.join("kept/symlink")).unwrap();
            rustix::fs::setxattr(tree.join("kept"), "user.mine", b"value", XattrFlags::empty()).unwrap();
        });
        let list = changes::read(&Rootfs::open(&upper).unwrap(), began, &|_| false, &Silent).unwrap();
        assert_eq!(list.digest().hex(), DIGEST, "{number}: {list:#?}");
        place.lowers = vec![base.clone()];
        fs::remove_dir_all(upper).unwrap();
    }
    fs::write(place.root.join("done"), "").unwrap();
}

/// Random steps in a small tree, of which the oldest are merged in all ways.
#[test]
fn merges_in_a_child() {
    let Some(mut place) = Place::find() else { return };
    const STEPS: usize = 6;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    (0..100).for_each(|_| dice.change(&place.lowers[0]));
    for _ in 0..STEPS {
        place.step(|tree| (0..30).for_each(|_| dice.change(tree)));
    }
    let expected = place.view(&place.lowers);
    assert!(expected.entries().len() > 30, "only {}", expected.entries().len());
    for count in 1..=STEPS {
        (0..=(STEPS - count)).for_each(|first| place.merges(first, count, &expected));
    }

    // Directories without the mark of an opaque one: kernels set it only where it is needed.
    place.lowers = ["above", "below", "other-base"].map(|name| place.directory(name)).to_vec();
    let file = |layer: usize, path: &str| {
        let path = place.lowers[layer].join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "text").unwrap();
    };
    let whiteout = |layer: usize, path: &str| {
        let path = place.lowers[layer].join(path);
        rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    };
    ["replaced/old", "kept/old"].iter().for_each(|path| file(2, path));
    ["new/file", "new/inner/file", "kept/young"].iter().for_each(|path| file(1, path));
    whiteout(1, "replaced");
    ["new/inner/other", "replaced/young"].iter().for_each(|path| file(0, path));
    ["new/file", "new/inner/file", "kept/old"].iter().for_each(|path| {
        fs::create_dir_all(place.lowers[0].join(path).parent().unwrap()).unwrap();
        whiteout(0, path);
    });
    let expected = place.view(&place.lowers);
    assert_eq!(expected.entries().len(), 8, "{expected:#?}");
    place.merges(0, 2, &expected);
    place.merges(0, 3, &expected);
    fs::write(place.root.join("done"), "").unwrap();
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// A path of one to three components out of five names.
    fn path(&mut self) -> PathBuf {
        (0..=self.below(3)).map(|_| ["a", "b", "c", "d", "e"][self.below(5) as usize]).collect()
    }

    /// Tries to change something. What is not possible, such as a file in a file, is left out.
    fn change(&mut self, tree: &Path) {
        let (path, other) = (self.path(), tree.join(self.path()));
        // Small trees go as a whole, and large ones stay.
        let small = path.components().count() > 1;
        let path = tree.join(path);
        let text = self.below(1000).to_string();
        let time = Timespec { tv_sec: self.below(1 << 30) as i64, tv_nsec: self.below(1_000_000_000) as i64 };
        let times = Timestamps { last_access: time, last_modification: time };
        let mode = [0o700, 0o755, 0o1777][self.below(3) as usize];
        let _ = match self.below(20) {
            0..5 => fs::create_dir_all(&path),
            5..9 => fs::write(&path, text),
            9 if small => fs::remove_dir_all(&path),
            10 => fs::remove_file(&path),
            11 if small => fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)),
            12 => symlink(text, &path),
            13 => fs::hard_link(&path, &other),
            14 => fs::rename(&path, &other),
            15 => fs::set_permissions(&path, fs::Permissions::from_mode(mode)),
            9 | 11 | 16 => rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into),
            _ => match self.below(2) {
                // Under a name of its own: writing to a pipe waits for a reader.
                0 => {
                    let (pipe, mode) = (path.with_extension("pipe"), Mode::from_raw_mode(0o600));
                    rustix::fs::mknodat(CWD, pipe, FileType::Fifo, mode, 0)
                }
                _ => rustix::fs::setxattr(&path, "user.mine", text.as_bytes(), XattrFlags::empty()),
            }
            .map_err(Into::into),
        };
    }
}
