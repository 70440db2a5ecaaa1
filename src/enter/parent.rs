//! The builder's side of a sandbox: starts S1, sends it the plan, writes the id maps, reads the command's output.

use std::fs::File;
use std::io::Write;
use std::mem::take;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use zeroize::Zeroizing;

use super::capture::Captured;
use super::plan::base_mounts;
use super::watch::{Limit, Watch};
use super::wire::{self, Running};
use super::{DaemonFailure, Left, MARK, NAME, Plan, Report, Terminal, mounts};
use crate::base::error::{Context, Error, Kind, Result};
use crate::os::process::{self, Exit, Foreground, Signals};
use crate::os::sys;
use crate::os::userns;

/// The command's standard streams.
pub enum Io<'a> {
    /// The streams of this process.
    Inherit,
    /// The streams of this process. The observer gets the output of the daemons.
    Attend(&'a mut dyn Observer),
    /// Standard input is empty; standard output and standard error go to the observer as one stream. A plan with [`Terminal::Own`] needs
    /// an observer.
    Observe(&'a mut dyn Observer),
    /// Standard input is empty; standard output and standard error are kept, within limits.
    Capture(&'a mut Captured),
}

/// The reading ends of a command's output.
enum Output<'a> {
    Observed(Option<File>, &'a mut dyn Observer),
    Captured([std::io::PipeReader; 2], &'a mut Captured),
}

impl std::fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inherit => "Inherit",
            Self::Attend(_) => "Attend",
            Self::Observe(_) => "Observe",
            Self::Capture(_) => "Capture",
        })
    }
}

/// Observes a command.
pub trait Observer {
    /// Takes the next bytes of its output, or none at its end, and appends the bytes that are shown to `shown`.
    fn bytes(&mut self, read: &[u8], shown: &mut Vec<u8>) {
        shown.extend_from_slice(read);
    }
    /// Takes one line of its output, without the line end.
    fn line(&mut self, line: &[u8]);
    /// Is called a few times a second while the command runs.
    fn tick(&mut self);
    /// Takes a process that the command left behind. Only a plan with [`Plan::left`] reports any.
    fn left(&mut self, left: &Left);
    /// Is called when the command has reached [`Plan::limit`] and is asked to end. Its exit code then tells nothing.
    fn timed_out(&mut self) {}
    /// Takes the next bytes of the output of the daemon at `index` of the plan, or none at its end.
    fn daemon(&mut self, _index: usize, _bytes: &[u8]) {}
    /// Takes the failure of a daemon.
    fn daemon_failed(&mut self, _failure: DaemonFailure) {}
}

/// Runs a plan's command in a sandbox of its own and waits for it.
///
/// # Errors
/// [`Kind::System`] if the sandbox cannot be made or the command cannot be started; [`Kind::Killed`] if a signal asked this program
/// to stop. A command that fails is not an error here: look at the [`Exit`].
pub fn run(plan: &Plan, io: Io<'_>) -> Result<Exit> {
    nix::sys::prctl::set_child_subreaper(true).system(|| "becoming the reaper of the sandbox's orphans")?;
    let (channel, theirs) = UnixStream::pair().system(|| "making a socket pair")?;
    let theirs = OwnedFd::from(theirs);
    sys::set_cloexec(&theirs, false).system(|| "passing a socket to the sandbox")?;
    #[allow(clippy::disallowed_methods, reason = "this room runs commands")]
    let mut command = Command::new(format!("/proc/self/fd/{}", program()?.as_raw_fd()));
    command.arg0(NAME).env_clear().env(MARK, theirs.as_raw_fd().to_string());
    let pipe = || std::io::pipe().system(|| "making a pipe");
    let own = matches!(io, Io::Observe(_) | Io::Capture(_));
    let output = match io {
        Io::Inherit => None,
        Io::Attend(observer) => Some(Output::Observed(None, observer)),
        Io::Observe(observer) => {
            let (read, write) = pipe()?;
            let error = write.try_clone().system(|| "making a pipe")?;
            command.stdout(write).stderr(error);
            Some(Output::Observed(Some(File::from(OwnedFd::from(read))), observer))
        }
        Io::Capture(captured) => {
            let ((out, write), (err, error)) = (pipe()?, pipe()?);
            command.stdout(write).stderr(error);
            Some(Output::Captured([out, err], captured))
        }
    };
    if own {
        // Signals from the terminal do not reach this group: this program passes them on, once.
        command.stdin(Stdio::null()).process_group(0);
    }
    let foreground = plan.terminal.is_callers().then(Foreground::note).flatten();
    let mut plan = plan.clone();
    if plan.terminal == Terminal::Foreground && foreground.is_none() {
        // This program does not have the foreground, so it cannot give it away.
        plan.terminal = Terminal::Shared;
    }
    let child = command.spawn().system(|| "starting the sandbox")?;
    drop((command, theirs));
    let pid = Pid::from_raw(child.id() as i32);
    let guard = Signals::guard(pid, plan.terminal.is_callers());
    let (mut first, mut running) = (None, Running::default());
    let mut started = hand_over(&plan, channel, &mut first);
    if started.is_err() {
        kill(pid, Signal::SIGKILL).ok();
    }
    let watched = match (&mut started, output) {
        (Ok(streams), Some(Output::Observed(command, observer))) => {
            watch(&plan, (streams, command), (pid, &mut running), observer)
        }
        (Ok(_), Some(Output::Captured(mut pipes, captured))) => captured.read(&mut pipes),
        _ => Ok(()),
    };
    if watched.is_err() {
        kill(pid, Signal::SIGKILL).ok();
    }
    process::wait_for_end(pid)?;
    if let Ok(streams) = &started {
        running.take(&streams.channel, None);
    }
    // Before it is reaped: after that its id may be reused.
    drop(guard);
    let exit = process::wait(pid)?;
    drop(foreground);
    // If S1 was killed, this process inherits PID 1. Once that is gone, no process of the sandbox is left to change the tree.
    match first {
        Some(first) => process::wait_for_orphan(first)?,
        // It may exist and have no reported id. This waits for every child, so one process must not run two sandboxes at a time.
        None => process::wait_for_all()?,
    }
    if let Some(error) = Signals::interrupted() {
        return Err(error);
    }
    let _lifeline = started?;
    if let Some(error) = running.failed {
        return Err(error);
    }
    watched?;
    // The exit code of S1 does not tell a signal from a code.
    Ok(running.ended.filter(|ended| ended.code() == exit.code()).unwrap_or(exit))
}

/// Makes a sandbox in the tree `root`, which has the directories `dev`, `proc` and `tmp`, and ends it without running a command.
///
/// # Errors
/// [`Kind::System`] if this kernel, or the container that this program runs in, refuses a part of the sandbox.
pub fn try_out(root: &std::path::Path) -> Result<()> {
    let plan = Plan {
        root: root.to_owned(),
        mounts: base_mounts(),
        secrets: Vec::new(),
        hostname: "quern".to_owned(),
        network: false,
        argv: Vec::new(),
        directory: "/".into(),
        env: std::collections::BTreeMap::new(),
        user: None,
        limit: None,
        terminal: Terminal::None,
        daemons: Vec::new(),
        left: None,
    };
    run(&plan, Io::Inherit).map(drop)
}

/// Returns the descriptor that this program is run through. It is opened once: the file may be replaced while a build runs.
fn program() -> Result<BorrowedFd<'static>> {
    static PROGRAM: Mutex<Option<&'static OwnedFd>> = Mutex::new(None);
    let mut known = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    let fd = match *known {
        Some(fd) => fd,
        None => known.insert(Box::leak(Box::new(mounts::program()?))),
    };
    Ok(fd.as_fd())
}

/// The ends of a sandbox that the builder has.
struct Streams {
    /// The lifeline of S1 and S2: they die when it closes.
    channel: UnixStream,
    /// The other end of the command's pseudo-terminal, if it has one.
    pseudo: Option<OwnedFd>,
    /// The output of the daemons.
    daemons: Vec<OwnedFd>,
}

/// Watches the command and the daemons until the process `pid` has ended, which is S1.
fn watch(
    plan: &Plan,
    (streams, command): (&mut Streams, Option<File>),
    (pid, running): (Pid, &mut Running),
    observer: &mut dyn Observer,
) -> Result<()> {
    let end = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(rustix::io::Errno::SRCH);
    let end =
        end.and_then(|pid| pidfd_open(pid, PidfdFlags::empty())).system(|| "opening a descriptor of the sandbox")?;
    let command = streams.pseudo.take().map(File::from).or(command);
    let watch = Watch::new(command, take(&mut streams.daemons), plan.terminal == Terminal::Own, observer);
    watch.until(&end, &streams.channel, running, Limit::new(plan.limit, pid))
}

/// Talks to S1 and S2 until the command or its first daemon starts; `first` becomes the id of S2.
fn hand_over(plan: &Plan, mut channel: UnixStream, first: &mut Option<Pid>) -> Result<Streams> {
    let mut wire = serde_json::to_vec(plan).context(Kind::System, || "encoding the sandbox's plan")?;
    wire.push(b'\n');
    let wire = Zeroizing::new(wire);
    let talking = || "talking to the sandbox";
    channel.write_all(&wire).system(talking)?;
    let pid = match wire::receive(&channel)? {
        (Report::Unshared { pid }, _) => pid,
        (other, _) => return Err(unexpected(other)),
    };
    *first = Some(Pid::from_raw(pid));
    for kind in ["uid_map", "gid_map"] {
        let own = fs_err::read_to_string(format!("/proc/self/{kind}")).system(|| "reading this process's id map")?;
        fs_err::write(format!("/proc/{pid}/{kind}"), userns::identity(&own))
            .system(|| format!("writing the {kind} of the sandbox"))?;
    }
    channel.write_all(b"mapped\n").system(talking)?;
    let mut daemons = Vec::new();
    loop {
        match wire::receive(&channel)? {
            (Report::Output, Some(output)) => daemons.push(output),
            (Report::Started, pseudo) => return Ok(Streams { channel, pseudo, daemons }),
            (other, _) => return Err(unexpected(other)),
        }
    }
}

/// Returns the error that a report means.
pub(super) fn unexpected(report: Report) -> Error {
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
