//! S2, PID 1 of the sandbox: mounts, changes its root, gives up what the command must not have, starts it, reaps.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use super::child::report;
use super::mounts::Root;
use super::{Plan, Report};
use crate::error::{Context, Error, Result};
use crate::process::{self, Forward};
use crate::sys::{self, Fork};
use crate::userns;

/// What root of a tree may do, inside its own namespaces: what installing packages and Portage's own sandboxes need.
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

/// Exit code of a sandbox that could not start its command; the report on the channel says why.
const NOT_STARTED: i32 = 4;

/// Runs the plan's command as PID 1's child; returns the sandbox's exit code.
pub(super) fn run(plan: &Plan, channel: &mut UnixStream, signals: &SigSet) -> i32 {
    let child = match prepare(plan).and_then(|()| start(plan)) {
        Ok(Started::Running(child)) => child,
        // The command's process has said why.
        Ok(Started::Failed) => return NOT_STARTED,
        Ok(Started::Refused(error)) | Err(error) => {
            let not_found = std::error::Error::source(&error)
                .and_then(|source| source.downcast_ref::<std::io::Error>())
                .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
            report(channel, &Report::failed(&error, not_found));
            return NOT_STARTED;
        }
    };
    report(channel, &Report::Started);
    let forward = if plan.terminal { Forward::Sent } else { Forward::Group };
    match process::supervise(child, signals, forward, Some(channel.as_fd())) {
        Ok(exit) => exit.code(),
        Err(error) => error.exit_code(),
    }
}

/// Everything between the fork and the command.
fn prepare(plan: &Plan) -> Result<()> {
    nix::sys::prctl::set_name(c"quern:S2").system(|| "naming the process")?;
    userns::die_with_parent()?;
    // The namespace is the user namespace's own, so nothing goes out; downstream: nothing of the host comes in later either.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .system(|| "cutting the sandbox's mounts off from the host's")?;
    let root = Root::attach(&plan.root)?;
    for mount in &plan.mounts {
        root.mount(mount)?;
    }
    change_root(&root)?;
    nix::unistd::sethostname(&plan.hostname).system(|| format!("setting the host name {:?}", plan.hostname))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    drop_privileges()?;
    // Dropping capabilities made the process a stranger to its death signal.
    userns::die_with_parent()
}

/// `pivot_root(".", ".")`, as pivot_root(2) describes it: no directory for the old root is needed.
fn change_root(root: &Root) -> Result<()> {
    let doing = || "changing the root directory";
    rustix::process::fchdir(root.fd()).system(doing)?;
    rustix::process::pivot_root(".", ".").system(doing)?;
    // The old root now lies on top; nothing done to it may reach the host.
    mount_change(".", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).system(doing)?;
    unmount(".", UnmountFlags::DETACH).system(doing)?;
    rustix::process::chdir("/").system(doing)
}

/// Capabilities, new privileges, descriptors.
fn drop_privileges() -> Result<()> {
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
    sys::cloexec_all().system(doing)
}

/// What became of the command; in its own process only ever that it was refused.
enum Started {
    Running(Pid),
    Failed,
    Refused(Error),
}

/// Starts the command in a user and a mount namespace of its own, below the sandbox's. There the kernel locks what the sandbox
/// has mounted: the command is root with CAP_SYS_ADMIN, and could else make a read-only bind of the host writable.
fn start(plan: &Plan) -> Result<Started> {
    let doing = || "starting the command's process";
    let (mut ours, theirs) = UnixStream::pair().system(doing)?;
    let child = match sys::fork().system(doing)? {
        Fork::Child => {
            drop(ours);
            return Ok(Started::Refused(become_command(plan, theirs)));
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    if ours.read_exact(&mut [0]).is_ok() {
        for kind in ["uid_map", "gid_map"] {
            let own = fs_err::read_to_string(format!("/proc/self/{kind}")).system(doing)?;
            fs_err::write(format!("/proc/{child}/{kind}"), userns::identity(&own)).system(doing)?;
        }
        ours.write_all(b"m").system(doing)?;
        // The other end is closed by a successful exec, without a word.
        if matches!(ours.read(&mut [0]), Ok(0)) {
            return Ok(Started::Running(child));
        }
    }
    process::wait(child)?;
    Ok(Started::Failed)
}

/// Turns this process into the command; returns why it could not.
fn become_command(plan: &Plan, mut parent: UnixStream) -> Error {
    let mut turn = || -> Result<std::convert::Infallible> {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
            .map_err(|errno| userns::refused("making the command's namespaces", errno))?;
        parent.write_all(b"u").system(|| "talking to the sandbox")?;
        parent.read_exact(&mut [0]).system(|| "waiting for the maps of the command's namespace")?;
        userns::take_root()?;
        drop_privileges()?;
        if !plan.terminal {
            nix::unistd::setsid().system(|| "starting a session")?;
        }
        let (program, arguments) = plan.argv.split_first().ok_or_else(|| Error::usage("no command given"))?;
        #[allow(clippy::disallowed_methods, reason = "this room runs commands")]
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&plan.env).current_dir("/");
        Err(command.exec()).system(|| format!("starting {} in the tree", Path::new(program).display()))
    };
    let Err(error) = turn();
    parent.write_all(b"x").ok();
    error
}
