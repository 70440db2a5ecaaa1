//! Common ground of the tests: a hermetic environment for the program, the requirements a test may have, and a web server for a
//! directory.

// No module uses all of it.
#![allow(dead_code)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_quern-builder");

/// The account that the rootless tests run the program as when the tests themselves run as root. `scripts/test-user` makes it.
const USER: &str = "quern-test";

/// The subordinate ids that the program maps for an ordinary user, besides the user's own.
const SUBORDINATE_IDS: u64 = 65535;

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

/// A hermetic environment: its own home, store and outdir, and no other variables.
#[derive(Debug)]
pub(crate) struct TestEnv {
    root: tempfile::TempDir,
    user: Option<User>,
    vars: Vec<(OsString, OsString)>,
}

#[derive(Debug, Clone)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Returns the words that, put before a command, run it as this user.
    fn becoming(&self) -> [String; 5] {
        let (uid, gid) = (format!("--reuid={}", self.uid), format!("--regid={}", self.gid));
        ["setpriv", &uid, &gid, "--init-groups", "--"].map(str::to_owned)
    }
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

/// Waits until `done` returns true, checking ten times a second.
#[track_caller]
pub(crate) fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

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
fn subordinate_ids(text: &str, name: &str, uid: u32) -> Vec<(u64, u64)> {
    let range = |line: &str| {
        let [user, first, count] = line.trim().split(':').collect::<Vec<_>>().try_into().ok()?;
        (user == name || user == uid.to_string()).then_some((first.parse().ok()?, count.parse().ok()?))
    };
    text.lines().filter_map(range).collect()
}

fn test_user() -> Option<User> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = passwd.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(USER))?.skip(2);
    Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

/// Returns the directory for temporary files: `QUERN_TEST_TMP`, or the system's.
pub(crate) fn scratch() -> PathBuf {
    std::env::var_os("QUERN_TEST_TMP").map_or_else(std::env::temp_dir, PathBuf::from)
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

/// A web server on the loopback interface that serves the files of a directory, also in ranges.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: Mutex<Vec<String>>,
    hold: Mutex<Option<u64>>,
    holding: AtomicBool,
}

impl Server {
    /// Serves `root` until the tests end.
    pub(crate) fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let server = Self { address: listener.local_addr().expect("an address"), state: Arc::default() };
        let (root, state) = (root.to_owned(), Arc::clone(&server.state));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, state) = (root.clone(), Arc::clone(&state));
                // A client that disconnects in the middle is a case under test, not a failure.
                std::thread::spawn(move || drop(answer(&stream, &root, &state)));
            }
        });
        server
    }

    /// Returns the address, `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests so far: `GET /path` or `GET /path bytes=5-`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().expect("no panic while logging").clone()
    }

    /// Makes every answer pause after `after` bytes, or lets the paused answers continue.
    pub(crate) fn hold(&self, after: Option<u64>) {
        *self.state.hold.lock().expect("no panic while holding") = after;
        self.state.holding.store(false, Ordering::SeqCst);
    }

    /// Returns whether an answer is paused.
    pub(crate) fn is_holding(&self) -> bool {
        self.state.holding.load(Ordering::SeqCst)
    }
}

fn answer(stream: &TcpStream, root: &Path, state: &State) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut lines = BufReader::new(stream.try_clone()?.take(64 << 10)).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut range = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_owned());
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let logged = [method, target, range.as_deref().unwrap_or_default()].join(" ");
    state.requests.lock().expect("no panic while logging").push(logged.trim_end().to_owned());

    let mut stream = stream;
    let Some(mut file) = open(root, target) else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let size = file.metadata()?.len();
    let (start, end) = match range.as_deref().map(|range| parse_range(range, size)) {
        None => (0, size),
        Some(Some(range)) => range,
        Some(None) => {
            let head = "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n";
            return write!(stream, "{head}Content-Range: bytes */{size}\r\n\r\n");
        }
    };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\nConnection: close\r\n",
        end - start
    )?;
    if range.is_some() {
        write!(stream, "Content-Range: bytes {start}-{}/{size}\r\n", end - 1)?;
    }
    write!(stream, "\r\n")?;
    if method != "HEAD" {
        file.seek(SeekFrom::Start(start))?;
        let held = || *state.hold.lock().expect("no panic while holding");
        let mut left = file.take(end - start);
        if let Some(first) = held() {
            std::io::copy(&mut left.by_ref().take(first), &mut stream)?;
            while left.limit() > 0 && held().is_some() {
                state.holding.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        std::io::copy(&mut left, &mut stream)?;
    }
    stream.flush()
}

/// Returns the offset of the first byte of `bytes=FIRST-[LAST]` and the offset after the last one.
fn parse_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok()?;
    let end = if last.is_empty() { size } else { last.parse::<u64>().ok()?.saturating_add(1).min(size) };
    (first < end).then_some((first, end))
}

fn open(root: &Path, target: &str) -> Option<fs::File> {
    let path = target.split('?').next()?.trim_start_matches('/').replace("%2B", "+").replace("%2b", "+");
    let plain = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
    let file = fs::File::open(root.join(&path)).ok()?;
    (plain && file.metadata().ok()?.is_file()).then_some(file)
}

#[test]
fn the_server_serves_only_files_and_ranges() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("mirror")).unwrap();
    fs::write(root.path().join("mirror/file"), "0123456789").unwrap();
    fs::write(root.path().join("secret"), "x").unwrap();
    let server = Server::start(&root.path().join("mirror"));
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), head.contains("Content-Range: bytes 7-9/10"), body.to_owned())
    };
    let is = |status: &str, ranged, body: &str| (format!("HTTP/1.1 {status}"), ranged, body.to_owned());
    assert_eq!(ask("GET /file HTTP/1.1\r\n\r\n"), is("200 OK", false, "0123456789"));
    assert_eq!(ask("GET /file HTTP/1.1\r\nrange: bytes=7-\r\n\r\n"), is("206 Partial Content", true, "789"));
    assert_eq!(ask("GET /file HTTP/1.1\r\nRange: bytes=10-\r\n\r\n").0, "HTTP/1.1 416 Range Not Satisfiable");
    assert_eq!(ask("HEAD /file HTTP/1.1\r\n\r\n"), is("200 OK", false, ""));
    for target in ["/../secret", "/", "/none"] {
        assert_eq!(ask(&format!("GET {target} HTTP/1.1\r\n\r\n")).0, "HTTP/1.1 404 Not Found", "{target}");
    }
    assert_eq!(server.requests()[1], "GET /file bytes=7-");
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
