//! The builder's side of a sandbox: start S1, hand over the plan, write its id maps, read the command's output.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{MARK, NAME, Plan, Report, Terminal, mounts};
use crate::base::error::{Context, Error, Kind, Result};
use crate::os::process::{self, Exit, Foreground, Signals};
use crate::os::sys;
use crate::os::userns;

/// How often an [`Observer`] is asked to look around.
const TICK: Duration = Duration::from_millis(200);

/// A line of output longer than this is cut in two.
const LINE: usize = 8192;

/// Where the command's input and output go.
pub enum Io<'a> {
    /// The caller's own.
    Inherit,
    /// Nothing to read; what it writes goes to the observer, both streams as one.
    Observe(&'a mut dyn Observer),
}

impl std::fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inherit => "Inherit",
            Self::Observe(_) => "Observe",
        })
    }
}

/// Watches a command.
pub trait Observer {
    /// A line of its output, without the line end.
    fn line(&mut self, line: &[u8]);
    /// Called a few times a second while it runs.
    fn tick(&mut self);
}

/// Runs a plan's command in a sandbox of its own and waits for it.
///
/// # Errors
/// [`Kind::System`] when the sandbox cannot be made or the command not started; [`Kind::Killed`] when this program was told to
/// stop. That the command failed is no error here: see the [`Exit`].
pub fn run(plan: &Plan, io: Io<'_>) -> Result<Exit> {
    nix::sys::prctl::set_child_subreaper(true).system(|| "asking for the orphans of the sandbox")?;
    let (channel, theirs) = UnixStream::pair().system(|| "making a socket pair")?;
    let theirs = OwnedFd::from(theirs);
    sys::set_cloexec(&theirs, false).system(|| "handing over a socket")?;
    #[allow(clippy::disallowed_methods, reason = "this room runs commands")]
    let mut command = Command::new(format!("/proc/self/fd/{}", program()?.as_raw_fd()));
    command.arg0(NAME).env_clear().env(MARK, theirs.as_raw_fd().to_string());
    let output = match io {
        Io::Inherit => None,
        Io::Observe(observer) => {
            let (read, write) = std::io::pipe().system(|| "making a pipe")?;
            let error = write.try_clone().system(|| "making a pipe")?;
            command.stdin(Stdio::null()).stdout(write).stderr(error);
            // Out of the terminal's reach: what is typed comes to this program, which passes it on once.
            command.process_group(0);
            Some((read, observer))
        }
    };
    let foreground = (plan.terminal != Terminal::None).then(Foreground::note).flatten();
    let mut plan = plan.clone();
    if plan.terminal == Terminal::Foreground && foreground.is_none() {
        // Not ours to give.
        plan.terminal = Terminal::Shared;
    }
    let child = command.spawn().system(|| "starting the sandbox")?;
    drop((command, theirs));
    let pid = Pid::from_raw(child.id() as i32);
    let guard = Signals::guard(pid, plan.terminal != Terminal::None);
    let started = hand_over(&plan, channel);
    if started.is_err() {
        kill(pid, Signal::SIGKILL).ok();
    }
    let watched = match (&started, output) {
        (Ok(_), Some((read, observer))) => watch(read, observer),
        _ => Ok(()),
    };
    process::wait_for_end(pid)?;
    // Before its id can be another's.
    drop(guard);
    let exit = process::wait(pid)?;
    drop(foreground);
    // A killed S1 leaves PID 1 to us: only when that is gone, no process of the sandbox is left that could change the tree.
    process::wait_for_all()?;
    if let Some(error) = Signals::interrupted() {
        return Err(error);
    }
    let _lifeline = started?;
    watched?;
    Ok(exit)
}

/// The descriptor to run the program by. Taken once: it may be replaced while a build runs.
fn program() -> Result<BorrowedFd<'static>> {
    static PROGRAM: Mutex<Option<&'static OwnedFd>> = Mutex::new(None);
    let mut known = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    let fd = match *known {
        Some(fd) => fd,
        None => known.insert(Box::leak(Box::new(mounts::program()?))),
    };
    Ok(fd.as_fd())
}

/// The dialogue with S1 and S2 up to the start of the command. The returned socket is their lifeline: they die when it closes.
fn hand_over(plan: &Plan, mut channel: UnixStream) -> Result<UnixStream> {
    let mut wire = serde_json::to_vec(plan).context(Kind::System, || "writing the sandbox's plan")?;
    wire.push(b'\n');
    let talking = || "talking to the sandbox";
    let mut reports = BufReader::new(channel.try_clone().system(talking)?.take(1 << 20));
    channel.write_all(&wire).system(talking)?;
    let pid = match next(&mut reports)? {
        Report::Unshared { pid } => pid,
        other => return Err(unexpected(other)),
    };
    for kind in ["uid_map", "gid_map"] {
        let own = fs_err::read_to_string(format!("/proc/self/{kind}")).system(|| "reading this process's id map")?;
        fs_err::write(format!("/proc/{pid}/{kind}"), userns::identity(&own))
            .system(|| format!("writing the {kind} of the sandbox"))?;
    }
    channel.write_all(b"mapped\n").system(talking)?;
    match next(&mut reports)? {
        Report::Started => Ok(channel),
        other => Err(unexpected(other)),
    }
}

fn next(reports: &mut impl BufRead) -> Result<Report> {
    let mut line = String::new();
    reports.read_line(&mut line).system(|| "reading from the sandbox")?;
    if line.is_empty() {
        return Err(Error::system("the sandbox ended before its command was started"));
    }
    serde_json::from_str(&line).context(Kind::System, || "reading a report of the sandbox")
}

fn unexpected(report: Report) -> Error {
    let Report::Failed { message, causes, hint, usage } = report else {
        return Error::system("the sandbox reported out of order");
    };
    let mut error = if usage { Error::usage(message) } else { Error::system(message) };
    if !causes.is_empty() {
        error = error.with_source(causes.join(": "));
    }
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Feeds the observer until nobody holds the other end of the pipe; the end of PID 1 is the end of everyone who could.
fn watch(mut pipe: std::io::PipeReader, observer: &mut dyn Observer) -> Result<()> {
    let mut pending = Vec::new();
    let mut buffer = vec![0; LINE];
    let mut ticked = Instant::now();
    loop {
        let timeout = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
        let ready = match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(Error::system("waiting for the command's output").with_source(errno)),
        };
        if ticked.elapsed() >= TICK {
            observer.tick();
            ticked = Instant::now();
        }
        if ready == 0 {
            continue;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => pending.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::system("reading the command's output").with_source(error)),
        }
        let mut rest = 0;
        while let Some(length) = pending[rest..].iter().position(|&byte| byte == b'\n') {
            observer.line(&pending[rest..rest + length]);
            rest += length + 1;
        }
        pending.drain(..rest);
        if pending.len() > LINE {
            observer.line(&pending);
            pending.clear();
        }
    }
    if !pending.is_empty() {
        observer.line(&pending);
    }
    observer.tick();
    Ok(())
}
