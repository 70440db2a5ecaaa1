//! A sandbox as data: its mounts, its command, its environment. Pure; [`super::child`] and [`super::init`] carry it out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A command and its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The tree, a directory of the host, which becomes `/`.
    #[serde(with = "any_path")]
    pub root: PathBuf,
    /// The mounts, in order. Their mount points exist in the tree.
    pub mounts: Vec<Mount>,
    /// Files in the directory `/run/secrets`, for which a tmpfs is mounted at `/run`.
    pub secrets: Vec<SecretFile>,
    /// The host name inside.
    pub hostname: String,
    /// True if the command can reach the network. Otherwise it has a network namespace of its own, with nothing but loopback.
    pub network: bool,
    /// The command and its arguments. A command without a slash is looked up in [`PATH`]. If this is empty, the sandbox is made and ends
    /// at once.
    pub argv: Vec<OsString>,
    /// The command's current directory, an absolute path in the tree.
    #[serde(with = "any_path")]
    pub directory: PathBuf,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The user and the groups of the command; `None` for root.
    pub user: Option<Identity>,
    /// Longest run, in seconds. Then the command gets SIGTERM and, ten seconds later, SIGKILL. Only an observed command has a limit.
    pub limit: Option<u64>,
    /// The command's share of the caller's terminal.
    pub terminal: Terminal,
    /// The processes that live while the command runs, in the order in which they start. Only a command with an observer has any.
    pub daemons: Vec<DaemonPlan>,
    /// Makes PID 1 end processes that outlive their parent and keep the command waiting, and report them to the observer with these
    /// variables of their environment. `None` leaves such processes alone.
    pub left: Option<Vec<String>>,
}

/// A process that is started before the command and ended after it. It has the environment of the command, and runs as root of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonPlan {
    /// Its command and arguments.
    pub argv: Vec<OsString>,
    /// The sign that it is ready.
    pub sign: Sign,
    /// The longest time until it is ready, in seconds.
    pub timeout: u64,
    /// True if the command does not run without it.
    pub needed: bool,
}

/// The sign that a daemon is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sign {
    /// None: it is ready at once.
    None,
    /// One of these addresses accepts connections.
    Tcp(Vec<SocketAddr>),
    /// A path of the tree exists.
    Path(#[serde(with = "any_path")] PathBuf),
    /// A command ends with 0.
    Command(Vec<OsString>),
}

/// A file that only the user of the command and root of the tree can read. Its content is in memory only, and is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// The name of the file.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFile({})", self.name)
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        self.content.zeroize();
    }
}

/// The user of a command, as ids of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A command's share of the caller's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terminal {
    /// None: the command gets a session of its own.
    None,
    /// The command shares the process group of this program: Ctrl-C and Ctrl-Z act on both.
    Shared,
    /// The foreground, in a process group of its own. A shell gives the foreground to its jobs and takes it back by the id of its own
    /// group; this program's group has no id in the sandbox.
    Foreground,
    /// None: the command gets a session of its own, on a pseudo-terminal of the sandbox. An observer gets what is written to it; nobody
    /// types.
    Own,
}

impl Terminal {
    /// Returns true if the command can use the caller's terminal.
    pub fn is_callers(self) -> bool {
        matches!(self, Self::Shared | Self::Foreground)
    }
}

/// The search path inside a tree.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One mount. Targets are absolute paths in the tree and are resolved inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A directory or file of the host.
    Bind {
        /// Path on the host.
        #[serde(with = "any_path")]
        source: PathBuf,
        /// Path in the tree.
        #[serde(with = "any_path")]
        target: PathBuf,
        /// True if the command may write to it.
        writable: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Path in the tree.
        #[serde(with = "any_path")]
        target: PathBuf,
        /// Mode of its root directory.
        mode: u32,
        /// Size limit in bytes; the kernel's default is half the memory.
        size: Option<u64>,
    },
    /// A small `/dev`: a tmpfs with the harmless nodes of the host, its own pseudo-terminals and shared memory.
    Dev,
    /// A `/proc` of the sandbox's own processes.
    Proc,
}

impl Mount {
    /// A bind that the command may not write to.
    pub fn read_only(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::Bind { source: source.into(), target: target.into(), writable: false }
    }

    /// A bind that the command may write to.
    pub fn writable(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::Bind { source: source.into(), target: target.into(), writable: true }
    }

    /// Returns true for a part of the host's files.
    pub fn is_bind(&self) -> bool {
        matches!(self, Self::Bind { .. })
    }

    /// Returns true for a file of the host. The mount point is a file then.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::Bind { source, .. } if source.is_file())
    }

    /// The mount point in the tree.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
            Self::Dev => Path::new("/dev"),
            Self::Proc => Path::new("/proc"),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { source, target, writable } => {
                let mode = if *writable { "rw" } else { "ro" };
                write!(f, "bind {mode}  {} <- {}", target.display(), source.display())
            }
            Self::Tmpfs { target, mode, size } => {
                write!(f, "tmpfs    {} mode={mode:04o}", target.display())?;
                size.map_or(Ok(()), |size| write!(f, " size={size}"))
            }
            Self::Dev => f.write_str("dev      /dev"),
            Self::Proc => f.write_str("proc     /proc"),
        }
    }
}

/// Returns the mounts that every command gets.
pub fn base_mounts() -> Vec<Mount> {
    vec![Mount::Dev, Mount::Proc, Mount::Tmpfs { target: "/tmp".into(), mode: 0o1777, size: None }]
}

/// Returns the environment that every command gets. Of the caller's variables it has only the type of the terminal and the proxies.
pub fn base_env(caller: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    let passed = |(name, value): (OsString, OsString)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        let lower = name.to_ascii_lowercase();
        (lower == "term" || lower.ends_with("_proxy")).then_some((name, value))
    };
    let mut env: BTreeMap<String, String> = caller.into_iter().filter_map(passed).collect();
    for (name, value) in [("PATH", PATH), ("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root"), ("LANG", "C.UTF-8")]
    {
        env.insert(name.into(), value.into());
    }
    env
}

/// The encoding of paths, which need not be UTF-8, for the pipe to the sandbox.
mod any_path {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(deserializer).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_caller_stay_out() {
        let env = base_env([
            ("TERM".into(), "xterm".into()),
            ("http_proxy".into(), "http://p".into()),
            ("LD_PRELOAD".into(), "/evil.so".into()),
            ("PATH".into(), "/home/me/bin".into()),
            ("ROOT".into(), "/".into()),
        ]);
        let names: Vec<_> = env.keys().collect();
        assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "TERM", "USER", "http_proxy"]);
        assert_eq!(env["PATH"], PATH);
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let odd: OsString = std::os::unix::ffi::OsStringExt::from_vec(b"/st\xffre".to_vec());
        let mut mounts = base_mounts();
        mounts.push(Mount::writable(&odd, &odd));
        let plan = Plan {
            root: odd.into(),
            mounts,
            secrets: vec![SecretFile { name: "s".into(), content: b"hunter2\xff".to_vec() }],
            hostname: "quern".into(),
            network: true,
            argv: vec!["true".into()],
            directory: "/".into(),
            env: BTreeMap::new(),
            user: Some(Identity { uid: 250, gid: 250, groups: vec![3] }),
            limit: Some(9),
            terminal: Terminal::None,
            daemons: vec![DaemonPlan {
                argv: vec!["d".into()],
                sign: Sign::Tcp(vec!["127.0.0.1:1".parse().unwrap()]),
                timeout: 1,
                needed: true,
            }],
            left: Some(vec!["PF".into()]),
        };
        assert!(!format!("{plan:?}").contains("hunter2"));
        let wire = serde_json::to_vec(&plan).unwrap();
        assert_eq!(serde_json::from_slice::<Plan>(&wire).unwrap(), plan);
    }

    #[test]
    fn mounts_describe_themselves() {
        assert_eq!(Mount::read_only("/a", "/b").to_string(), "bind ro  /b <- /a");
        assert_eq!(
            Mount::Tmpfs { target: "/tmp".into(), mode: 0o1777, size: Some(9) }.to_string(),
            "tmpfs    /tmp mode=1777 size=9"
        );
    }
}
