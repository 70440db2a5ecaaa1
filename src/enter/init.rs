//! S2, PID 1 of the sandbox: mounts, changes its root directory, drops privileges, starts the command, reaps.
//!
//! The order matters for security: root of the builder's user namespace mounts everything, and only then S2 enters a user namespace
//! with a second mount namespace that belongs to it. The kernel locks the mounts that such a namespace inherits. So the command, which
//! keeps CAP_SYS_ADMIN because Portage needs it, can neither unmount them nor make them writable.

use std::io::{BufRead, BufReader, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use caps::{CapSet, Capability};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Pid, Uid};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use super::daemons::{self, Daemons, Started};
use super::left::{Left, Orphans};
use super::mounts::{self, Root, SECRETS_IN};
use super::{Identity, Plan, Report, Terminal, wire};
use crate::base::error::{Context, Error, Kind, Result};
use crate::os::process::{self, Events, Exit, Forward, Watcher};
use crate::os::sys;
use crate::os::userns;

/// The capabilities of root in the tree, inside its own namespaces: those that installing packages and Portage's own sandboxes need.
const KEPT: [Capability; 17] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_IPC_OWNER,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
];

/// Exit code of a sandbox that could not start its command. The report on the channel has the reason.
const NOT_STARTED: i32 = 4;

/// Exit code of a sandbox whose daemon failed. The report on the channel has the daemon.
const FAILED: i32 = 1;

/// Runs the plan's command as a child of PID 1. Returns the sandbox's exit code. `parent` is a pidfd of S1.
pub(super) fn run(
    plan: &Plan,
    channel: &mut UnixStream,
    lines: &mut BufReader<UnixStream>,
    parent: BorrowedFd<'_>,
    signals: &SigSet,
) -> i32 {
    let ran = prepare(plan).and_then(|(pid, proc)| {
        confine(pid, &proc, channel, lines)?;
        drop_privileges(plan, parent)?;
        run_command(plan, channel, proc, signals)
    });
    ran.unwrap_or_else(|error| {
        wire::send(channel, &Report::failed(&error), None);
        NOT_STARTED
    })
}

/// Starts the daemons and the command, waits for the command, and ends the daemons. Returns the exit code.
fn run_command(plan: &Plan, channel: &UnixStream, proc: OwnedFd, signals: &SigSet) -> Result<i32> {
    let own = plan.terminal == Terminal::Own && !plan.argv.is_empty();
    let pseudo = own.then(|| pseudo_terminal(plan)).transpose()?;
    let outputs = daemons::outputs(plan, channel)?;
    // Before the daemons start: the builder must read their output.
    wire::send(channel, &Report::Started, pseudo.as_ref().map(|pseudo| pseudo.master.as_fd()));
    let terminal = pseudo.map(|pseudo| pseudo.slave);
    let mut events = Events::new(signals, Some(channel.as_fd()))?;
    let running = match Daemons::start(plan, outputs, channel, &mut events)? {
        Started::Ready(daemons) => daemons,
        Started::Failed => return Ok(FAILED),
        Started::Stopped(exit) => {
            wire::send(channel, &Report::Ended(exit), None);
            return Ok(exit.code());
        }
    };
    let Some(child) = start(plan, terminal)? else { return Ok(0) };
    let forward = if plan.terminal.is_callers() { Forward::Sent } else { Forward::Everyone };
    let orphans = plan.left.as_ref().map(|wanted| Orphans::new(proc, child, wanted, running.sessions()));
    let watched = orphans.is_some() || !plan.daemons.is_empty();
    let mut others = Others { orphans, daemons: running, channel, stopping: false, failed: false };
    let watcher: Option<&mut dyn Watcher> = if watched { Some(&mut others) } else { None };
    let exit = process::supervise(child, signals, forward, Some(channel.as_fd()), watcher);
    let failed = others.end(&mut events)?;
    match exit {
        _ if failed => Ok(FAILED),
        Ok(exit) => {
            wire::send(channel, &Report::Ended(exit), None);
            Ok(exit.code())
        }
        // The command has started: an error is not a reason why it did not.
        Err(error) => Ok(error.exit_code()),
    }
}

/// The processes of the sandbox besides the command.
struct Others<'a> {
    orphans: Option<Orphans<'a>>,
    daemons: Daemons<'a>,
    channel: &'a UnixStream,
    /// True if all processes were asked to stop.
    stopping: bool,
    /// True if a daemon ended that the command needs.
    failed: bool,
}

impl Others<'_> {
    /// Ends the processes after the command. Returns true if a daemon failed that the command needs.
    fn end(mut self, events: &mut Events<'_>) -> Result<bool> {
        if let Some(mut orphans) = self.orphans.take() {
            self.tell(orphans.remaining());
        }
        if self.stopping || self.failed {
            return Ok(self.failed);
        }
        self.daemons.stop(self.channel, events)
    }

    fn tell(&self, left: Vec<Left>) {
        left.into_iter().for_each(|left| wire::send(self.channel, &Report::Left(left), None));
    }
}

impl Watcher for Others<'_> {
    fn tick(&mut self) {
        if let Some(left) = self.orphans.as_mut().map(|orphans| orphans.end_waited_for(Instant::now())) {
            self.tell(left);
        }
    }

    fn ended(&mut self, pid: Pid, exit: Exit) -> bool {
        if !self.stopping && !self.failed {
            self.failed = self.daemons.ended(pid, exit, self.channel);
        }
        self.failed
    }

    fn stopping(&mut self) {
        self.stopping = true;
    }
}

/// Sets up mounts, root directory and host name. Returns this process's id as the builder sees it, and a `/proc` of which nothing is
/// hidden.
fn prepare(plan: &Plan) -> Result<(i32, OwnedFd)> {
    nix::sys::prctl::set_name(c"quern:S2").system(|| "naming the process")?;
    userns::die_with_parent()?;
    let mut namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if !plan.network {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(namespaces).map_err(|errno| userns::refused("making the namespaces of the sandbox", errno))?;
    if !plan.network {
        sys::bring_up_loopback().system(|| "bringing up the loopback interface of the sandbox")?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .system(|| "cutting the sandbox's mounts off from the host's")?;
    // This is still the builder's /proc.
    let link = fs_err::read_link("/proc/self").system(|| "reading the process's id")?;
    let pid = link
        .to_str()
        .and_then(|pid| pid.parse().ok())
        .ok_or_else(|| Error::system("the target of /proc/self is not a process id"))?;
    let proc = mounts::new_proc()?;
    let root = Root::attach(&plan.root)?;
    for mount in &plan.mounts {
        root.mount(mount)?;
        // At once: a later mount may cover it, through a symlink in the tree.
        if mount.target() == Path::new(SECRETS_IN) {
            root.secrets(&plan.secrets, plan.user.as_ref())?;
        }
    }
    change_root(&root)?;
    nix::unistd::sethostname(&plan.hostname).system(|| format!("setting the host name {:?}", plan.hostname))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok((pid, proc))
}

/// Enters the command's user namespace. The builder writes its id maps.
fn confine(pid: i32, proc: &OwnedFd, channel: &mut UnixStream, lines: &mut BufReader<UnixStream>) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| userns::refused("making the user namespace of the sandbox", errno))?;
    // Otherwise a builder that is not root of the host may not write the id maps of a process that gained capabilities.
    nix::sys::prctl::set_dumpable(true).system(|| "making the sandbox reachable for its parent")?;
    wire::send(channel, &Report::Unshared { pid }, None);
    let mut line = String::new();
    lines.read_line(&mut line).system(|| "waiting for the maps of the sandbox")?;
    if line.is_empty() {
        return Err(Error::system("the builder ended before it wrote the id maps"));
    }
    userns::take_root()?;
    // In a cgroup namespace of its own a command could mount the builder's cgroup, which has other processes, and write to it.
    match rustix::fs::openat(proc, "sys/user/max_cgroup_namespaces", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(limit) => rustix::io::write(&limit, b"0").map(drop).system(|| "forbidding cgroup namespaces")?,
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(Error::system("forbidding cgroup namespaces").with_source(errno)),
    }
    // From here on no process of the sandbox can read this one's memory or reopen the program through /proc.
    nix::sys::prctl::set_dumpable(false).system(|| "closing the process to the sandbox")
}

/// `pivot_root(".", ".")`, as pivot_root(2) describes it: no directory for the old root is needed.
fn change_root(root: &Root) -> Result<()> {
    let doing = || "changing the root directory";
    rustix::process::fchdir(root.fd()).system(doing)?;
    rustix::process::pivot_root(".", ".").system(doing)?;
    // The old root is now mounted on top. Unmounting it must not propagate to the host.
    mount_change(".", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).system(doing)?;
    unmount(".", UnmountFlags::DETACH).system(doing)?;
    rustix::process::chdir("/").system(doing)
}

/// Drops capabilities, forbids new privileges, closes descriptors, and closes the ways to the host that namespaces leave open.
fn drop_privileges(plan: &Plan, parent: BorrowedFd<'_>) -> Result<()> {
    let doing = || "dropping privileges";
    for capability in caps::all() {
        if !KEPT.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).system(doing)?;
        }
    }
    let kept = KEPT.into_iter().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).system(doing)?;
    }
    caps::clear(None, CapSet::Inheritable).system(doing)?;
    nix::sys::prctl::set_no_new_privs().system(doing)?;
    // Fetching needs the host's network, and with it come the host's abstract sockets, where daemons trust root.
    if !sys::keep_from_abstract_sockets().system(|| "keeping the command from the host's abstract sockets")? {
        tracing::debug!("this kernel cannot keep a command from the host's abstract sockets (Linux 6.12, Landlock)");
    }
    sys::new_session_keyring().map_err(|error| {
        Error::system("leaving the caller's keyring")
            .with_source(error)
            .with_hint("see /proc/key-users and the limits in /proc/sys/kernel/keys")
    })?;
    if plan.terminal.is_callers() {
        sys::keep_from_typing().system(|| "keeping the command from typing into the terminal")?;
    }
    // Changing credentials cleared the death signal. A parent that died in between sends none.
    userns::die_with_parent()?;
    if process::has_news(parent) {
        return Err(Error::system("the parent process of the sandbox ended"));
    }
    sys::cloexec_all().system(doing)
}

/// Starts the command, if there is one, on its pseudo-terminal, if it has one. Returns its process.
fn start(plan: &Plan, own: Option<OwnedFd>) -> Result<Option<Pid>> {
    let Some((program, arguments)) = plan.argv.split_first() else { return Ok(None) };
    let doing = || format!("starting {:?} in the tree", Path::new(program));
    #[allow(clippy::disallowed_methods, reason = "this room runs commands")]
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&plan.env).current_dir(&plan.directory);
    if let Some(own) = own {
        let copy = || own.try_clone().map(Stdio::from).system(|| "copying a pseudo-terminal");
        command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
    }
    let (terminal, user) = (plan.terminal, plan.user.clone());
    let as_planned = move || {
        match terminal {
            Terminal::None => nix::unistd::setsid().map(drop),
            Terminal::Own => nix::unistd::setsid().and_then(|_| {
                let taken = rustix::process::ioctl_tiocsctty(std::io::stdin());
                taken.map_err(|errno| nix::errno::Errno::from_raw(errno.raw_os_error()))
            }),
            Terminal::Shared => Ok(()),
            Terminal::Foreground => process::take_foreground(),
        }?;
        user.as_ref().map_or(Ok(()), become_user)
    };
    sys::fresh_start(&mut command, as_planned);
    let child = command.spawn().map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::OutOfMemory | ErrorKind::WouldBlock => Kind::System,
            // Not found, not executable, not a program: the command is at fault.
            _ => Kind::Usage,
        };
        Error::new(kind, doing())
            .with_source(error)
            .with_hint("give the path of a command in the tree, or a name that is in its PATH")
    })?;
    Ok(Some(Pid::from_raw(child.id() as i32)))
}

/// Opens a pseudo-terminal in the sandbox's `/dev/pts`, owned by the user of the command. Its size is the same on every machine, because
/// the result of a command may depend on it.
fn pseudo_terminal(plan: &Plan) -> Result<OpenptyResult> {
    let doing = || "opening a pseudo-terminal in the sandbox";
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pseudo = openpty(&size, None).system(doing)?;
    for end in [&pseudo.master, &pseudo.slave] {
        sys::set_cloexec(end, true).system(doing)?;
    }
    if let Some(Identity { uid, .. }) = &plan.user {
        nix::unistd::fchown(&pseudo.slave, Some(Uid::from_raw(*uid)), None).system(doing)?;
    }
    Ok(pseudo)
}

/// Takes the ids of a user. The process loses all capabilities, unless the user is root.
fn become_user(user: &Identity) -> nix::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setgid(Gid::from_raw(user.gid))?;
    nix::unistd::setuid(Uid::from_raw(user.uid))
}
