//! The daemons of a command: PID 1 starts them before the command, waits until they are ready, and ends them after it.

use std::ffi::OsString;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{DaemonPlan, Plan, Report, Sign, wire};
use crate::base::error::{Context, Result};
use crate::os::process::{Event, Events, Exit};
use crate::os::sys;

/// Time between two looks for the sign of a daemon.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(200);

/// Time for all daemons to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// A daemon that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonFailure {
    /// Its position in the plan.
    pub index: usize,
    pub fate: DaemonFate,
}

/// The way in which a daemon failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DaemonFate {
    /// Its program, or that of its sign, could not be started, for this reason.
    NotStarted(String),
    /// It was not ready in time.
    NotReady,
    /// It ended.
    Ended(Exit),
}

/// The result of a start.
pub(super) enum Started<'a> {
    /// All daemons that the command needs are ready.
    Ready(Daemons<'a>),
    /// One of them failed.
    Failed,
    /// A signal asked this process to stop, or its parent is gone.
    Stopped(Exit),
}

/// The end of the wait for a daemon.
enum Wait {
    Ready,
    Failed(DaemonFailure),
    Stopped(Exit),
}

/// The daemons that run.
pub(super) struct Daemons<'a> {
    plan: &'a Plan,
    /// Position in the plan and process, in the order of their start.
    running: Vec<(usize, Pid)>,
}

/// Makes a pipe for the output of each daemon, and sends the ends to read to the builder. Returns those to write.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if a pipe cannot be made.
pub(super) fn outputs(plan: &Plan, channel: &UnixStream) -> Result<Vec<std::io::PipeWriter>> {
    let output = |_: &DaemonPlan| {
        let (read, write) = std::io::pipe().system(|| "making a pipe")?;
        wire::send(channel, &Report::Output, Some(read.as_fd()));
        Ok(write)
    };
    plan.daemons.iter().map(output).collect()
}

impl<'a> Daemons<'a> {
    /// Starts the daemons of a plan, each when the one before is ready. Reports those that fail.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if this process cannot wait for them.
    pub(super) fn start(
        plan: &'a Plan,
        outputs: Vec<std::io::PipeWriter>,
        channel: &UnixStream,
        events: &mut Events<'_>,
    ) -> Result<Started<'a>> {
        let mut daemons = Self { plan, running: Vec::new() };
        for ((index, daemon), output) in plan.daemons.iter().enumerate().zip(outputs) {
            let error = output.try_clone().system(|| "copying a pipe")?;
            let waited = match spawn(&daemon.argv, plan, output.into(), error.into()) {
                Ok(pid) => {
                    daemons.running.push((index, pid));
                    daemons.wait(index, events)?
                }
                Err(why) => Wait::Failed(DaemonFailure { index, fate: DaemonFate::NotStarted(why) }),
            };
            match waited {
                Wait::Ready => {}
                Wait::Failed(failure) => {
                    if daemons.fail(failure, channel) {
                        return Ok(Started::Failed);
                    }
                }
                Wait::Stopped(exit) => return Ok(Started::Stopped(exit)),
            }
        }
        Ok(Started::Ready(daemons))
    }

    /// Waits until the daemon at `index`, which runs, is ready, or one fails that is waited for or needed.
    fn wait(&mut self, index: usize, events: &mut Events<'_>) -> Result<Wait> {
        let plan = self.plan;
        let daemon = &plan.daemons[index];
        let failed = |fate| Ok(Wait::Failed(DaemonFailure { index, fate }));
        let deadline = Instant::now().checked_add(Duration::from_secs(daemon.timeout));
        let mut looked: Option<Instant> = None;
        let mut check = None;
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= PAUSE) && check.is_none() {
                looked = Some(Instant::now());
                match &daemon.sign {
                    Sign::Command(argv) => match spawn(argv, plan, Stdio::null(), Stdio::null()) {
                        Ok(pid) => check = Some(pid),
                        Err(why) => return failed(DaemonFate::NotStarted(why)),
                    },
                    sign if is_there(sign) => return Ok(Wait::Ready),
                    _ => {}
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return failed(DaemonFate::NotReady);
            }
            match events.next(Some(PAUSE))? {
                Event::Ended(pid, exit) if check == Some(pid) => {
                    if exit.success() {
                        return Ok(Wait::Ready);
                    }
                    check = None;
                }
                Event::Ended(pid, exit) => {
                    if let Some(failure) = self.failure(pid, exit) {
                        return Ok(Wait::Failed(failure));
                    }
                }
                Event::Signal(signal, _) => return Ok(Wait::Stopped(Exit::Signal(signal as i32))),
                Event::Alone => return Ok(Wait::Stopped(Exit::Signal(Signal::SIGKILL as i32))),
                Event::Timeout => {}
            }
        }
    }

    /// Takes the end of a process, and reports it if it is a daemon. Returns true if the command needs the daemon.
    pub(super) fn ended(&mut self, pid: Pid, exit: Exit, channel: &UnixStream) -> bool {
        let failure = self.failure(pid, exit);
        failure.is_some_and(|failure| self.fail(failure, channel))
    }

    /// Returns the failure that the end of a process means; `None` if it is not a daemon.
    fn failure(&self, pid: Pid, exit: Exit) -> Option<DaemonFailure> {
        let (index, _) = self.running.iter().find(|(_, daemon)| *daemon == pid)?;
        Some(DaemonFailure { index: *index, fate: DaemonFate::Ended(exit) })
    }

    /// Reports a failure. Returns true if the command needs the daemon.
    fn fail(&mut self, failure: DaemonFailure, channel: &UnixStream) -> bool {
        let needed = self.plan.daemons[failure.index].needed;
        if matches!(failure.fate, DaemonFate::Ended(_)) {
            self.running.retain(|(index, _)| *index != failure.index);
        }
        wire::send(channel, &Report::Daemon(failure), None);
        needed
    }

    /// Their processes, each the leader of a session of the same number.
    pub(super) fn sessions(&self) -> Vec<i32> {
        self.running.iter().map(|(_, pid)| pid.as_raw()).collect()
    }

    /// Asks the daemons to end, the last one first. Those that do not end in time are killed with PID 1, as is what they left behind.
    /// Returns true if one had ended before that the command needs.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if this process cannot wait for them.
    pub(super) fn stop(mut self, channel: &UnixStream, events: &mut Events<'_>) -> Result<bool> {
        loop {
            match events.next(Some(Duration::ZERO))? {
                Event::Ended(pid, exit) if self.ended(pid, exit, channel) => return Ok(true),
                Event::Ended(..) => {}
                Event::Timeout => break,
                Event::Signal(..) | Event::Alone => return Ok(false),
            }
        }
        let deadline = Instant::now() + GRACE;
        while let Some((_, daemon)) = self.running.pop() {
            // Its group: a shell that waits for a child does not pass the signal on.
            kill(Pid::from_raw(-daemon.as_raw()), Signal::SIGTERM).ok();
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match events.next(Some(left))? {
                    Event::Ended(pid, _) if pid == daemon => break,
                    Event::Ended(pid, _) => self.running.retain(|(_, other)| *other != pid),
                    Event::Signal(..) | Event::Alone => return Ok(false),
                    Event::Timeout if left.is_zero() => break,
                    Event::Timeout => {}
                }
            }
        }
        Ok(false)
    }
}

/// Returns true if a sign is there. A command has to be run first.
fn is_there(sign: &Sign) -> bool {
    match sign {
        Sign::None => true,
        Sign::Tcp(addresses) => addresses.iter().any(|address| TcpStream::connect_timeout(address, CONNECT).is_ok()),
        Sign::Path(path) => fs_err::symlink_metadata(path).is_ok(),
        Sign::Command(_) => false,
    }
}

/// Starts a command in a session of its own. An error is the reason why it was not started.
fn spawn(argv: &[OsString], plan: &Plan, output: Stdio, error: Stdio) -> Result<Pid, String> {
    let Some((program, arguments)) = argv.split_first() else { return Err("no program".to_owned()) };
    #[allow(clippy::disallowed_methods, reason = "this room runs commands")]
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&plan.env).current_dir("/");
    command.stdin(Stdio::null()).stdout(output).stderr(error);
    sys::fresh_start(&mut command, || nix::unistd::setsid().map(drop));
    let child = command.spawn().map_err(|error| format!("{}: {error}", program.to_string_lossy()))?;
    Ok(Pid::from_raw(child.id() as i32))
}
