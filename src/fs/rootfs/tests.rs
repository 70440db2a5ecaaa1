use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

fn tree() -> (tempfile::TempDir, Rootfs) {
    let place = tempfile::tempdir().unwrap();
    fs_err::create_dir(place.path().join("tree")).unwrap();
    fs_err::write(place.path().join("canary"), "alive").unwrap();
    let root = Rootfs::open(&place.path().join("tree")).unwrap();
    (place, root)
}

fn p(path: &str) -> &Path {
    Path::new(path)
}

#[test]
fn absolute_links_and_parents_stay_inside() {
    let (place, root) = tree();
    fs_err::create_dir(root.path().join("etc")).unwrap();
    symlink("/etc", root.path().join("abs")).unwrap();
    symlink("../../../../../etc", root.path().join("up")).unwrap();
    root.write(p("/abs/one"), b"1", 0o640).unwrap();
    root.write(p("up/two"), b"2", 0o600).unwrap();
    root.write(p("../../three"), b"3", 0o600).unwrap();
    assert_eq!(root.read(p("/etc/one"), 10).unwrap().unwrap(), b"1");
    assert_eq!(root.read(p("etc/../../etc/two"), 10).unwrap().unwrap(), b"2");
    assert_eq!(fs_err::read(root.path().join("three")).unwrap(), b"3");
    assert_eq!(fs_err::metadata(root.path().join("etc/one")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs_err::read_dir(place.path()).unwrap().count(), 2);
}

#[test]
fn writing_replaces_symlinks_and_does_not_follow_them() {
    let (place, root) = tree();
    symlink(place.path().join("canary"), root.path().join("x")).unwrap();
    symlink("y-target", root.path().join("y")).unwrap();
    fs_err::write(root.path().join("y-target"), "old").unwrap();
    root.write(p("x"), b"new", 0o644).unwrap();
    root.write(p("y"), b"new", 0o644).unwrap();
    root.symlink(p("/anything"), p("z/l")).unwrap();
    root.symlink(p("other"), p("z/l")).unwrap();
    assert_eq!(fs_err::read(place.path().join("canary")).unwrap(), b"alive");
    assert_eq!(fs_err::read(root.path().join("y-target")).unwrap(), b"old");
    assert_eq!(root.read(p("x"), 10).unwrap().unwrap(), b"new");
    assert_eq!(root.read_link(p("z/l")).unwrap().unwrap(), p("other"));
    assert_eq!(root.read_dir(p("")).unwrap().len(), 4, "no temporary file is left");
}

#[test]
fn a_dangling_parent_is_an_error() {
    let (_place, root) = tree();
    symlink("nowhere", root.path().join("l")).unwrap();
    assert!(root.write(p("l/f"), b"", 0o644).is_err());
    assert!(root.create_dir_all(p("l/d"), 0o755).is_err());
}

#[test]
fn only_regular_files_within_the_limit_are_read() {
    let (_place, root) = tree();
    assert_eq!(root.read(p("missing"), 1).unwrap(), None);
    root.write(p("f"), b"12345", 0o644).unwrap();
    assert_eq!(root.read(p("f"), 5).unwrap().unwrap(), b"12345");
    assert!(root.read(p("f"), 4).is_err());
    rustix::fs::mknodat(root.fd(), "pipe", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert!(root.read(p("pipe"), 4).is_err());
    assert!(root.read(p(""), 4).is_err());
}

#[test]
fn stat_does_not_follow_the_last_symlink() {
    let (_place, root) = tree();
    symlink("f", root.path().join("l")).unwrap();
    let kind = |path: &str| root.stat(p(path)).unwrap().map(|stat| FileType::from_raw_mode(stat.st_mode));
    assert_eq!(kind("l"), Some(FileType::Symlink));
    assert_eq!(kind("l/"), Some(FileType::Symlink));
    assert_eq!(kind("f"), None);
    assert_eq!(kind("l/x/y"), None);
    assert_eq!(kind("/"), Some(FileType::Directory));
}

#[test]
fn directories_are_listed_by_bytes() {
    let (_place, root) = tree();
    for name in ["b", "a.b", "a", "é", "Z"] {
        root.create_dir_all(p(name), 0o700).unwrap();
    }
    let names: Vec<_> = root.read_dir(p("/")).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Z", "a", "a.b", "b", "é"]);
}

#[test]
fn removing_follows_nothing_and_survives_depth() {
    let (place, root) = tree();
    symlink(place.path(), root.path().join("out")).unwrap();
    assert!(root.remove(p("out")).unwrap());
    assert!(!root.remove(p("out")).unwrap());
    assert!(!root.remove(p("no/where")).unwrap());
    assert!(root.remove(p("/")).is_err());
    fs_err::read(place.path().join("canary")).unwrap();

    // Deeper than the longest path, and than the limit of descriptors.
    let mut here = rustix::fs::openat(root.fd(), ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for _ in 0..5000 {
        rustix::fs::mkdirat(&here, "deep", Mode::from_raw_mode(0o700)).unwrap();
        rustix::fs::mkdirat(&here, "beside", Mode::from_raw_mode(0o000)).unwrap();
        rustix::fs::symlinkat(place.path(), &here, "link").unwrap();
        here = rustix::fs::openat(&here, "deep", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    assert!(root.remove(p("deep")).unwrap());
    assert!(root.remove(p("beside")).unwrap());
    assert!(root.remove(p("link")).unwrap());
    assert!(root.read_dir(p("")).unwrap().is_empty());
    fs_err::read(place.path().join("canary")).unwrap();
}

#[test]
fn a_lookup_survives_renames_beside_it() {
    let (_place, root) = tree();
    root.write(p("a/b/c/f"), b"x", 0o644).unwrap();
    root.create_dir_all(p("r1"), 0o755).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let fd = root.fd();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat(fd, "r1", fd, "r2").unwrap();
                rustix::fs::renameat(fd, "r2", fd, "r1").unwrap();
            }
        });
        for _ in 0..2000 {
            assert!(root.read(p("a/b/../b/c/../../b/c/f"), 10).unwrap().is_some());
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn all_paths_to_a_directory_have_the_same_real_path() {
    let (_place, root) = tree();
    fs_err::create_dir_all(root.path().join("a/b")).unwrap();
    symlink("/a/b", root.path().join("abs")).unwrap();
    symlink("../../../a", root.path().join("up")).unwrap();
    symlink("../abs", root.path().join("a/again")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    symlink("nowhere", root.path().join("dangling")).unwrap();
    for path in ["a/b", "abs", "up/b", "a/again", "up/again", "/abs/../b", "./abs/.", "up/../a/b/"] {
        assert_eq!(root.real(p(path)), Ok("a/b".into()), "{path}");
    }
    for path in ["", ".", "/", "..", "up/.."] {
        assert_eq!(root.real(p(path)), Ok(PathBuf::new()), "{path}");
    }
    assert_eq!(root.real(p("loop")), Err(Errno::LOOP));
    assert_eq!(root.real(p("dangling/x")), Err(Errno::NOENT));
    assert_eq!(root.real(p("abs/x")), Err(Errno::NOENT));
    assert!(!root.remove(p("loop/x")).unwrap() && root.stat(p("loop/x")).unwrap().is_none());
}

#[test]
fn attributes_of_the_host_are_recognised() {
    for name in ["security.selinux", "security.SMACK64", "security.SMACK64EXEC", "security.apparmor", "security.evm"] {
        assert!(is_host_xattr(name.as_bytes()), "{name}");
    }
    for name in ["system.nfs4_acl", "system.cifs_acl", "btrfs.compression", "ceph.dir.layout", ""] {
        assert!(is_host_xattr(name.as_bytes()), "{name}");
    }
    for name in ["user.x", "user.system.x", "trusted.x", "security.capability", "security.ima", "security.NTACL"] {
        assert!(!is_host_xattr(name.as_bytes()), "{name}");
    }
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        assert!(!is_host_xattr(name.as_bytes()), "{name}");
    }
}
