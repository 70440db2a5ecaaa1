use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

/// Makes a directory like `/etc`, in which ordinary users cannot read the paths in `private`.
fn etc(private: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["hosts", "shadow", "ssh/sshd_config", "foo/key", "foo/bar/conf", "foo/bar/key", "ppp/secrets", "own/x"]
    {
        let path = dir.path().join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, "root:$6$hash:19000:0:99999:7:::\n").unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    symlink("foo/key", dir.path().join("link")).unwrap();
    let fifo =
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0);
    fifo.unwrap();
    for path in private {
        let path = dir.path().join(path);
        let mode = fs_err::metadata(&path).unwrap().permissions().mode() & 0o770;
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

fn planned(dir: &Path, at: &str, hide: &[&str], show: &[&str]) -> Vec<(String, Cover)> {
    let paths = |paths: &[&str]| -> Vec<PathBuf> { paths.iter().map(PathBuf::from).collect() };
    let rules = Rules::new(&paths(hide), &paths(show));
    let covers = plan(&Rootfs::open(dir).unwrap(), Path::new(at), &rules).unwrap();
    covers.into_iter().map(|(path, cover)| (path.to_str().unwrap().to_owned(), cover)).collect()
}

fn own(covers: &[(&str, Cover)]) -> Vec<(String, Cover)> {
    covers.iter().map(|(path, cover)| ((*path).to_owned(), *cover)).collect()
}

#[test]
fn private_and_named_files_are_covered() {
    let dir = etc(&["foo/key", "own"]);
    let usual = [
        ("foo/key", Cover::Nothing),
        ("own", Cover::Empty),
        ("pipe", Cover::Nothing),
        ("ppp", Cover::Empty),
        ("shadow", Cover::Accounts),
        ("ssh", Cover::Empty),
    ];
    assert_eq!(planned(dir.path(), "/etc", &[], &[]), own(&usual));
    // In other directories, only the named paths are covered.
    assert_eq!(planned(dir.path(), "/usr", &["/usr/foo/bar"], &[]), own(&[("foo/bar", Cover::Empty)]));
    // All of a shown directory is visible. A hidden directory contains only its shown entries.
    let covers = planned(dir.path(), "/etc", &["/etc/foo", "/etc/link"], &["/etc/foo/bar", "/etc/own", "/etc/shadow"]);
    let expected = [
        ("foo/key", Cover::Nothing),
        ("link", Cover::Nothing),
        ("pipe", Cover::Nothing),
        ("ppp", Cover::Empty),
        ("ssh", Cover::Empty),
    ];
    assert_eq!(covers, own(&expected));
    let covers = planned(dir.path(), "/srv/data", &["/srv/data/foo"], &["/srv/data"]);
    assert_eq!(covers, own(&[("foo", Cover::Empty)]), "a directory of the recipe's is seen as it is");
}

#[test]
fn a_mask_has_the_metadata_of_the_covered_file() {
    // Whiteouts are device nodes.
    if !crate::archive::unpack::tests::is_root("a_mask_has_the_metadata_of_the_covered_file") {
        return;
    }
    let dir = etc(&["own"]);
    fs_err::set_permissions(dir.path().join("foo"), std::fs::Permissions::from_mode(0o1775)).unwrap();
    let (lower, mask) = (Rootfs::open(dir.path()).unwrap(), tempfile::tempdir().unwrap());
    let covers = [("foo/bar/key", Cover::Nothing), ("own", Cover::Empty), ("shadow", Cover::Accounts)]
        .map(|(path, cover)| (path.into(), cover));
    make(&lower, &covers, &Rootfs::open(mask.path()).unwrap()).unwrap();
    for path in ["", "foo", "foo/bar", "own", "shadow"] {
        let facts = |root: &Path| {
            let found = fs_err::symlink_metadata(root.join(path)).unwrap();
            let time = if found.is_dir() { (found.mtime(), found.mtime_nsec()) } else { (0, 0) };
            (found.mode(), found.uid(), found.gid(), time)
        };
        assert_eq!(facts(mask.path()), facts(dir.path()), "{path}");
    }
    let whiteout = fs_err::symlink_metadata(mask.path().join("foo/bar/key")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
    let mut value = [0; 4];
    let length = rustix::fs::getxattr(mask.path().join("own"), OPAQUE, &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");
    assert!(rustix::fs::getxattr(mask.path().join("foo"), OPAQUE, &mut value[..]).is_err());
    assert_eq!(fs_err::read_to_string(mask.path().join("shadow")).unwrap(), "root:*:::::::\n");
    assert!(!mask.path().join("hosts").exists());
}

#[test]
fn accounts_lose_only_their_passwords() {
    let text = b"root:$6$x$y:19000:0:99999:7:::\nme:!:1::::::\n\n+\n";
    assert_eq!(without_passwords(text), b"root:*:::::::\nme:*:::::::\n+:*\n");
    assert_eq!(without_passwords(b"wheel:secret:root:root,me"), b"wheel:*::\n");
}
