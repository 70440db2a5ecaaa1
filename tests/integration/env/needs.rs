//! The requirements of tests: a privilege, a program, the stand-in world, or archives of other projects.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, TestEnv, output};

/// The account that the rootless tests run the program as when the tests themselves run as root. `scripts/test-user` makes it.
pub(super) const USER: &str = "quern-test";

/// The subordinate ids that the program maps for an ordinary user, besides the user's own.
pub(super) const SUBORDINATE_IDS: u64 = 65535;

/// The user that a test runs the program as. The test's name begins with it: `root_…` or `userns_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    /// An ordinary user with a user namespace and subordinate ids.
    Userns,
}

impl Privilege {
    /// Returns whether tests with this privilege can run here. If not, prints the reason or, with `QUERN_TEST_STRICT`, fails the test.
    pub(crate) fn available(self) -> bool {
        match self {
            Self::Root => {
                require("root", is_root().then_some(()).ok_or("the tests run as an ordinary user".to_owned())).is_some()
            }
            Self::Userns => require("user namespaces with subordinate ids", userns()).is_some(),
        }
    }
}

/// Makes two tests of one function, which takes a [`Privilege`]. A macro cannot put prefixes before a name, so both names are given.
macro_rules! twins {
    ($body:expr => $root:ident, $userns:ident) => {
        #[test]
        fn $root() {
            $body($crate::env::Privilege::Root);
        }

        #[test]
        fn $userns() {
            $body($crate::env::Privilege::Userns);
        }
    };
}
pub(crate) use twins;

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Returns the stand-in world, which `QUERN_TEST_WORLD` names. `scripts/test` sets that variable.
pub(crate) fn require_world() -> Option<World> {
    let world = match std::env::var_os("QUERN_TEST_WORLD") {
        None => Err("QUERN_TEST_WORLD is not set; run the test with QUERN_TEST_WORLD=$(scripts/world)".to_owned()),
        Some(root) if !Path::new(&root).join("mirror").is_dir() => {
            Err(format!("{} is not a stand-in world", root.display()))
        }
        Some(root) => Ok(World { root: root.into() }),
    };
    require("the stand-in world", world)
}

/// Returns the directory with the test archives of other projects, which `QUERN_TEST_SUITES` names. `scripts/test` sets that variable.
pub(crate) fn require_suites() -> Option<PathBuf> {
    let suites = match std::env::var_os("QUERN_TEST_SUITES").map(PathBuf::from) {
        None => Err("QUERN_TEST_SUITES is not set; run the test with QUERN_TEST_SUITES=$(scripts/suites)".to_owned()),
        Some(root) if !root.join("xz").is_dir() => Err(format!("{} does not hold the test archives", root.display())),
        Some(root) => Ok(root),
    };
    require("the test archives of other projects", suites)
}

/// Returns whether a program is installed, for a test that cannot run without it.
pub(crate) fn require_program(program: &str) -> bool {
    let found = output(Command::new("sh").args(["-c", &format!("command -v {program}")])).code == 0;
    require(program, found.then_some(()).ok_or("it is not installed".to_owned())).is_some()
}

/// Returns the value that a test needs, if it was found. If not, prints the reason or, with `QUERN_TEST_STRICT`, fails the test.
pub(crate) fn require<T>(need: &str, found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) if std::env::var_os("QUERN_TEST_STRICT").is_some_and(|strict| !strict.is_empty()) => {
            panic!("this test needs {need}: {reason}")
        }
        Err(reason) => {
            let thread = std::thread::current();
            eprintln!("skipped {}: needs {need}: {reason}", thread.name().unwrap_or("a test"));
            None
        }
    }
}

fn userns() -> Result<(), String> {
    let (name, uid) = if is_root() {
        let user = test_user().ok_or_else(|| format!("there is no user {USER}; scripts/test-user makes it"))?;
        (USER.to_owned(), user.uid)
    } else {
        let name = output(Command::new("id").arg("--user").arg("--name")).stdout.trim().to_owned();
        (name, fs::metadata("/proc/self").map_err(|error| format!("/proc/self: {error}"))?.uid())
    };
    for file in ["/etc/subuid", "/etc/subgid"] {
        let ranges = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        let ids: u64 = subordinate_ids(&ranges, &name, uid).iter().map(|(_, count)| count).sum();
        if ids < SUBORDINATE_IDS {
            return Err(format!(
                "{file} gives {name} {ids} ids, not {SUBORDINATE_IDS}; usermod --add-subuids 100000-165535 --add-subgids \
                 100000-165535 {name}"
            ));
        }
    }
    let tried = output(TestEnv::unprivileged().command("unshare").args(["--user", "--map-root-user", "newuidmap"]));
    // Without arguments newuidmap prints its usage and fails. Any other error means that it, or the namespace, is not available.
    if tried.stderr.contains("newuidmap PID") || tried.stderr.contains("usage: newuidmap") {
        Ok(())
    } else {
        Err(format!("unshare --user, newuidmap: {}", tried.stderr.trim()))
    }
}

/// Returns the ranges (first id, number of ids) that the text of `/etc/subuid` or `/etc/subgid` gives a user, by name or by uid.
pub(super) fn subordinate_ids(text: &str, name: &str, uid: u32) -> Vec<(u64, u64)> {
    let range = |line: &str| {
        let [user, first, count] = line.trim().split(':').collect::<Vec<_>>().try_into().ok()?;
        (user == name || user == uid.to_string()).then_some((first.parse().ok()?, count.parse().ok()?))
    };
    text.lines().filter_map(range).collect()
}

pub(super) fn test_user() -> Option<User> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = passwd.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(USER))?.skip(2);
    Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// Returns the words that, put before a command, run it as this user.
    pub(super) fn becoming(&self) -> [String; 5] {
        let (uid, gid) = (format!("--reuid={}", self.uid), format!("--regid={}", self.gid));
        ["setpriv", &uid, &gid, "--init-groups", "--"].map(str::to_owned)
    }
}

/// The stand-in world that `scripts/world` makes.
#[derive(Debug)]
pub(crate) struct World {
    root: PathBuf,
}

impl World {
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Returns the path of the certificate whose key signed everything on the mirror.
    pub(crate) fn keyring(&self) -> PathBuf {
        self.path("keys/release.asc")
    }

    /// Returns the path of the main ebuild repository.
    pub(crate) fn repository(&self) -> PathBuf {
        self.path("repo")
    }

    /// Serves the mirror.
    pub(crate) fn serve(&self) -> Server {
        Server::start(&self.path("mirror"))
    }
}
