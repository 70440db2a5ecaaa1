//! The hermetic environment in which tests run the program, their requirements, and a web server.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod needs;
mod server;

pub(crate) use needs::{Privilege, World, is_root, require, require_program, require_suites, require_world, twins};
use needs::{SUBORDINATE_IDS, USER, User, subordinate_ids, test_user};
pub(crate) use server::Server;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_quern-builder");

/// A hermetic environment: its own home, store and outdir, and no other variables.
#[derive(Debug)]
pub(crate) struct TestEnv {
    root: tempfile::TempDir,
    user: Option<User>,
    vars: Vec<(OsString, OsString)>,
}

/// The output and the exit code of a program.
#[derive(Debug)]
#[must_use = "look at the exit code or the output"]
pub(crate) struct Output {
    /// The exit code; 128 + n for a program that signal n ended.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestEnv {
    /// Makes an environment for a program that runs as the same user as the tests.
    pub(crate) fn new() -> Self {
        // A real file system: overlays and xattrs behave differently on a tmpfs.
        let root = tempfile::Builder::new().prefix("quern-test-").tempdir_in(scratch()).expect("a scratch directory");
        let env = Self { root, user: None, vars: Vec::new() };
        for directory in ["home", "out", "tmp"] {
            fs::create_dir(env.path(directory)).expect("a directory of the test's own");
        }
        env
    }

    /// Makes an environment for a program that runs with `privilege`, or returns `None` where this machine lacks it: the test is skipped.
    pub(crate) fn with(privilege: Privilege) -> Option<Self> {
        privilege.available().then(|| match privilege {
            Privilege::Root => Self::new(),
            Privilege::Userns => Self::unprivileged(),
        })
    }

    /// Makes an environment for a program that runs as root, if possible.
    pub(crate) fn root() -> Option<Self> {
        Self::with(Privilege::Root)
    }

    /// Makes an environment for a program that runs as an ordinary user, if possible.
    pub(crate) fn userns() -> Option<Self> {
        Self::with(Privilege::Userns)
    }

    fn unprivileged() -> Self {
        let mut env = Self::new();
        if is_root() {
            let user = test_user().expect("the user is there");
            for directory in ["", "home", "out", "tmp"] {
                chown(env.path(directory), Some(user.uid), Some(user.gid)).expect("changing the owner of a directory");
            }
            env.user = Some(user);
        }
        env
    }

    /// Returns the user and the group that programs run as, if they differ from those of the tests.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        self.user.as_ref().map(|user| (user.uid, user.gid))
    }

    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(relative)
    }

    pub(crate) fn outdir(&self) -> PathBuf {
        self.path("out")
    }

    /// Returns the path of the store (`QUERN_HOME`).
    pub(crate) fn store(&self) -> PathBuf {
        self.path("home/store")
    }

    /// Sets an environment variable for all programs that are run from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.vars.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Returns a variable that was set.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_os_str())
    }

    /// Makes recipes use the world's mirror, key and main repository, and the overlays of this repository.
    pub(crate) fn use_world(&mut self, world: &World, server: &Server) -> &mut Self {
        let overlay = Path::new(env!("CARGO_MANIFEST_DIR")).join("overlays/quern");
        let repositories = format!("[{:?}, {:?}]", world.repository(), overlay);
        self.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", server.url()));
        self.set("QUERN_SOURCE_KEYRING", world.keyring());
        self.set("QUERN_PORTAGE_REPOSITORIES", repositories)
    }

    /// Writes a file that everybody can read. Returns its path.
    pub(crate) fn write(&self, relative: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a parent")).expect("making the parent directory");
        fs::write(&path, content).expect("writing a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("making a file readable");
        path
    }

    /// Returns a command that runs the program in the root of this environment.
    pub(crate) fn program<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(PROGRAM);
        command.args(arguments);
        command
    }

    /// Returns a command that runs as the user of this environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match &self.user {
            None => Command::new(program),
            Some(user) => {
                let [setpriv, options @ ..] = user.becoming();
                let mut command = Command::new(setpriv);
                command.args(options).arg(program);
                command
            }
        };
        self.settle(&mut command);
        command
    }

    /// Returns a command that runs as root, and the words that, put before a command, run it as the user of this environment.
    pub(crate) fn command_of_root(&self, program: impl AsRef<OsStr>) -> (Command, Vec<String>) {
        let mut command = Command::new(program);
        self.settle(&mut command);
        (command, self.user.iter().flat_map(User::becoming).collect())
    }

    /// Runs a shell script as root of a user namespace with the same ids as the program's. `$0` is the program.
    pub(crate) fn run_in_namespace(&self, script: &str) -> Output {
        let user = self.user.as_ref().expect("an ordinary user");
        let mut unshare = self.command("unshare");
        unshare.args(["--user", "sh", "-c", "echo; read go && exec sh -c \"$1\" \"$0\"", PROGRAM, script]);
        let mut child = unshare
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting unshare");
        let mut line = [0];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut line).expect("waiting for the namespace");
        for (tool, file, own) in [("newuidmap", "/etc/subuid", user.uid), ("newgidmap", "/etc/subgid", user.gid)] {
            let mut map = vec![child.id().into(), 0, own.into(), 1];
            let mut inside = 1;
            for (first, count) in subordinate_ids(&fs::read_to_string(file).expect(file), USER, user.uid) {
                let count = count.min(SUBORDINATE_IDS + 1 - inside);
                if count > 0 {
                    map.extend([inside, first, count]);
                    inside += count;
                }
            }
            let _ = output(self.command(tool).args(map.iter().map(u64::to_string))).success();
        }
        child.stdin.take().expect("a pipe").write_all(b"go\n").expect("starting the script");
        Output::of(child.wait_with_output().expect("waiting for the script"))
    }

    fn settle(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("QUERN_HOME", self.store())
            .env("TMPDIR", self.path("tmp"))
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .current_dir(self.root.path())
            .stdin(Stdio::null());
    }

    /// Runs the program and waits for it.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        output(&mut self.program(arguments))
    }

    /// Empties stores that the test made besides its own.
    pub(crate) fn clean(&mut self, stores: &[&str]) {
        for store in stores {
            self.set("QUERN_HOME", self.path(store));
            let _ = self.run(["clean", "--all"]).success();
        }
    }

    /// Starts the program and lets it run. Also returns the path of a file with its output.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> (Child, PathBuf) {
        let log = self.path("log");
        let file = fs::File::create(&log).expect("a file for the output");
        let mut command = self.program(arguments);
        command.stdout(file.try_clone().expect("a second descriptor")).stderr(file);
        (command.spawn().expect("starting the program"), log)
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        // Files of subordinate ids can be removed only by root or in the program's own user namespace.
        if !is_root() && self.store().exists() {
            let _ = output(&mut self.program(["clean", "--all"]));
        }
    }
}

impl Output {
    fn of(output: std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let code = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Self {
            code: code.expect("a code or a signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Returns the output, after checking that the program succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.code(0)
    }

    /// Returns the output, after checking that the exit code is `code`.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Returns the paths of the results: the program prints nothing else on standard output.
    pub(crate) fn results(&self) -> Vec<PathBuf> {
        self.stdout.lines().map(PathBuf::from).collect()
    }
}

/// Runs a command and waits for it.
pub(crate) fn output(command: &mut Command) -> Output {
    Output::of(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// The time after which [`wait_for`] takes a test for hung. A loaded machine does not reach it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until `done` returns true, checking ten times a second.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns the directory for temporary files: `QUERN_TEST_TMP`, or the system's.
pub(crate) fn scratch() -> PathBuf {
    std::env::var_os("QUERN_TEST_TMP").map_or_else(std::env::temp_dir, PathBuf::from)
}

#[test]
fn the_environment_of_the_tests_does_not_reach_the_program() {
    let mut env = TestEnv::new();
    env.set("QUERN_TEST_MARK", "1");
    let told = output(&mut env.command("env")).success();
    let names: Vec<_> = told.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(names.contains(&"QUERN_TEST_MARK") && !names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    assert!(env.path("x").as_os_str().as_bytes().len() > 4);
}
