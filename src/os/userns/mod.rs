//! Becomes root once, before any thread exists. With root's privileges this takes a mount namespace only. Without them the program runs
//! itself again in a user namespace whose ids come from the user's ranges in `/etc/subuid` and `/etc/subgid`.
//!
//! No other room makes the outer user namespace. See user_namespaces(7), subuid(5), newuidmap(1).

pub mod owners;

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, User, geteuid, getgid, getuid, setgroups, setresgid, setresuid};

use crate::base::error::{Context, Error, Result};
use crate::os::process::{self, Exit, Forward};
use crate::os::sys;

/// The variable with the number of the socket to the parent, for the program run again.
const MARK: &str = "QUERN_USERNS_FD";
/// Its value for a process that starts in the user namespace of another process of this program.
const INHERITED: &str = "inherited";

/// Number of ids that a tree gets: 0 to 65535, the size of the ranges that distributions assign.
pub const IDS: u32 = 65536;

/// The result of [`become_root`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This process is root in a mount namespace of its own, and does the work.
    Root,
    /// A child did the work, and ended like this.
    Waited(Exit),
}

/// A range of an id map: `count` ids from `inside` are those from `outside` in the parent namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First id in the namespace.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// Number of ids.
    pub count: u32,
}

/// Returns whether this process is root, real or mapped.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Returns whether this process is root without the user namespace of [`become_root`].
pub fn is_host_root() -> bool {
    is_root() && std::env::var_os(MARK).is_none()
}

/// Returns whether uid 0 of this process's user namespace is uid 0 of the host. Then it owns the host's files, although it may lack
/// capabilities.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if /proc cannot be read.
pub fn is_hosts_root() -> Result<bool> {
    fs_err::read_to_string("/proc/self/uid_map")
        .system(|| "reading this process's id map")
        .map(|map| zero_is_zero(&map))
}

fn zero_is_zero(uid_map: &str) -> bool {
    uid_map.lines().any(|line| line.split_whitespace().take(2).eq(["0", "0"]))
}

/// The highest id that files of a tree have: `nobody`.
const NOBODY: u32 = 65534;

/// Checks that this process's user namespace has all ids that the files of a Gentoo tree have.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if ids are missing or groups cannot be changed.
pub fn check_ids() -> Result<()> {
    let hint = "run quern-builder as an ordinary user outside of the namespace, where it makes one from the ranges in /etc/subuid and \
                /etc/subgid, or make the namespace with a range of 65536 ids (`unshare --map-auto --map-root-user`; in a container, \
                its id map)";
    for (file, what) in [("uid_map", "user"), ("gid_map", "group")] {
        let map = fs_err::read_to_string(format!("/proc/self/{file}")).map_err(|error| {
            Error::system("reading this process's id map").with_source(error).with_hint("mount /proc")
        })?;
        let mapped = count_ids(&map);
        if mapped <= NOBODY {
            let message =
                format!("this user namespace has {mapped} of the {} {what} ids of a Gentoo system", NOBODY + 1);
            return Err(Error::system(message).with_hint(hint));
        }
    }
    match fs_err::read_to_string("/proc/self/setgroups") {
        Ok(text) if text.trim() == "deny" => {
            Err(Error::system("this user namespace does not allow processes to change their groups").with_hint(hint))
        }
        _ => Ok(()),
    }
}

/// Counts the ids from 0 to [`NOBODY`] in the text of `/proc/self/uid_map`.
fn count_ids(map: &str) -> u32 {
    let line = |line: &str| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().ok());
        let (first, count) = (fields.next()??, fields.nth(1)??);
        let end = (first + count).min(u64::from(NOBODY) + 1);
        u32::try_from(end.saturating_sub(first)).ok()
    };
    map.lines().filter_map(line).sum()
}

/// Returns the variable that tells a process of this program that it starts in the user namespace of this one, if that is its own.
pub(crate) fn mark_of_workers() -> Option<(&'static str, &'static str)> {
    (!is_host_root()).then_some((MARK, INHERITED))
}

/// Makes this process root, real or mapped, with a mount namespace of its own. Call it while this process has one thread.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) with the setting to change if the kernel or the ranges of ids do not allow it.
pub fn become_root() -> Result<Role> {
    if let Some(mark) = std::env::var_os(MARK).filter(|mark| mark != INHERITED) {
        enter_user_namespace(&mark.to_string_lossy())?;
    } else if !geteuid().is_root() {
        return outer().map(Role::Waited);
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| {
        Error::system("making a mount namespace").with_source(errno).with_hint(
            "root without CAP_SYS_ADMIN (a container?) cannot build; run as an ordinary user instead, or give the container \
             that capability",
        )
    })?;
    use rustix::mount::{MountPropagationFlags, mount_change};
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .system(|| "cutting the mount namespace off from the host's")?;
    Ok(Role::Root)
}

/// Enters a new user namespace, in the program run again. The parent writes the id maps.
#[allow(clippy::disallowed_methods, reason = "one thread, before anything reads the environment")]
fn enter_user_namespace(mark: &str) -> Result<()> {
    let doing = || "entering a user namespace";
    let fd = mark.parse().ok().and_then(|fd| sys::inherited_fd(fd).ok());
    let fd = fd.ok_or_else(|| {
        Error::usage(format!("{MARK} is set to {mark:?}")).with_hint("only this program sets it, for itself: unset it")
    })?;
    let mut channel = UnixStream::from(fd);
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| refused("making a user namespace", errno))?;
    // A process that gained capabilities is not dumpable. Then its parent cannot write its id maps.
    nix::sys::prctl::set_dumpable(true).system(doing)?;
    channel.write_all(b"u").system(doing)?;
    channel.read_exact(&mut [0]).system(|| "waiting for the maps of the user namespace")?;
    take_root()?;
    die_with_parent()?;
    // A parent that died before the death signal was set sends none. But its end of the socket is closed then.
    if process::has_news(channel.as_fd()) {
        return Err(Error::system("the parent process ended"));
    }
    Ok(())
}

/// Becomes uid 0 and gid 0 of this process's user namespace.
pub(crate) fn take_root() -> Result<()> {
    let doing = || "becoming root of the user namespace";
    setgroups(&[]).system(doing)?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).system(doing)?;
    setresuid(uid, uid, uid).system(doing)
}

/// Asks the kernel to kill this process when its parent dies. Every change of credentials clears this.
pub(crate) fn die_with_parent() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).system(|| "asking to die with the parent")
}

/// Starts the program again, writes its id maps, then waits and passes signals on.
fn outer() -> Result<Exit> {
    let uids = extents("/etc/subuid", getuid().as_raw())?;
    let gids = extents("/etc/subgid", getgid().as_raw())?;
    let signals = process::block_signals()?;
    let (mut ours, theirs) = UnixStream::pair().system(|| "making a socket pair")?;
    let theirs = std::os::fd::OwnedFd::from(theirs);
    sys::set_cloexec(&theirs, false).system(|| "handing over a socket")?;
    let mut arguments = std::env::args_os();
    #[allow(clippy::disallowed_methods, reason = "the program itself, run again")]
    let mut command = Command::new("/proc/self/exe");
    command.arg0(arguments.next().unwrap_or_default()).args(arguments);
    command.env(MARK, theirs.as_raw_fd().to_string());
    let child = command.spawn().system(|| "starting the program again in a user namespace")?;
    let pid = Pid::from_raw(child.id() as i32);
    drop(theirs);
    if ours.read_exact(&mut [0]).is_err() {
        // It has printed the reason.
        return process::wait(pid);
    }
    map_ids("newuidmap", pid, &uids).and_then(|()| map_ids("newgidmap", pid, &gids)).inspect_err(|_| {
        nix::sys::signal::kill(pid, Signal::SIGKILL).ok();
        process::wait(pid).ok();
    })?;
    ours.write_all(b"m").system(|| "talking to the program in the user namespace")?;
    process::supervise(pid, &signals, Forward::Sent, None, None)
}

/// Runs newuidmap or newgidmap.
fn map_ids(program: &str, pid: Pid, extents: &[Extent]) -> Result<()> {
    #[allow(clippy::disallowed_methods, reason = "this module runs newuidmap and newgidmap")]
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for extent in extents {
        command.args([extent.inside, extent.outside, extent.count].map(|id| id.to_string()));
    }
    let output = command.output().map_err(|error| {
        Error::system(format!("running {program}")).with_source(error).with_hint(
            "building without root needs newuidmap and newgidmap: install the package `shadow` on Gentoo, `uidmap` on Debian",
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::system(format!("{program} refused the map of ids: {}", String::from_utf8_lossy(&output.stderr).trim()))
        .with_hint(format!(
            "check that {program} is setuid root, that neither a nosuid mount nor no_new_privs disables this, and that /etc/subuid \
             and /etc/subgid have ranges for you"
        )))
}

/// Makes the id map of a namespace: the own id as 0, then the ranges in `file`.
fn extents(file: &str, own: u32) -> Result<Vec<Extent>> {
    let user = User::from_uid(getuid()).ok().flatten().map(|user| user.name);
    let text = match fs_err::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::system(format!("reading {file}")).with_source(error)),
    };
    map(&text, user.as_deref(), getuid().as_raw(), own).ok_or_else(|| {
        let name = user.unwrap_or_else(|| getuid().to_string());
        Error::system(format!("{file} gives you fewer than {} ids", IDS - 1)).with_hint(format!(
            "a build without root needs a range of {IDS} ids; as root, once:\n  \
             usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}\n\
             (choose a range that no other user in the file has)"
        ))
    })
}

/// Makes the id map for a user from the text of `/etc/subuid` (`name-or-uid:start:count`). Returns `None` if the ranges are too small.
pub fn map(text: &str, user: Option<&str>, uid: u32, own: u32) -> Option<Vec<Extent>> {
    let uid = uid.to_string();
    let mut extents = vec![Extent { inside: 0, outside: own, count: 1 }];
    let mut inside = 1;
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(name), Some(start), Some(count), None) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if name != uid && Some(name) != user {
            continue;
        }
        let (Ok(outside), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else { continue };
        let count = count.min(IDS - inside);
        if count > 0 && outside.checked_add(count).is_some() {
            extents.push(Extent { inside, outside, count });
            inside += count;
        }
    }
    (inside == IDS).then_some(extents)
}

/// Makes the identity map of all ids below [`IDS`] that the text of `/proc/self/uid_map` has.
pub fn identity(uid_map: &str) -> String {
    let mut lines = String::new();
    for line in uid_map.lines() {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if inside < IDS {
            lines += &format!("{inside} {inside} {}\n", count.min(IDS - inside));
        }
    }
    lines
}

/// Makes the error for a refused namespace, with the kernel setting to change.
pub(crate) fn refused(doing: &str, errno: nix::errno::Errno) -> Error {
    let read = |path: &str| fs_err::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    // ENOSPC for namespaces; EUSERS on old kernels.
    let limit = matches!(errno, nix::errno::Errno::ENOSPC | nix::errno::Errno::EUSERS);
    let hint = if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "AppArmor restricts user namespaces here: run `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root, or load a \
         profile for quern-builder"
    } else if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        "user namespaces are disabled for users here: run `sysctl kernel.unprivileged_userns_clone=1` as root"
    } else if read("/proc/sys/user/max_user_namespaces") == "0" {
        "user namespaces are disabled here: run `sysctl user.max_user_namespaces=15000` as root"
    } else if limit {
        "the limit on namespaces is reached: see max_*_namespaces in /proc/sys/user"
    } else {
        "the kernel needs CONFIG_USER_NS, and a container must allow unshare(2)"
    };
    Error::system(doing).with_source(errno).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_65536_ids_is_enough() {
        let extents = map("root:1:5\nme:100000:65536\n", Some("me"), 1000, 1000).unwrap();
        assert_eq!(
            extents,
            [Extent { inside: 0, outside: 1000, count: 1 }, Extent { inside: 1, outside: 100_000, count: IDS - 1 }]
        );
    }

    #[test]
    fn several_ranges_add_up() {
        let extents = map("1000:100000:60000\nme:200000:60000\n", Some("me"), 1000, 1000).unwrap();
        assert_eq!(extents[2], Extent { inside: 60001, outside: 200_000, count: 5535 });
    }

    #[test]
    fn too_few_ids_are_refused() {
        assert_eq!(map("me:100000:1000\n", Some("me"), 1000, 1000), None);
        assert_eq!(map("me:x:y\nme\n:::\nme:4294967295:65536\n", Some("me"), 1000, 1000), None);
    }

    #[test]
    fn the_hosts_root_is_recognised_by_its_map() {
        assert!(zero_is_zero("         0          0 4294967295\n"));
        assert!(!zero_is_zero("0 1000 1\n1 100000 65535\n") && !zero_is_zero(""));
    }

    #[test]
    fn ids_of_a_namespace_are_counted() {
        assert_eq!(count_ids("         0          0 4294967295\n"), 65535);
        assert_eq!(count_ids("0 1000 1\n1 100000 65536\n"), 65535);
        assert_eq!(count_ids("0 1000 1\n"), 1);
        assert_eq!(count_ids("0 1000 1\n1 100000 60000\n70000 1 10\n"), 60001);
        assert_eq!(count_ids("nonsense\n"), 0);
    }

    #[test]
    fn the_identity_map_ends_at_65536() {
        assert_eq!(identity("         0          0 4294967295\n"), "0 0 65536\n");
        assert_eq!(identity("0 1000 1\n1 100000 65535\n"), "0 0 1\n1 1 65535\n");
    }
}
