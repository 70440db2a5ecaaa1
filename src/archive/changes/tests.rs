use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;
use crate::base::progress::Silent;
use crate::fs::rootfs::Rootfs;

/// An upper directory with one of everything that an unprivileged user can make.
fn upper(place: &Path) {
    for directory in ["etc", "etc/new", "var"] {
        fs_err::create_dir(place.join(directory)).unwrap();
    }
    fs_err::write(place.join("etc/conf"), "text\n").unwrap();
    fs_err::hard_link(place.join("etc/conf"), place.join("etc/again")).unwrap();
    fs_err::set_permissions(place.join("etc/conf"), PermissionsExt::from_mode(0o4751)).unwrap();
    symlink("conf", place.join("etc/link")).unwrap();
    fs_err::write(place.join("var").join(OsStr::from_bytes(b"gr\xfc\xdfe\n =\\")), "").unwrap();
    rustix::fs::mknodat(CWD, place.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let whiteout = place.join("etc/gone");
    rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    fs_err::hard_link(whiteout, place.join("var/too")).unwrap();
    for (name, value) in [("user.overlay.opaque", "y"), ("user.overlay.origin", "x"), ("user.mine", "a=b")] {
        let flags = XattrFlags::empty();
        rustix::fs::setxattr(place.join("etc/new"), name, value.as_bytes(), flags).unwrap();
    }
    rustix::fs::setxattr(place.join("var"), "user.overlay.opaque", b"x", XattrFlags::empty()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.join("socket")).unwrap();
}

fn changes(place: &Path, began: SystemTime) -> Changes {
    read(&Rootfs::open(place).unwrap(), began, &|path| path.starts_with("var"), &Silent).unwrap()
}

fn find<'a>(changes: &'a Changes, path: &str) -> &'a Change {
    &changes.entries().iter().find(|entry| entry.path == Path::new(path)).unwrap().change
}

fn node<'a>(changes: &'a Changes, path: &str) -> &'a Node {
    match find(changes, path) {
        Change::Node(node) => node,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn a_hole_and_zeros_have_the_same_digest() {
    let place = tempfile::tempdir().unwrap();
    let of = |make: &dyn Fn(&std::path::Path)| {
        let upper = place.path().join("upper");
        let _ = fs_err::remove_dir_all(&upper);
        fs_err::create_dir(&upper).unwrap();
        make(&upper.join("file"));
        // The same time for both.
        fs_err::File::open(upper.join("file")).unwrap().into_file().set_modified(UNIX_EPOCH).unwrap();
        fs_err::File::open(&upper).unwrap().into_file().set_modified(UNIX_EPOCH).unwrap();
        read(&Rootfs::open(&upper).unwrap(), SystemTime::now(), &|_| false, &Silent).unwrap().digest()
    };
    const MIB: usize = 1 << 20;
    for size in [1, MIB - 1, MIB, MIB + 1, 5 * MIB / 2] {
        let zeros = of(&|path| fs_err::write(path, vec![0; size]).unwrap());
        let hole = of(&|path| fs_err::File::create(path).unwrap().set_len(size as u64).unwrap());
        assert_eq!(zeros, hole, "{size}");
        let mut data = vec![0; size];
        data[size / 2] = 1;
        assert_ne!(of(&|path| fs_err::write(path, &data).unwrap()), zeros, "{size}");
    }
    // Nobody could wait for a tebibyte to be read.
    of(&|path| fs_err::File::create(path).unwrap().set_len(1 << 40).unwrap());
}

#[test]
fn an_upper_directory_is_read_as_what_it_means() {
    let place = tempfile::tempdir().unwrap();
    upper(place.path());
    let changes = changes(place.path(), SystemTime::UNIX_EPOCH);
    let paths: Vec<_> = changes.entries().iter().map(|entry| entry.path.as_os_str().as_bytes()).collect();
    let odd: &[u8] = b"var/gr\xfc\xdfe\n =\\";
    let expected = ["", "etc", "etc/again", "etc/conf", "etc/gone", "etc/link", "etc/new", "pipe", "var"];
    let expected = expected.map(str::as_bytes).into_iter().chain([odd, b"var/too"]);
    assert_eq!(paths, expected.collect::<Vec<_>>(), "no socket");
    assert_eq!(find(&changes, "etc/conf"), &Change::Hardlink("etc/again".into()));
    let Kind::File { size: 5, sha256, varies: false } = node(&changes, "etc/again").kind else { panic!("a file") };
    assert_eq!((sha256, node(&changes, "etc/again").mode), (Sha256::of(b"text\n"), 0o4751));
    for path in ["etc/gone", "var/too"] {
        assert_eq!(find(&changes, path), &Change::Removed, "{path}");
    }
    assert_eq!(node(&changes, "etc/link").kind, Kind::Symlink(b"conf".to_vec()));
    assert_eq!(node(&changes, "etc/new").kind, Kind::Dir { opaque: true });
    assert_eq!(node(&changes, "etc/new").xattrs, [(b"user.mine".to_vec(), b"a=b".to_vec())]);
    assert_eq!(node(&changes, "var").kind, Kind::Dir { opaque: false });
    assert!(node(&changes, "pipe").time.is_none(), "everything is newer than 1970");
    assert_eq!(changes.bytes(), 5);
}

#[test]
fn a_time_counts_only_if_it_is_older_than_the_command() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    let digest = |began| changes(place.path(), began).digest();
    let written = |text: &str| {
        fs_err::write(&file, text).unwrap();
        fs_err::File::open(&file).unwrap().into_file()
    };
    let began = now(place.path()).unwrap();
    written("one");
    let first = digest(began);
    written("two");
    let other = digest(began);
    assert_ne!(first, other);
    written("one").set_modified(began + Duration::from_secs(9)).unwrap();
    assert_eq!(digest(began), first);
    written("one").set_modified(began - Duration::from_nanos(1)).unwrap();
    assert_ne!(digest(began), first);
    assert_eq!(changes(place.path(), began + Duration::from_secs(60)).entries().len(), 2);
}

#[test]
fn data_that_vary_do_not_count() {
    let place = tempfile::tempdir().unwrap();
    let began = SystemTime::UNIX_EPOCH;
    fs_err::create_dir(place.path().join("var")).unwrap();
    fs_err::write(place.path().join("var/log"), "one").unwrap();
    let before = changes(place.path(), began);
    fs_err::write(place.path().join("var/log"), "and two").unwrap();
    let after = changes(place.path(), began);
    assert_eq!(before.digest(), after.digest());
    assert_ne!(before, after, "the list has the data");
    fs_err::set_permissions(place.path().join("var/log"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_ne!(changes(place.path(), began).digest(), after.digest());
}

#[test]
fn a_list_is_read_back_from_its_file() {
    let place = tempfile::tempdir().unwrap();
    upper(place.path());
    let changes = changes(place.path(), SystemTime::UNIX_EPOCH);
    let mut bytes = Vec::new();
    changes.write(&mut bytes).unwrap();
    assert_eq!(Changes::parse(&bytes).unwrap(), changes);
    bytes.truncate(bytes.len() - 5);
    assert!(Changes::parse(&bytes).is_err(), "cut off");
    assert!(Changes::parse(b"").is_err());
}

#[test]
fn damaged_lists_are_refused() {
    let good = ". dir 0755 0 0 new\na dir 0755 0 0 -5.000000001 user.x=\na/b fifo 0600 0 0 new\na/c hardlink a/b\n";
    assert_eq!(Changes::parse_plain(good.as_bytes()).unwrap().plain(), good.as_bytes());
    let bad = [
        "",
        "a dir 0755 0 0 new\n",
        ". dir 0755 0 0 new",
        ". dir 755 0 0 new\n",
        ". dir 17777 0 0 new\n",
        ". dir 0755 0 0 new \n",
        ". dir 0755 0 0 new x\n",
        ". dir 0755 0 0 1.5\n",
        ". dir 0755 0 0 new user.b= user.a=\n",
        ". dir 0755 0 0 new user.a= user.a=\n",
        ". removed\n",
        ". dir 0755 0 0 new\n. dir 0755 0 0 new\n",
        ". dir 0755 0 0 new\nb removed\na removed\n",
        ". dir 0755 0 0 new\na/b removed\n",
        ". dir 0755 0 0 new\na removed\na/b removed\n",
        ". dir 0755 0 0 new\n.. removed\n",
        ". dir 0755 0 0 new\n/a removed\n",
        ". dir 0755 0 0 new\na/ removed\n",
        ". dir 0755 0 0 new\n\\61 removed\n",
        ". dir 0755 0 0 new\n\\FF removed\n",
        ". dir 0755 0 0 new\na\\0g removed\n",
        ". dir 0755 0 0 new\na char 0600 0 0 new 0 0\n",
        ". dir 0755 0 0 new\na hardlink b\nb fifo 0600 0 0 new\n",
        ". dir 0755 0 0 new\na dir 0755 0 0 new\nb hardlink a\n",
        ". dir 0755 0 0 new\na removed\nb hardlink a\n",
        ". dir 0755 0 0 new\na file 0600 0 0 new 0 00\n",
    ];
    for text in bad {
        assert!(Changes::parse_plain(text.as_bytes()).is_err(), "{text}");
    }
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    // The bytes that could be mistaken for the framing are more likely than others.
    let byte = prop_oneof![Just(b'a'), Just(b' '), Just(b'\n'), Just(b'\\'), Just(b'='), Just(0xfc), Just(b'.'), 1u8..];
    vec(byte, 1..6)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    word().prop_map(|name| name.into_iter().filter(|byte| *byte != b'/').chain(*b"x").collect())
}

fn any_node() -> impl Strategy<Value = Node> {
    let kind = prop_oneof![
        (0..3u64, any::<[u8; 1]>(), any::<bool>()).prop_map(|(size, data, varies)| Kind::File {
            size,
            sha256: Sha256::of(&data),
            varies
        }),
        word().prop_map(Kind::Symlink),
        (1..3u32, 0..3u32).prop_map(|(major, minor)| Kind::Char(major, minor)),
        (0..3u32, 0..3u32).prop_map(|(major, minor)| Kind::Block(major, minor)),
        any::<bool>().prop_map(|opaque| Kind::Dir { opaque }),
        Just(Kind::Fifo),
    ];
    let time = proptest::option::of((-2..2i64, 0..1_000_000_000u32).prop_map(|(sec, nsec)| Time { sec, nsec }));
    (kind, 0..0o10000u32, any::<u32>(), any::<u32>(), time, btree_map(word(), word(), 0..3)).prop_map(
        |(kind, mode, uid, gid, time, xattrs)| Node {
            kind,
            mode,
            uid,
            gid,
            time,
            xattrs: xattrs.into_iter().collect(),
        },
    )
}

/// A root directory with entries of one level, every third of which may be a hard link to another.
fn any_changes() -> impl Strategy<Value = Changes> {
    let change = prop_oneof![Just(None), any_node().prop_map(Some)];
    (any_node(), btree_map(name(), change, 0..5), any::<bool>()).prop_map(|(root, names, link)| {
        let root = Node { kind: Kind::Dir { opaque: false }, ..root };
        let mut entries = vec![Entry { path: PathBuf::new(), change: Change::Node(root) }];
        let mut first = None;
        for (name, node) in names {
            let path = PathBuf::from(std::ffi::OsString::from_vec(name));
            let change = match (node, &first) {
                (Some(_), Some(first)) if link => Change::Hardlink(PathBuf::clone(first)),
                (Some(node), _) => {
                    if !matches!(node.kind, Kind::Dir { .. }) {
                        first.get_or_insert(path.clone());
                    }
                    Change::Node(node)
                }
                (None, _) => Change::Removed,
            };
            entries.push(Entry { path, change });
        }
        Changes { entries }
    })
}

/// The same list with the data of files that vary replaced.
fn counted(changes: &Changes) -> Changes {
    let mut changes = changes.clone();
    for entry in &mut changes.entries {
        if let Change::Node(Node { kind: Kind::File { size, sha256, varies: true }, .. }) = &mut entry.change {
            (*size, *sha256) = (0, Sha256::of(b""));
        }
    }
    changes
}

proptest! {
    #[test]
    fn a_text_has_exactly_one_list(changes in any_changes()) {
        prop_assert_eq!(&Changes::parse_plain(&changes.plain()).unwrap(), &changes);
    }

    #[test]
    fn lists_have_the_same_digest_only_if_they_are_equal(lists in vec(any_changes(), 2..5)) {
        let distinct: BTreeSet<_> = lists.iter().map(|list| counted(list).plain()).collect();
        let digests: BTreeSet<_> = lists.iter().map(Changes::digest).collect();
        prop_assert_eq!(distinct.len(), digests.len());
        for list in &lists {
            prop_assert_eq!(list.digest(), counted(list).digest());
        }
    }
}
