//! Child processes: waiting for them, and passing signals on to them.
//!
//! The processes of this program that only wait (the outer one without root, the two of a sandbox) do so in [`supervise`]. The
//! builder, which has threads, receives its signals in one thread ([`Signals`]): while children run that are registered there, they
//! get the signals; otherwise a signal ends the program. [`helper`] starts programs of the host, and
//! [`worker`] starts this program again.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgrp, getpid, setpgid, tcgetpgrp, tcsetpgrp};
use serde::{Deserialize, Serialize};

use crate::base::error::{Context, Error, Kind, Result};

pub(crate) mod git;
pub(crate) mod helper;
pub(crate) mod worker;

/// The signals that ask a program to stop.
const STOPPING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Time between the signal to stop and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// Time between two ticks of a [`Watcher`].
const TICK: Duration = Duration::from_secs(1);

/// Pause between two attempts to remove a directory that is still written to.
const PAUSE: Duration = Duration::from_millis(1);
/// Two signals within this time count as one: a terminal and a parent may both send it.
const DUPLICATE: Duration = Duration::from_millis(300);

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The exit code that a shell would report: `128 + n` for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Returns whether it exited with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    fn of(status: WaitStatus) -> Option<(Pid, Self)> {
        match status {
            WaitStatus::Exited(pid, code) => Some((pid, Self::Code(code))),
            WaitStatus::Signaled(pid, signal, _) => Some((pid, Self::Signal(signal as i32))),
            _ => None,
        }
    }
}

/// The treatment of signals by a supervising process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Passes on signals from other processes. Signals from the terminal reach the child anyway.
    Sent,
    /// Passes every signal on to all processes of the pid namespace whose first process this is: a command's children may have
    /// process groups of their own.
    Everyone,
}

/// Returns [`STOPPING`], without SIGHUP if nohup(1) made this process ignore it.
fn stopping() -> SigSet {
    let mut set = SigSet::from_iter(STOPPING);
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.is_some_and(|mask| mask & (1 << (Signal::SIGHUP as u64 - 1)) != 0) {
        set.remove(Signal::SIGHUP);
    }
    set
}

/// Blocks the signals that [`supervise`] waits for. Call it before the child exists, so that no signal is lost.
pub(crate) fn block_signals() -> Result<SigSet> {
    let mut set = stopping();
    set.add(Signal::SIGCHLD);
    set.thread_block().system(|| "blocking signals")?;
    Ok(set)
}

/// An event in a process that has children and does nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A child ended, and is reaped. PID 1 inherits orphans.
    Ended(Pid, Exit),
    /// A signal asks this process to stop. The second value is true if the terminal sent it.
    Signal(Signal, bool),
    /// The parent is gone. This happens once.
    Alone,
    /// Nothing happened for the time that the caller wanted to wait.
    Timeout,
}

/// The source of events.
#[derive(Debug)]
pub(crate) struct Events<'a> {
    fd: SignalFd,
    lifeline: Option<BorrowedFd<'a>>,
}

impl<'a> Events<'a> {
    /// Opens the source. `signals` are those that [`block_signals`] blocked. The parent holds the other end of the descriptor `lifeline`.
    pub(crate) fn new(signals: &SigSet, lifeline: Option<BorrowedFd<'a>>) -> Result<Self> {
        let fd = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self { fd: fd.system(|| "opening a signal descriptor")?, lifeline })
    }

    /// Waits for the next event, at most for `timeout`.
    pub(crate) fn next(&mut self, timeout: Option<Duration>) -> Result<Event> {
        loop {
            // Read before children are reaped: the signal of one that ends after that makes poll(2) return.
            while let Ok(Some(info)) = self.fd.read_signal() {
                match Signal::try_from(info.ssi_signo as i32) {
                    Ok(Signal::SIGCHLD) | Err(_) => {}
                    // The kernel sets si_code > 0 (SI_KERNEL) for signals from the terminal; signals of processes have SI_USER or less.
                    Ok(signal) => return Ok(Event::Signal(signal, info.ssi_code > 0)),
                }
            }
            if let Some((pid, exit)) = reap()? {
                return Ok(Event::Ended(pid, exit));
            }
            let mut fds = vec![PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.lifeline.map(|lifeline| PollFd::new(lifeline, PollFlags::empty())));
            let timeout =
                timeout.map_or(PollTimeout::NONE, |timeout| PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(Event::Timeout),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::system("waiting for a child").with_source(errno)),
            }
            let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
            if fds.get(1).and_then(PollFd::revents).is_some_and(|events| events.intersects(gone)) {
                self.lifeline = None;
                return Ok(Event::Alone);
            }
        }
    }
}

/// Watches the children of a supervising process other than the one that it waits for.
pub(crate) trait Watcher {
    /// Is called about once a second.
    fn tick(&mut self);
    /// Takes the end of another child. Returns true if the child that is waited for must end, too.
    fn ended(&mut self, pid: Pid, exit: Exit) -> bool;
    /// Is called before a signal asks all children to stop.
    fn stopping(&mut self);
}

/// Waits until `child` ends. Meanwhile reaps every other child, since PID 1 inherits orphans, and passes signals on. When the parent is
/// gone, which holds the other end of the descriptor `lifeline`, the child is killed.
pub(crate) fn supervise(
    child: Pid,
    signals: &SigSet,
    forward: Forward,
    lifeline: Option<BorrowedFd<'_>>,
    mut watcher: Option<&mut dyn Watcher>,
) -> Result<Exit> {
    let mut events = Events::new(signals, lifeline)?;
    let mut ticked = Instant::now();
    loop {
        if let Some(watcher) = watcher.as_mut().filter(|_| ticked.elapsed() >= TICK) {
            watcher.tick();
            ticked = Instant::now();
        }
        match events.next(watcher.is_some().then_some(TICK))? {
            Event::Ended(pid, exit) if pid == child => return Ok(exit),
            Event::Ended(pid, exit) => {
                if watcher.as_mut().is_some_and(|watcher| watcher.ended(pid, exit)) {
                    kill(child, Signal::SIGKILL).ok();
                }
            }
            Event::Alone => _ = kill(child, Signal::SIGKILL),
            Event::Signal(signal, from_terminal) => match forward {
                Forward::Sent if from_terminal => {}
                Forward::Sent => _ = kill(child, signal),
                Forward::Everyone if getpid() == Pid::from_raw(1) => {
                    if let Some(watcher) = &mut watcher {
                        watcher.stopping();
                    }
                    kill(Pid::from_raw(-1), signal).ok();
                }
                Forward::Everyone => {}
            },
            Event::Timeout => {}
        }
    }
}

/// Reaps a child that has ended, if there is one.
fn reap() -> Result<Option<(Pid, Exit)>> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(status) => {
                if let Some(ended) = Exit::of(status) {
                    return Ok(Some(ended));
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("waiting for a child").with_source(errno)),
        }
    }
}

/// Returns whether a descriptor is readable or hung up: a pidfd whose process ended, a socket whose other end is closed.
pub(crate) fn has_news(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Waits until a child has ended, without reaping it.
pub(crate) fn wait_for_end(child: Pid) -> Result<()> {
    loop {
        match waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system(format!("waiting for process {child}")).with_source(errno)),
        }
    }
}

/// Waits for a process that became a child of this one when its parent died, and reaps it. Returns at once if it is not a child.
pub(crate) fn wait_for_orphan(pid: Pid) -> Result<()> {
    loop {
        match waitpid(pid, None) {
            Ok(status) if Exit::of(status).is_some() => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(Error::system(format!("waiting for process {pid}")).with_source(errno)),
        }
    }
}

/// Waits until this process has no children, including orphans that it inherited.
pub(crate) fn wait_for_all() -> Result<()> {
    loop {
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(Error::system("waiting for the sandbox to end").with_source(errno)),
        }
    }
}

/// Waits for one child and reaps it, whatever its descendants do.
pub(crate) fn wait(child: Pid) -> Result<Exit> {
    loop {
        match waitpid(child, None) {
            Ok(status) => {
                if let Some((_, exit)) = Exit::of(status) {
                    return Ok(exit);
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system(format!("waiting for process {child}")).with_source(errno)),
        }
    }
}

/// The state of the terminal while this program was in its foreground. Dropping it restores that state. An interactive shell in a
/// sandbox takes the foreground and cannot give it back: this program's process group has no id there.
#[derive(Debug)]
pub(crate) struct Foreground {
    group: Pid,
    modes: Termios,
}

impl Foreground {
    /// Records the state of the terminal at standard input. Returns `None` if there is none or another program has its foreground.
    pub(crate) fn note() -> Option<Self> {
        let input = std::io::stdin();
        let group = tcgetpgrp(&input).ok().filter(|group| *group == getpgrp())?;
        Some(Self { group, modes: tcgetattr(&input).ok()? })
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        unstopped(|| {
            let input = std::io::stdin();
            // Fails if the terminal is gone, and then nothing is to be done.
            tcsetpgrp(&input, self.group).and_then(|()| tcsetattr(&input, SetArg::TCSADRAIN, &self.modes)).ok();
        });
    }
}

/// Makes this process a process group of its own, and puts it in the foreground of the terminal if there is one.
pub(crate) fn take_foreground() -> nix::Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    unstopped(|| tcsetpgrp(std::io::stdin(), getpid()).ok());
    Ok(())
}

/// Runs `doing` with SIGTTOU blocked, so that changing the terminal from the background does not stop this process.
fn unstopped<T>(doing: impl FnOnce() -> T) -> T {
    let before = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let done = doing();
    before.and_then(|before| before.thread_set_mask()).ok();
    done
}

/// The state that the signal thread shares with the rest of the process.
#[derive(Default)]
struct SignalState {
    /// The children that get the signals, and whether signals from the terminal reach them anyway.
    children: BTreeMap<Pid, bool>,
    /// The first signal to stop, and its time.
    stopped: Option<(Signal, Instant)>,
    /// The removals to run if a signal ends the program, numbered.
    leftovers: BTreeMap<u64, Remove>,
}

impl SignalState {
    /// Sends `signal` to all children, except those that the terminal sent it to.
    fn send(&self, signal: Signal, from_terminal: bool) {
        for (child, _) in self.children.iter().filter(|(_, reached)| !(from_terminal && **reached)) {
            kill(*child, signal).ok();
        }
    }
}

/// Tries to remove something. Returns false if another attempt may help.
type Remove = Box<dyn Fn() -> bool + Send>;

static STATE: OnceLock<Mutex<SignalState>> = OnceLock::new();

fn state() -> MutexGuard<'static, SignalState> {
    STATE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signal thread of the builder. Children that are registered with [`Signals::guard`] get its signals: the first signal asks
/// them to stop; a second one, or ten seconds, kill them. Without such a child the program ends at once.
#[derive(Debug)]
pub(crate) struct Signals;

impl Signals {
    /// Starts the thread. Call it in the main thread before any other thread exists.
    pub(crate) fn start() -> Result<()> {
        let set = stopping();
        set.thread_block().system(|| "blocking signals")?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).system(|| "opening a signal descriptor")?;
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || Self::watch(&fd))
            .system(|| "starting the signal thread")?;
        Ok(())
    }

    /// Registers a child, or a process group by its negative id, until the guard is dropped. `terminal` means that signals from the
    /// terminal reach it anyway.
    pub(crate) fn guard(child: Pid, terminal: bool) -> Guard {
        state().children.insert(child, terminal);
        Guard(child)
    }

    /// Returns an error if a signal asked this program to stop.
    pub(crate) fn interrupted() -> Option<Error> {
        let (signal, _) = state().stopped?;
        Some(Error::new(Kind::Killed(signal as i32), format!("stopped by {signal}")))
    }

    fn watch(fd: &SignalFd) {
        loop {
            let deadline = {
                let state = state();
                state.stopped.filter(|_| !state.children.is_empty()).map(|(_, since)| since + GRACE)
            };
            let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => state().send(Signal::SIGKILL, false),
                Ok(_) => {
                    if let Ok(Some(info)) = fd.read_signal()
                        && let Ok(signal) = Signal::try_from(info.ssi_signo as i32)
                    {
                        Self::take(signal, info.ssi_code > 0);
                    }
                }
                Err(_) => {}
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "without a child to stop, a signal ends the program here")]
    fn take(signal: Signal, from_terminal: bool) {
        let mut state = state();
        if state.children.is_empty() {
            // Destructors do not run here. The next run removes what cannot be removed now.
            let until = Instant::now() + GRACE;
            for remove in state.leftovers.values() {
                while !remove() && Instant::now() < until {
                    std::thread::sleep(PAUSE);
                }
            }
            std::process::exit(128 + signal as i32)
        }
        if from_terminal && state.children.values().all(|reached| *reached) {
            return;
        }
        match state.stopped {
            None => {
                state.stopped = Some((signal, Instant::now()));
                state.send(signal, from_terminal);
            }
            Some((_, since)) if since.elapsed() > DUPLICATE => state.send(Signal::SIGKILL, from_terminal),
            Some(_) => {}
        }
    }
}

/// A directory that is removed if a signal ends the program while this value lives.
#[derive(Debug)]
pub(crate) struct Leftover(u64);

impl Leftover {
    /// Registers the removal, which is called until it returns true: other threads may still write to the directory.
    pub(crate) fn new(remove: impl Fn() -> bool + Send + 'static) -> Self {
        let mut state = state();
        let number = state.leftovers.last_key_value().map_or(0, |(last, _)| last + 1);
        state.leftovers.insert(number, Box::new(remove));
        Self(number)
    }

    /// Runs `work`; meanwhile no signal ends the program.
    pub(crate) fn undisturbed<T>(&self, work: impl FnOnce() -> T) -> T {
        let _held = state();
        work()
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        // Blocks while a signal ends the program, so that nobody sees errors caused by the removal.
        state().leftovers.remove(&self.0);
    }
}

/// The registration of a child for signals. Dropping it ends the registration.
#[derive(Debug)]
pub(crate) struct Guard(Pid);

impl Drop for Guard {
    fn drop(&mut self) {
        state().children.remove(&self.0);
    }
}
