//! The builder's side of a sandbox: starts S1, sends it the plan, writes the id maps, reads the command's output.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
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
use zeroize::Zeroizing;

use super::capture::{Captured, LINE, Lines};
use super::plan::base_mounts;
use super::wire::{self, Running};
use super::{Left, MARK, NAME, Plan, Report, Terminal, mounts};
use crate::base::error::{Context, Error, Kind, Result};
use crate::os::process::{self, Exit, Foreground, Signals};
use crate::os::sys;
use crate::os::userns;

/// Time between two calls of [`Observer::tick`].
const TICK: Duration = Duration::from_millis(200);

/// Time between SIGTERM and SIGKILL for a command whose time is over.
const GRACE: Duration = Duration::from_secs(10);

/// The command's standard streams.
pub enum Io<'a> {
    /// The streams of this process.
    Inherit,
    /// Standard input is empty; standard output and standard error go to the observer as one stream. A plan with [`Terminal::Own`] needs
    /// an observer.
    Observe(&'a mut dyn Observer),
    /// Standard input is empty; standard output and standard error are kept, within limits.
    Capture(&'a mut Captured),
}

/// The reading ends of a command's output.
enum Output<'a> {
    Observed(File, &'a mut dyn Observer),
    Captured([std::io::PipeReader; 2], &'a mut Captured),
}

impl std::fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inherit => "Inherit",
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
    let mut output = match io {
        Io::Inherit => None,
        Io::Observe(observer) => {
            let (read, write) = pipe()?;
            let error = write.try_clone().system(|| "making a pipe")?;
            command.stdout(write).stderr(error);
            Some(Output::Observed(File::from(OwnedFd::from(read)), observer))
        }
        Io::Capture(captured) => {
            let ((out, write), (err, error)) = (pipe()?, pipe()?);
            command.stdout(write).stderr(error);
            Some(Output::Captured([out, err], captured))
        }
    };
    if output.is_some() {
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
    let mut first = None;
    let mut started = hand_over(&plan, channel, &mut first);
    if started.is_err() {
        kill(pid, Signal::SIGKILL).ok();
    }
    if let (Ok((_, pseudo)), Some(Output::Observed(read, _))) = (&mut started, &mut output)
        && let Some(pseudo) = pseudo.take()
    {
        *read = File::from(pseudo);
    }
    let mut running = Running::default();
    let watched = match (&started, &mut output) {
        (Ok((channel, _)), Some(Output::Observed(read, observer))) => {
            let lines = Lines::of(plan.terminal == Terminal::Own);
            watch((read, lines), channel, &mut running, *observer, Limit::new(plan.limit, pid))
        }
        (Ok(_), Some(Output::Captured(pipes, captured))) => captured.read(pipes),
        _ => Ok(()),
    };
    if watched.is_err() {
        kill(pid, Signal::SIGKILL).ok();
    }
    process::wait_for_end(pid)?;
    if let (Ok((channel, _)), Some(Output::Observed(_, observer))) = (&started, &mut output) {
        running.tell(channel, *observer);
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

/// Talks to S1 and S2 until the command has started; `first` becomes the id of S2. The returned socket is their lifeline: they die when
/// it closes. With it comes the other end of the command's pseudo-terminal, if it has one.
fn hand_over(plan: &Plan, mut channel: UnixStream, first: &mut Option<Pid>) -> Result<(UnixStream, Option<OwnedFd>)> {
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
    match wire::receive(&channel)? {
        (Report::Started, pseudo) => Ok((channel, pseudo)),
        (other, _) => Err(unexpected(other)),
    }
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

/// The end of a command's time.
struct Limit {
    at: Option<Instant>,
    /// The signal that is sent then.
    signal: Signal,
    /// S1, which passes SIGTERM on, and with which all processes of the sandbox end.
    sandbox: Pid,
}

impl Limit {
    /// The limit of a command that starts now in the sandbox of the process `sandbox` and may run for some seconds.
    fn new(seconds: Option<u64>, sandbox: Pid) -> Self {
        let at = seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        Self { at, signal: Signal::SIGTERM, sandbox }
    }

    /// Asks the command to end when its time is over, and kills it if it does not end.
    fn enforce(&mut self) {
        if self.at.is_some_and(|at| Instant::now() >= at) {
            kill(self.sandbox, self.signal).ok();
            self.at = (self.signal == Signal::SIGTERM).then(|| Instant::now() + GRACE);
            self.signal = Signal::SIGKILL;
        }
    }
}

/// Passes output to the observer until every process of the sandbox has closed its end, which happens at the latest when PID 1 ends.
fn watch(
    (output, mut lines): (&mut File, Lines),
    channel: &UnixStream,
    running: &mut Running,
    observer: &mut dyn Observer,
    mut limit: Limit,
) -> Result<()> {
    let mut buffer = vec![0; LINE];
    let mut ticked = Instant::now();
    loop {
        let timeout = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
        let ready = match poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(Error::system("waiting for the command's output").with_source(errno)),
        };
        limit.enforce();
        if ticked.elapsed() >= TICK {
            observer.tick();
            running.tell(channel, observer);
            ticked = Instant::now();
        }
        if ready == 0 {
            continue;
        }
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => lines.take(&buffer[..count], observer),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nobody has the pseudo-terminal open any more.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) && lines.of_terminal() => break,
            Err(error) => return Err(Error::system("reading the command's output").with_source(error)),
        }
    }
    lines.end(observer);
    observer.tick();
    running.tell(channel, observer);
    Ok(())
}
