//! Snapshots in squashfs images, made by `mksquashfs` and signed by GnuPG: fetched from a mirror and unpacked.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::base::error::Kind;
use crate::base::progress::Silent;
use crate::recipe::{Snapshot, SnapshotFormat};
use crate::source::ResolveOptions;
use crate::source::server::Server;
use crate::verify::gnupg::{Gpg, gpg};

const OFFLINE: ResolveOptions<'_> = ResolveOptions { offline: true, allow_rollback: false, locked: None };
const DAY: u64 = 86_400;

struct Publisher {
    gpg: Gpg,
    scratch: tempfile::TempDir,
    store: Store,
    files: HashMap<String, Vec<u8>>,
}

impl Publisher {
    /// Returns `None` without the programs: the test is skipped.
    fn new() -> Option<Self> {
        let gpg = gpg()?;
        if Command::new("mksquashfs").arg("-version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("QUERN_TEST_STRICT").is_none(), "mksquashfs is not installed");
            return None;
        }
        for key in ["good", "other"] {
            gpg.key(key, &["--faked-system-time", &format!("{}!", now() - 90 * DAY)]);
        }
        let scratch = tempfile::tempdir().unwrap();
        let keyring = gpg.run(&["--armor", "--export", "good"], b"");
        fs_err::write(scratch.path().join("snapshots.asc"), keyring).unwrap();
        let store = Store::open(&scratch.path().join("store")).unwrap();
        let site = Self { gpg, scratch, store, files: HashMap::new() };
        let repository = site.repository();
        fs_err::create_dir_all(repository.join("profiles")).unwrap();
        fs_err::write(repository.join("profiles/repo_name"), "gentoo\n").unwrap();
        fs_err::create_dir_all(repository.join("app-misc/demo/files")).unwrap();
        for (name, size) in [("empty", 0), ("small", 700), ("block", 128 << 10), ("blocks", 300_000)] {
            let bytes: Vec<u8> =
                (0..size as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            fs_err::write(repository.join("app-misc/demo/files").join(name), bytes).unwrap();
        }
        fs_err::write(repository.join("app-misc/demo/holes"), [&[0; 400_000][..], b"end"].concat()).unwrap();
        for number in 0..600 {
            let package = repository.join(format!("dev-libs/number-{number}"));
            fs_err::create_dir_all(&package).unwrap();
            fs_err::write(package.join("metadata.xml"), format!("{number}\n").repeat(number)).unwrap();
        }
        symlink("../app-misc/demo/files/small", repository.join("profiles/link")).unwrap();
        fs_err::set_permissions(repository.join("profiles"), PermissionsExt::from_mode(0o750)).unwrap();
        Some(site)
    }

    fn repository(&self) -> PathBuf {
        self.scratch.path().join("repository")
    }

    /// Makes an image of the repository.
    fn image(&self, options: &[&str]) -> Vec<u8> {
        let path = self.scratch.path().join("image");
        let made = Command::new("mksquashfs")
            .args([&self.repository(), &path])
            .args(["-noappend", "-quiet", "-no-progress", "-no-xattrs"])
            .args(options)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        fs_err::read(path).unwrap()
    }

    /// Adds a list to the mirror that was signed this many seconds ago.
    fn list(&mut self, list: &str, key: &str, ago: u64, images: &[(&str, &[u8])]) {
        let text: String = images.iter().map(|(name, bytes)| format!("{}  {name}\n", Sha512::of(bytes))).collect();
        let signed = self.gpg.clearsign(key, &["--faked-system-time", &format!("{}!", now() - ago)], &text);
        self.put(list, &signed);
    }

    fn put(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(format!("/snapshots/squashfs/{name}"), bytes.to_vec());
    }

    fn serve(&self) -> Server {
        Server::files(self.files.clone())
    }

    fn snapshot(&self, date: Option<&str>, server: &Server) -> Snapshot {
        Snapshot {
            date: date.map(str::to_owned),
            format: SnapshotFormat::Squashfs,
            mirrors: vec![server.url.clone()],
            keyring: Some(self.scratch.path().join("snapshots.asc")),
            fingerprints: Vec::new(),
            max_age: 30 * DAY,
            bounds: Default::default(),
        }
    }

    fn get(&self, snapshot: &Snapshot, terms: ResolveOptions<'_>) -> Result<RepositoryInput> {
        {
            let spec = RepositorySpec {
                origin: Origin::Snapshot(snapshot.clone()),
                priority: None,
                masters: None,
                eclass_overrides: None,
                kit: None,
            };
            repository(&spec, 0, &Site::new(&self.store, terms, &Silent))
        }
    }

    /// Checks that the snapshot is refused and that nothing of it is kept.
    #[track_caller]
    fn refuses(&self, date: Option<&str>, why: &str) {
        let server = self.serve();
        let error = self.get(&self.snapshot(date, &server), ResolveOptions::default()).unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            text.push_str(&format!(": {next}"));
            cause = next.source();
        }
        assert!(error.kind() == Kind::Refused && text.contains(why), "{why}: {text} {error:?}");
        assert_eq!(self.store.tree_names().unwrap(), []);
        let trees = fs_err::read_dir(self.store.root().join("trees")).map(|dir| dir.flatten().collect::<Vec<_>>());
        let left = trees.unwrap_or_default().into_iter().filter(|one| one.path().is_dir());
        assert_eq!(left.map(|one| one.path()).collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Returns the output of `find` and `sha512sum` for all files below a directory.
fn listing(directory: &Path) -> String {
    let script =
        "find . -printf '%P %y %m %U:%G %T@ %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha512sum";
    let listed = Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(listed.status.success() && !listed.stdout.is_empty(), "{listed:?}");
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn the_latest_image_is_fetched_and_unpacked_as_by_unsquashfs() {
    let Some(mut site) = Publisher::new() else { return };
    for (options, day) in [
        (&["-comp", "xz"][..], "20261119"),
        (&["-comp", "zstd", "-no-fragments"], "20261120"),
        (&["-comp", "gzip", "-noI", "-always-use-fragments"], "20261121"),
    ] {
        let image = site.image(options);
        let name = format!("gentoo-{day}.xz.sqfs");
        site.list(
            "gentoo-current.sha512sum.txt",
            "good",
            3600,
            &[("gentoo-20260101.xz.sqfs", b"old"), (&name, &image)],
        );
        site.put(&name, &image);
        let server = site.serve();
        let snapshot = site.snapshot(None, &server);
        let got = site.get(&snapshot, ResolveOptions::default()).unwrap();
        let theirs = site.scratch.path().join(format!("theirs-{day}"));
        let mut made = Command::new("unsquashfs");
        let made = made.arg("-q").arg("-n").arg("-d").arg(&theirs).arg(site.scratch.path().join("image"));
        assert!(made.output().unwrap().status.success());
        assert_eq!(listing(got.directory()), listing(&theirs), "{options:?}");
        // The second time nothing is fetched. If the tree is missing, the image is unpacked again.
        let asked = server.seen().len();
        assert_eq!((asked, site.get(&snapshot, OFFLINE).unwrap().directory()), (2, got.directory()));
        assert_eq!(server.seen().len(), asked);
        let RepositoryVersion::Snapshot { name: called, urls, sha512, signer, .. } = got.version else {
            panic!("{got:?}")
        };
        assert_eq!(called, format!("gentoo-{day}"));
        assert_eq!(snapshot::file_name(&snapshot, &called), name);
        assert_eq!(urls, [format!("{}/snapshots/squashfs/{name}", server.url)]);
        assert_eq!((sha512, signer), (Sha512::of(&image), Some(site.gpg.fingerprints("good")[0].clone())));
    }
}

#[test]
fn the_image_of_a_date_is_found_in_any_list() {
    let Some(mut site) = Publisher::new() else { return };
    let image = site.image(&["-comp", "xz"]);
    for (list, day) in [
        ("gentoo-20260910.sha512sum.txt", "20260910"),
        ("gentoo-current.sha512sum.txt", "20260911"),
        ("sha512sum.txt", "20260912"),
    ] {
        let name = format!("gentoo-{day}.xz.sqfs");
        site.files.clear();
        // The name of a dated image contains its age.
        site.list(list, "good", 70 * DAY, &[(&name, &image)]);
        site.put(&name, &image);
        let server = site.serve();
        let snapshot = site.snapshot(Some(day), &server);
        assert_eq!(
            snapshot::first_urls(&snapshot),
            [format!("{}/snapshots/squashfs/gentoo-{day}.sha512sum.txt", server.url)]
        );
        let missing = site.get(&site.snapshot(Some("20260913"), &server), ResolveOptions::default()).unwrap_err();
        assert!(missing.kind() == Kind::Network && missing.hint().unwrap().contains("mirrors keep"), "{missing:?}");
        assert_eq!(site.get(&snapshot, OFFLINE).unwrap_err().kind(), Kind::Network);
        // All dates have the same bytes, which are unpacked once. Each is reported under its own name.
        for terms in [ResolveOptions::default(), OFFLINE] {
            let got = site.get(&snapshot, terms).unwrap();
            assert!(
                matches!(&got.version, RepositoryVersion::Snapshot { name, .. } if *name == format!("gentoo-{day}")),
                "{got:?}"
            );
        }
    }
    assert_eq!(site.store.tree_names().unwrap().len(), 1);
}

#[test]
fn a_locked_image_is_fetched_by_its_name_and_digest() {
    let Some(mut site) = Publisher::new() else { return };
    let image = site.image(&["-comp", "xz"]);
    site.put("gentoo-20261120.xz.sqfs", &image);
    site.put("gentoo-current.xz.sqfs", b"of another day by now");
    let server = site.serve();
    let latest = site.snapshot(None, &server);
    let pin = LockedFile {
        asked: snapshot::asked(&latest),
        name: snapshot::file_name(&latest, "gentoo-20261120"),
        url: None,
        size: image.len() as u64,
        sha512: Sha512::of(&image),
        blake2b: None,
        timestamp: None,
        signer: Some(site.gpg.fingerprints("good")[0].clone()),
        subkey: None,
        signed: None,
        trust_basis: "a signed list".to_owned(),
    };
    let repository = LockedRepository { name: "gentoo".to_owned(), snapshot: Some(pin), ..LockedRepository::default() };
    let locked = crate::lockfile::Locked { repository: vec![repository], ..Default::default() };
    let terms = ResolveOptions { locked: Some(&locked), ..ResolveOptions::default() };
    let got = site.get(&latest, terms).unwrap();
    assert!(matches!(&got.version, RepositoryVersion::Snapshot { name, .. } if name == "gentoo-20261120"), "{got:?}");
    assert_eq!(server.seen().len(), 1);
    let day = site.snapshot(Some("20261120"), &server);
    assert_eq!(site.get(&day, terms).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn images_without_a_valid_signed_digest_are_refused() {
    let Some(mut site) = Publisher::new() else { return };
    let (list, name) = ("gentoo-current.sha512sum.txt", "gentoo-current.xz.sqfs");
    let image = site.image(&["-comp", "xz"]);
    site.put(name, &image);
    site.list(list, "other", 3600, &[(name, &image)]);
    site.refuses(None, "verifying");
    site.list(list, "good", 40 * DAY, &[(name, &image)]);
    site.refuses(None, "40 days old");
    // An unsigned list with the right digest.
    site.put(list, format!("{}  {name}\n", Sha512::of(&image)).as_bytes());
    site.refuses(None, "not signed");
    // The digest of another file, and a wrong digest.
    site.list(list, "good", 7200, &[("gentoo-current.lzo.sqfs", &image), (name, b"other")]);
    site.refuses(None, "");
    site.list(list, "good", 3600, &[(name, &image)]);
    site.put(name, &image[..image.len() - 4096]);
    site.refuses(None, "");
    // A list that is older than the one seen before.
    site.put(name, &image);
    site.list(list, "good", 10 * DAY, &[(name, &image)]);
    site.refuses(None, "older than one seen before");
}

#[test]
fn a_signed_image_that_is_not_a_repository_is_refused() {
    let Some(mut site) = Publisher::new() else { return };
    let list = "gentoo-20261121.sha512sum.txt";
    let name = "gentoo-20261121.xz.sqfs";
    let image = |options: &[&str]| site.image(&[&["-comp", "xz"], options].concat());
    let good = image(&[]);
    let mut images: Vec<(Vec<u8>, &str)> = vec![
        (image(&["-p", "profiles/null c 666 0 0 1 3"]), "is a device or a named pipe"),
        (image(&["-p", "profiles/disk b 666 0 0 8 0"]), "is a device or a named pipe"),
        (image(&["-p", "profiles/pipe i 666 0 0 f"]), "is a device or a named pipe"),
        (image(&["-p", "profiles/socket i 666 0 0 s"]), "it is a socket"),
        (image(&["-p", "profiles/repo_name m 4755 0 0"]), "is a setuid or setgid file"),
        (image(&["-p", "profiles/out s 777 0 0 /etc/shadow"]), "is a symbolic link out of the repository"),
        (image(&["-p", "profiles/out s 777 0 0 ../../etc"]), "is a symbolic link out of the repository"),
        (image(&["-e", "profiles/repo_name"]), "no file profiles/repo_name"),
        (b"not an image".to_vec(), "not a squashfs image"),
        (good[..good.len() / 2].to_vec(), "cannot be read"),
        (good[..96].to_vec(), "cannot be read"),
    ];
    // Wrong offsets of tables, a wrong number of entries, and a wrong root.
    for (at, bytes) in
        [(4, &[0xff; 4][..]), (32, &[0xff; 8]), (48, &[1; 8]), (64, &[0; 8]), (72, &[0xff; 8]), (20, &[9, 0])]
    {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        images.push((image, "unpacking"));
    }
    for (image, why) in images {
        site.put(name, &image);
        site.list(list, "good", 3600, &[(name, &image)]);
        site.refuses(Some("20261121"), why);
    }
}
