//! Processes: waiting for one while passing signals on, and what a signal to this program means.
//!
//! Every process of this program that only waits (the outer one without root, the two of a sandbox) does it in [`supervise`].
//! The builder, which has threads, takes its signals in one thread ([`Signals`]): while a sandbox runs they go to it, else
//! they end the program. Programs of the host that do a part of the work are started by [`helper`], and get the signals likewise.

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

pub(crate) mod helper;
mod memory;

pub use self::memory::memory;

/// The signals that mean "stop" and are passed on.
const STOPPING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// How long a stopped payload may take to put its house in order.
const GRACE: Duration = Duration::from_secs(10);

/// Between two attempts to remove what is still written to.
const PAUSE: Duration = Duration::from_millis(1);
/// Two signals closer than this are one: a terminal and a parent may both send it.
const DUPLICATE: Duration = Duration::from_millis(300);

/// How many processors this process may use, as its affinity and its control groups have it. Looked up once: it takes reading
/// files of `/proc` and `/sys`, which nothing does that is about to unpack an archive.
pub fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, |count| count.get()))
}

/// The permissions that files are not made with, of this process when it was first asked; all of them where that is not known.
/// Looked up once, as [`processors`] is. Nothing sets another but processes that become a build.
pub fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
    })
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The code that a shell would show: `128 + n` for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether it ended with code 0.
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

/// What a supervising process does with the signals it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Passes on what another process sent; the terminal sends its own to the child too.
    Sent,
    /// Passes on everything to every process of the pid namespace that this one is the first of, as a terminal would to all
    /// that run in it: a command's children may have process groups of their own.
    Everyone,
}

/// The stopping signals, without the hangup where nohup(1) has it ignored.
fn stopping() -> SigSet {
    let mut set = SigSet::from_iter(STOPPING);
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.is_some_and(|mask| mask & (1 << (Signal::SIGHUP as u64 - 1)) != 0) {
        set.remove(Signal::SIGHUP);
    }
    set
}

/// Blocks the signals that [`supervise`] waits for; call before the child exists, so that none is lost.
pub(crate) fn block_signals() -> Result<SigSet> {
    let mut set = stopping();
    set.add(Signal::SIGCHLD);
    set.thread_block().system(|| "blocking signals")?;
    Ok(set)
}

/// Waits until `child` ends, reaping every other child (PID 1 inherits orphans) and passing signals on.
///
/// `lifeline` is a descriptor whose other end the parent holds: when it hangs up, the parent is gone and the child is killed.
pub(crate) fn supervise(
    child: Pid,
    signals: &SigSet,
    forward: Forward,
    lifeline: Option<BorrowedFd<'_>>,
) -> Result<Exit> {
    let mut lifeline = lifeline;
    let fd = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .system(|| "opening a signal descriptor")?;
    loop {
        if let Some(exit) = reap(child)? {
            return Ok(exit);
        }
        let mut fds = vec![PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        if let Some(lifeline) = lifeline {
            fds.push(PollFd::new(lifeline, PollFlags::empty()));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("waiting for a child").with_source(errno)),
        }
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        if fds.get(1).and_then(PollFd::revents).is_some_and(|events| events.intersects(gone)) {
            kill(child, Signal::SIGKILL).ok();
            lifeline = None;
        }
        while let Ok(Some(info)) = fd.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            // si_code > 0 is the kernel speaking for the terminal (SI_KERNEL); processes send SI_USER and below.
            let from_terminal = info.ssi_code > 0;
            match forward {
                _ if signal == Signal::SIGCHLD => {}
                Forward::Sent if from_terminal => {}
                Forward::Sent => _ = kill(child, signal),
                Forward::Everyone if nix::unistd::getpid() == Pid::from_raw(1) => _ = kill(Pid::from_raw(-1), signal),
                Forward::Everyone => {}
            }
        }
    }
}

/// Reaps whatever has ended; the exit of `child` when it is among them.
fn reap(child: Pid) -> Result<Option<Exit>> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) => {
                if let Some((pid, exit)) = Exit::of(status)
                    && pid == child
                {
                    return Ok(Some(exit));
                }
            }
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("waiting for a child").with_source(errno)),
        }
    }
}

/// Whether a descriptor has something to read or was hung up: a pidfd whose process ended, a socket that nobody holds any more.
pub(crate) fn has_news(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Waits until a child has ended, and leaves it there to be waited for.
pub(crate) fn wait_for_end(child: Pid) -> Result<()> {
    loop {
        match waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system(format!("waiting for process {child}")).with_source(errno)),
        }
    }
}

/// Waits until no child is left, orphans that came to this process among them.
pub(crate) fn wait_for_all() -> Result<()> {
    loop {
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(Error::system("waiting for the sandbox to end").with_source(errno)),
        }
    }
}

/// Waits for one child, whatever its descendants do.
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

/// The terminal as it was when this program was in its foreground; put back when dropped. An interactive shell in a sandbox
/// takes the foreground and cannot give it back: the group that had it has no name in there.
#[derive(Debug)]
pub(crate) struct Foreground {
    group: Pid,
    modes: Termios,
}

impl Foreground {
    /// Notes the terminal at standard input; none when there is none, or another program is in its foreground.
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
            // A terminal that is gone meanwhile needs nothing.
            tcsetpgrp(&input, self.group).and_then(|()| tcsetattr(&input, SetArg::TCSADRAIN, &self.modes)).ok();
        });
    }
}

/// Makes this process a group of its own, in the foreground of the terminal if there is one.
pub(crate) fn take_foreground() -> nix::Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    unstopped(|| tcsetpgrp(std::io::stdin(), getpid()).ok());
    Ok(())
}

/// Does something to the terminal that would stop a process in the background, unless it does not hear of it.
fn unstopped<T>(doing: impl FnOnce() -> T) -> T {
    let before = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let done = doing();
    before.and_then(|before| before.thread_set_mask()).ok();
    done
}

/// What the signal thread knows.
#[derive(Default)]
struct Present {
    /// The sandbox that signals go to, and whether the terminal reaches its payload by itself.
    sandbox: Option<(Pid, bool)>,
    /// The first stopping signal, and when.
    stopped: Option<(Signal, Instant)>,
    /// What removes the rest when a signal ends the program, numbered.
    leftovers: BTreeMap<u64, Remove>,
}

/// Tries to remove something; false when it is worth another attempt.
type Remove = Box<dyn Fn() -> bool + Send>;

static PRESENT: OnceLock<Mutex<Present>> = OnceLock::new();

fn present() -> MutexGuard<'static, Present> {
    PRESENT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The builder's handling of signals. A sandbox registered with [`Signals::guard`] gets them: the first asks it to stop, a
/// second or ten seconds kill it. With no sandbox the program ends at once.
#[derive(Debug)]
pub(crate) struct Signals;

impl Signals {
    /// Starts the thread that takes the signals. Call in the main thread before any other thread exists.
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

    /// Sends signals to this sandbox until the guard is dropped; `terminal` when its payload shares the user's terminal and
    /// gets what is typed there by itself.
    pub(crate) fn guard(sandbox: Pid, terminal: bool) -> Guard {
        present().sandbox = Some((sandbox, terminal));
        Guard
    }

    /// The error to return when a stopping signal has come.
    pub(crate) fn interrupted() -> Option<Error> {
        let (signal, _) = present().stopped?;
        Some(Error::new(Kind::Killed(signal as i32), format!("stopped by {signal}")))
    }

    fn watch(fd: &SignalFd) {
        loop {
            let deadline = {
                let present = present();
                present.sandbox.zip(present.stopped).map(|(_, (_, since))| since + GRACE)
            };
            let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => {
                    if let Some((sandbox, _)) = present().sandbox {
                        kill(sandbox, Signal::SIGKILL).ok();
                    }
                }
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

    #[allow(clippy::disallowed_methods, reason = "with no sandbox to stop, a stopping signal ends the program here")]
    fn take(signal: Signal, from_terminal: bool) {
        let mut present = present();
        match (present.sandbox, present.stopped) {
            (Some((_, true)), _) if from_terminal => {}
            (Some((sandbox, _)), None) => {
                present.stopped = Some((signal, Instant::now()));
                kill(sandbox, signal).ok();
            }
            (Some((sandbox, _)), Some((_, since))) => {
                if since.elapsed() > DUPLICATE {
                    kill(sandbox, Signal::SIGKILL).ok();
                }
            }
            (None, _) => {
                // Destructors do not run here. What cannot be removed now, the next run removes.
                let until = Instant::now() + GRACE;
                for remove in present.leftovers.values() {
                    while !remove() && Instant::now() < until {
                        std::thread::sleep(PAUSE);
                    }
                }
                std::process::exit(128 + signal as i32)
            }
        }
    }
}

/// A directory that goes when a signal ends the program, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Leftover(u64);

impl Leftover {
    /// Registers what is called for it until it gives true: other threads may still write to what is removed.
    pub(crate) fn new(remove: impl Fn() -> bool + Send + 'static) -> Self {
        let mut present = present();
        let number = present.leftovers.last_key_value().map_or(0, |(last, _)| last + 1);
        present.leftovers.insert(number, Box::new(remove));
        Self(number)
    }

    /// Does `work` while no signal ends the program.
    pub(crate) fn undisturbed<T>(&self, work: impl FnOnce() -> T) -> T {
        let _held = present();
        work()
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        // While a signal ends the program this waits, and with it the error of what was removed too early.
        present().leftovers.remove(&self.0);
    }
}

/// Ends the registration of a sandbox.
#[derive(Debug)]
pub(crate) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        present().sandbox = None;
    }
}
