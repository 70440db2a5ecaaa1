//! Tells owners that are the kernel's overflow id (65534, `nobody`) from owners that this user namespace does not map. Here both look the
//! same. In a child namespace that maps the overflow id to 0 they differ. When the first such file is found, a process in such a
//! namespace is started and gets descriptors to look at. See user_namespaces(7).

use std::ffi::OsStr;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::cmsg_space;
use rustix::fs::Stat;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::base::error::{Context, Error, Result};
use crate::os::sys;

/// The `argv[0]` of that process.
const NAME: &str = "quern-owners";
/// The id map of the initial user namespace.
const WHOLE: &str = "0 0 4294967295";
/// The answer of that process if it fails. The reason follows.
const FAILED: u8 = 0xff;

/// Facts about the id maps of this process.
#[derive(Debug)]
struct Maps {
    /// The user and the group that unmapped owners show as.
    overflow: (u32, u32),
    mapped: Mapped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapped {
    /// All ids.
    All,
    /// Some ids, including the overflow ids: only another process can tell.
    Overflow,
    /// Some ids, but not the overflow ids: whatever shows as one is unmapped.
    Others,
}

fn maps() -> &'static Maps {
    static MAPS: OnceLock<Maps> = OnceLock::new();
    MAPS.get_or_init(|| {
        // Without /proc this process cannot be in a user namespace of ours. If /proc cannot be read, no id counts as mapped.
        let read = |path: &str| match fs_err::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => WHOLE.to_owned(),
            other => other.unwrap_or_default(),
        };
        let overflow = |path: &str| read(path).trim().parse().unwrap_or(65534);
        let overflow = (overflow("/proc/sys/kernel/overflowuid"), overflow("/proc/sys/kernel/overflowgid"));
        let (uids, gids) = (read("/proc/self/uid_map"), read("/proc/self/gid_map"));
        let mapped = match [(&uids, overflow.0), (&gids, overflow.1)] {
            both if both.iter().all(|(map, _)| is_whole(map)) => Mapped::All,
            both if both.iter().all(|(map, id)| maps_id(map, *id)) => Mapped::Overflow,
            _ => Mapped::Others,
        };
        Maps { overflow, mapped }
    })
}

/// Reads the files that [`Owners`] needs.
pub(crate) fn look() {
    maps();
}

/// Finds out which owners are unmapped.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    witness: Option<Witness>,
}

impl Owners {
    /// Returns whether the owner or the group of the file `fd`, which has this status, is unmapped.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be found out.
    pub(crate) fn unmapped(&mut self, fd: BorrowedFd<'_>, stat: &Stat) -> Result<bool> {
        let Maps { overflow, mapped } = maps();
        let (user, group) = (stat.st_uid == overflow.0, stat.st_gid == overflow.1);
        if !user && !group || *mapped == Mapped::All {
            return Ok(false);
        }
        if *mapped == Mapped::Others {
            return Ok(true);
        }
        let witness = match &mut self.witness {
            Some(witness) => witness,
            none => none.insert(Witness::start(*overflow).system(|| "starting the process that looks up owners")?),
        };
        let (user_is, group_is) = witness.ask(fd)?;
        Ok((user && !user_is) || (group && !group_is))
    }
}

/// Returns the ranges of an id map in `/proc`, each as its first id inside and its length.
fn extents(map: &str) -> impl Iterator<Item = (u32, u32)> {
    map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().map(|field| field.parse().ok());
        Some((fields.next()??, fields.nth(1)??))
    })
}

fn is_whole(map: &str) -> bool {
    extents(map).any(|extent| extent == (0, u32::MAX))
}

fn maps_id(map: &str, id: u32) -> bool {
    extents(map).any(|(first, count)| id.checked_sub(first).is_some_and(|at| at < count))
}

/// The process that sees the difference. It ends when its socket is closed.
#[derive(Debug)]
struct Witness {
    channel: Option<UnixStream>,
    child: Child,
}

impl Witness {
    fn start(overflow: (u32, u32)) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        #[allow(clippy::disallowed_methods, reason = "the program itself, run again")]
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).args([overflow.0.to_string(), overflow.1.to_string()]).env_clear().process_group(0);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        sys::fresh_start(&mut command, || Ok(()));
        Ok(Self { channel: Some(ours), child: command.spawn()? })
    }

    /// Returns whether owner and group are the overflow ids themselves.
    fn ask(&mut self, fd: BorrowedFd<'_>) -> Result<(bool, bool)> {
        let asking = || "asking the process that tells owners apart";
        let Some(channel) = &mut self.channel else { return Err(Error::system(asking())) };
        let (mut space, fds) = ([MaybeUninit::uninit(); cmsg_space!(ScmRights(1))], [fd]);
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let mut answer = [0];
        // A process that failed has sent the reason before.
        let sent = rustix::net::sendmsg(&*channel, &[IoSlice::new(b"?")], &mut control, SendFlags::NOSIGNAL);
        channel.read_exact(&mut answer).system(asking)?;
        match answer {
            [FAILED] => {
                let mut why = String::new();
                channel.take(4096).read_to_string(&mut why).system(asking)?;
                Err(Error::system(format!("{}: {why}", asking())))
            }
            [answer] => sent.system(asking).map(|_| (answer & 1 != 0, answer & 2 != 0)),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        drop(self.channel.take());
        self.child.wait().ok();
    }
}

/// Answers questions about owners and returns the exit code, if this process was started for that.
pub fn run_if_child() -> Option<i32> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != NAME {
        return None;
    }
    let mut id = || arguments.next().as_deref().and_then(OsStr::to_str).and_then(|id| id.parse().ok());
    let overflow = (id()?, id()?);
    let channel = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let mut channel = UnixStream::from(channel);
    match enter(overflow).and_then(|()| answer(&mut channel)) {
        Ok(()) => Some(0),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            channel.write_all(&[&[FAILED][..], error.to_string().as_bytes(), cause.as_bytes()].concat()).ok();
            // If a question stayed unread, the kernel would discard the answer.
            channel.read_exact(&mut [0]).ok();
            Some(4)
        }
    }
}

/// Enters a user namespace that maps only the overflow ids. A process with these ids may write such a map.
fn enter((uid, gid): (u32, u32)) -> Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).system(|| "leaving the groups")?;
    setresgid(group, group, group).system(|| "changing the group")?;
    setresuid(user, user, user).system(|| "changing the user")?;
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| super::refused("making a user namespace", errno))?;
    // A process that changed its ids is not dumpable, and does not own its files in /proc.
    nix::sys::prctl::set_dumpable(true).system(|| "making the process dumpable")?;
    let maps =
        [("uid_map", format!("0 {uid} 1\n")), ("setgroups", "deny".to_owned()), ("gid_map", format!("0 {gid} 1\n"))];
    for (file, text) in maps {
        fs_err::write(format!("/proc/self/{file}"), text).system(|| "mapping the ids")?;
    }
    Ok(())
}

/// Answers questions until the socket is closed.
fn answer(channel: &mut UnixStream) -> Result<()> {
    loop {
        let (mut space, mut byte) = ([MaybeUninit::uninit(); cmsg_space!(ScmRights(1))], [0]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            rustix::net::recvmsg(&*channel, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC);
        if received.system(|| "receiving a descriptor")?.bytes == 0 {
            return Ok(());
        }
        let mut files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let file = files.next().ok_or_else(|| Error::system("receiving a descriptor: the message has none"))?;
        let stat = rustix::fs::fstat(&file).system(|| "reading the owner of a file")?;
        let answer = u8::from(stat.st_uid == 0) | u8::from(stat.st_gid == 0) << 1;
        channel.write_all(&[answer]).system(|| "sending an answer")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let (host, user) = ("         0          0 4294967295\n", "0 1000 1\n1 100000 65535\n");
        assert!(is_whole(host) && is_whole(WHOLE) && maps_id(host, 65534) && maps_id(user, 65535));
        assert!(!is_whole(user) && !maps_id(user, 65536) && !maps_id("0 1000 1\n", 65534) && !maps_id("", 0));
    }
}
