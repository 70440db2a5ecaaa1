//! Tests of names that an OCI layer cannot hold, of extreme times, and of attributes that are left out.

use std::sync::Mutex;

use super::*;

fn tree_with(path: &str, directory: bool) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    if directory {
        fs_err::create_dir(&path).unwrap()
    } else {
        fs_err::write(&path, "").unwrap()
    }
    place
}

#[test]
fn a_layer_with_the_name_of_a_whiteout_is_refused() {
    let layer = Options { layer: true, ..Options::default() };
    for (path, directory) in [
        (".wh.x", false),
        (".wh.x", true),
        ("usr/share/deep/.wh.x", false),
        ("usr/.wh.share/deep/x", false),
        (".wh..wh..opq", false),
        ("var/.wh..wh..opq", true),
        (".wh.", false),
        ("a/.wh..wh.plnk", true),
    ] {
        let place = tree_with(path, directory);
        let error = refused(place.path(), &Deferred::default(), &layer);
        let hint = error.hint().unwrap();
        assert_eq!(error.exit_code(), 1, "{path}");
        let named = path.split_inclusive('/').scan(String::new(), |all, part| {
            all.push_str(part);
            Some(all.trim_end_matches('/').to_owned())
        });
        let named = named.into_iter().find(|path| path.rsplit('/').next().unwrap().starts_with(".wh.")).unwrap();
        assert!(error.to_string().contains(&format!("packing /{named}: ")), "{error}");
        assert!(hint.contains("strip.paths") && hint.contains(&format!("\"/{named}\"")), "{hint}");
        // An archive that does not become a layer may hold any name.
        packed(place.path(), &Deferred::default(), &Options::default());
    }
    for path in [".wh", "wh.x", "a.wh.x", ".WH.x"] {
        packed(tree_with(path, false).path(), &Deferred::default(), &layer);
    }
}

#[test]
fn a_layer_with_symlinks_or_nodes_of_such_names_is_refused() {
    let layer = Options { layer: true, ..Options::default() };
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("x", place.path().join(".wh.link")).unwrap();
    assert!(refused(place.path(), &Deferred::default(), &layer).to_string().contains("/.wh.link: "));
    let place = tree_with("first", false);
    fs_err::hard_link(place.path().join("first"), place.path().join(".wh.second")).unwrap();
    assert!(refused(place.path(), &Deferred::default(), &layer).to_string().contains("/.wh.second: "));
    let place = tree_with("dev", true);
    let (mtime, xattrs) = (Time { sec: 7, nsec: 0 }, Vec::new());
    let node = Node { block: false, major: 1, minor: 3, mode: 0o666, uid: 0, gid: 0, mtime, xattrs, inode: 0 };
    let mut deferred = Deferred::default();
    deferred.add_node("dev/.wh.null".into(), node);
    assert!(refused(place.path(), &deferred, &layer).to_string().contains("/dev/.wh.null: "));
}

/// Times that a file system may hold: large, small, before 1970, and with every kind of fraction.
const TIMES: [(i64, u32); 14] = [
    (0, 0),
    (0, 1),
    (-1, 0),
    (-1, 500_000_000),
    (-1, 999_999_999),
    (-2, 1),
    (0o77_777_777_777, 0),
    (0o77_777_777_777 + 1, 0),
    (100, 100_000_000),
    (999_999_999_999_999_999, 999_999_999),
    (1_000_000_000_000_000_000, 0),
    (i64::MAX, 999_999_999),
    (i64::MIN, 0),
    (i64::MIN, 1),
];

#[test]
fn extreme_times_are_read_back() {
    for (sec, nsec) in TIMES {
        let mtime = Time { sec, nsec };
        let mut archive = header_of("f", NodeKind::File, &Meta { mtime, ..Meta::default() }, 0);
        archive.extend_from_slice(&tar::END);
        assert_eq!(entries(&archive, Limits::default()).unwrap()[0].meta.mtime, mtime, "{sec} {nsec}");
    }
}

#[test]
fn gnu_tar_restores_extreme_times() {
    let place = tempfile::tempdir().unwrap();
    let (tree, copy) = (place.path().join("tree"), place.path().join("copy"));
    fs_err::create_dir(&tree).unwrap();
    fs_err::create_dir(&copy).unwrap();
    let mtime = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs_err::symlink_metadata(path).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    for (number, (sec, nsec)) in TIMES.into_iter().enumerate() {
        let path = tree.join(number.to_string());
        fs_err::write(&path, "x").unwrap();
        // The file system may clamp the time. The test compares what it kept.
        time(&path, sec, nsec.into());
    }
    let (bytes, ..) = packed(&tree, &Deferred::default(), &Options { format: Format::Plain, ..Options::default() });
    let archive = place.path().join("archive.tar");
    fs_err::write(&archive, &bytes).unwrap();
    let tar = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&copy).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    for (number, wanted) in TIMES.iter().enumerate() {
        let name = number.to_string();
        assert_eq!(mtime(&copy.join(&name)), mtime(&tree.join(&name)), "{wanted:?}");
    }
    let again = tempfile::tempdir().unwrap();
    unpack(&bytes, again.path()).unwrap();
    for (number, wanted) in TIMES.iter().enumerate() {
        let name = number.to_string();
        assert_eq!(mtime(&again.path().join(&name)), mtime(&tree.join(&name)), "{wanted:?}");
    }
}

/// Keeps the notes.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn emit(&self, event: Event<'_>) {
        if let Event::Note(note) = event {
            self.0.lock().unwrap().push(note.to_owned());
        }
    }
}

#[test]
fn attributes_that_are_left_out_are_counted() {
    let place = tempfile::tempdir().unwrap();
    let set = |file: &str, name: &str| {
        rustix::fs::setxattr(place.path().join(file), name, b"v", rustix::fs::XattrFlags::empty()).unwrap();
    };
    for file in ["f", "g"] {
        fs_err::write(place.path().join(file), "x").unwrap();
        set(file, "user.overlay.origin");
        set(file, "user.kept");
    }
    let mut deferred = Deferred::default();
    deferred.add_xattr(Path::new("f"), b"security.selinux".to_vec(), b"v".to_vec());
    let (notes, root) = (Notes::default(), Rootfs::open(place.path()).unwrap());
    let tree = Tree { root: &root, deferred: &deferred, part: None };
    let mut file = tempfile::tempfile().unwrap();
    pack(tree, Outputs::archive(&mut file), &Options::default(), &notes).unwrap();
    assert_eq!(
        notes.0.into_inner().unwrap(),
        ["left out 3 extended attributes that belong to this machine: security.selinux (1), user.overlay.origin (2)"]
    );
}
