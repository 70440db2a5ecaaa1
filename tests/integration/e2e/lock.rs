//! Builds with a lock file while the mirror publishes other files, also in a store without network.

use std::fs;
use std::path::{Path, PathBuf};

use super::{EPOCH, Stand, ask, text};
use crate::env::{Output, Privilege, Server};
use crate::keys::Gpg;

const VARIANT: &str = "amd64-musl";

/// A mirror to which a test publishes builds.
struct Mirror {
    gpg: Gpg,
    root: PathBuf,
}

impl Mirror {
    fn new(stand: &mut Stand) -> Option<(Self, Server)> {
        let gpg = Gpg::new()?;
        gpg.key("mirror", "never");
        let keyring = gpg.export("mirror.asc");
        let root = gpg.env.path("mirror");
        fs::create_dir_all(&root).unwrap();
        let server = Server::start(&root);
        // The program runs as an ordinary user, who cannot read the GnuPG environment.
        let keyring = stand.env.write("mirror.asc", fs::read(keyring).unwrap());
        stand.env.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", server.url()));
        stand.env.set("QUERN_SOURCE_KEYRING", keyring);
        Some((Self { gpg, root }, server))
    }

    fn builds(&self) -> PathBuf {
        self.root.join("releases/amd64/autobuilds")
    }

    /// Publishes a tarball as the latest build, with this timestamp.
    fn publish(&self, timestamp: &str, tarball: &Path) {
        let name = format!("stage3-{VARIANT}-{timestamp}.tar.xz");
        let directory = self.builds().join(timestamp);
        fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink(tarball, directory.join(&name)).unwrap();
        let sum = ask("sha512sum", &[text(tarball)]);
        let sum = sum.split(' ').next().unwrap();
        self.sign(&directory.join(format!("{name}.DIGESTS")), &format!("# SHA512 HASH\n{sum}  {name}\n"));
        let size = fs::metadata(tarball).unwrap().len();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let list = format!("# ts={now}\n{timestamp}/{name} {size}\n");
        self.sign(&self.builds().join(format!("latest-stage3-{VARIANT}.txt")), &list);
    }

    fn sign(&self, path: &Path, content: &str) {
        let plain = self.gpg.env.write("plain", content);
        let _ = fs::remove_file(path);
        self.gpg.run(&["--local-user", "mirror", "--output", text(path), "--clearsign", text(&plain)]);
    }
}

#[test]
fn userns_a_locked_build_does_not_depend_on_the_mirror() {
    let Some(stand) = Stand::alone(Privilege::Userns) else { return };
    let mut stand = stand.with_own_packages();
    let Some((mirror, server)) = Mirror::new(&mut stand) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let builds = stand.world.path("mirror/releases/amd64/autobuilds");
    let pointer = fs::read_to_string(builds.join(format!("latest-stage3-{VARIANT}.txt"))).unwrap();
    let stage3 = pointer.lines().find_map(|line| line.split_once(".tar.xz ")).unwrap().0;
    mirror.publish("20260101T000000Z", &builds.join(format!("{stage3}.tar.xz")));

    let recipe =
        stand.recipe("locked", "[emerge]\npackages = [\"app-test/tiny\"]\n[strip]\npaths = [\"/var/db/pkg\"]\n");
    let run = |stand: &Stand, arguments: &[&str]| -> Output {
        stand.env.run([&[arguments[0], text(&recipe)], &arguments[1..]].concat())
    };
    assert!(run(&stand, &["build", "--locked"]).code(2).stderr.contains("quern-builder lock"));
    let lock = stand.env.path("quern.lock");
    assert_eq!(run(&stand, &["lock"]).success().stdout.trim_end(), text(&lock));
    let locked = fs::read_to_string(&lock).unwrap();
    assert!(locked.contains("[recipe.locked.stage3]") && locked.contains(server.url().as_str()), "{locked}");
    let first = fs::read(&run(&stand, &["build"]).success().results()[0]).unwrap();

    // A newer build whose tarball is broken.
    let newer = mirror.gpg.env.write("newer", "no tarball at all");
    mirror.publish("20260202T000000Z", &newer);
    let moved = run(&stand, &["lock", "--check"]).code(1);
    assert_eq!(
        moved.stdout,
        "locked: stage3 stage3-amd64-musl-20260101T000000Z.tar.xz → stage3-amd64-musl-20260202T000000Z.tar.xz\n"
    );
    assert_eq!(fs::read_to_string(&lock).unwrap(), locked);
    let _ = run(&stand, &["build"]).code(3);
    let before = server.requests().len();
    let results = run(&stand, &["build", "--locked"]).success().results();
    assert!(fs::read(&results[0]).unwrap() == first, "another image from the same stage3 and packages");
    assert_eq!(server.requests().len(), before, "requests for what the store has");
    let provenance = fs::read_to_string(results[0].with_file_name("locked-2023-11-14.json")).unwrap();
    assert!(provenance.contains("locked: SHA-512 in the lock file"), "{provenance}");

    // The export for a store without network.
    let archive = stand.env.path("stage3.tar");
    let exported = stand.env.run(["store", "export", text(&recipe), "--output", text(&archive)]).success();
    assert_eq!(exported.stdout.trim_end(), text(&archive));
    assert!(stand.env.run(["store", "list"]).success().stdout.contains("stage3-amd64-musl-20260101T000000Z.tar.xz"));

    // Another store fetches the locked stage3 while the mirror has it, and refuses another one.
    stand.env.set("QUERN_HOME", stand.env.path("home/other"));
    let planned = run(&stand, &["build", "--locked", "--dry-run"]).success().stdout;
    assert!(planned.contains("20260101T000000Z.tar.xz") && !planned.contains("latest-stage3"), "{planned}");
    let at = locked.find("sha512 = \"").unwrap() + "sha512 = \"".len();
    let digit = if &locked[at..=at] == "0" { "1" } else { "0" };
    stand.env.write("other.lock", format!("{}{digit}{}", &locked[..at], &locked[at + 1..]));
    let tampered = run(&stand, &["fetch", "--locked", "--lock-file", "other.lock"]).code(3);
    assert!(tampered.stderr.contains("the lock file was changed"), "{}", tampered.stderr);
    fs::remove_dir_all(mirror.builds().join("20260101T000000Z")).unwrap();
    let gone = run(&stand, &["build", "--locked"]).code(5);
    assert!(gone.stderr.contains("store import"), "{}", gone.stderr);
    let _ = run(&stand, &["build", "--locked", "--offline"]).code(5);

    // The export contains the locked stage3.
    let imported = stand.env.run(["store", "import", text(&archive)]).success();
    assert_eq!(imported.results().len(), 1);
    assert_eq!(stand.env.run(["store", "import", text(&archive)]).success().stdout, imported.stdout);
    let before = server.requests().len();
    let results = run(&stand, &["build", "--locked", "--offline"]).success().results();
    assert!(fs::read(&results[0]).unwrap() == first);
    assert_eq!(server.requests().len(), before);

    // Locking again updates the file to the latest build.
    let again = run(&stand, &["lock"]).success();
    assert!(again.stderr.contains("→ stage3-amd64-musl-20260202T000000Z.tar.xz"), "{}", again.stderr);
    let _ = run(&stand, &["lock", "--check"]).success();
    // A mirror that goes back to an older build is refused, even by a new store that knows only the lock file.
    stand.env.set("QUERN_HOME", stand.env.path("home/third"));
    mirror.publish("20260131T000000Z", &newer);
    let back = run(&stand, &["lock", "--check"]).code(3);
    assert!(back.stderr.contains("is older than the locked"), "{}", back.stderr);
    stand.env.clean(&["home/other", "home/third"]);
}
