//! The builder's watch over a command: its output, that of its daemons, the reports of PID 1, and its time.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Observer;
use super::capture::{LINE, Lines};
use super::wire::Running;
use crate::base::error::{Error, Result};

/// Time between two calls of [`Observer::tick`].
const TICK: Duration = Duration::from_millis(200);

/// Bytes of a daemon's output that are read at once: those of a pipe.
const CHUNK: usize = 64 << 10;

/// Time between SIGTERM and SIGKILL for a command whose time is over.
const GRACE: Duration = Duration::from_secs(10);

/// The end of a command's time.
pub(super) struct Limit {
    at: Option<Instant>,
    /// The signal that is sent then.
    signal: Signal,
    /// S1, which passes SIGTERM on, and with which all processes of the sandbox end.
    sandbox: Pid,
}

impl Limit {
    /// The limit of a command that starts now in the sandbox of the process `sandbox` and may run for some seconds.
    pub(super) fn new(seconds: Option<u64>, sandbox: Pid) -> Self {
        let at = seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        Self { at, signal: Signal::SIGTERM, sandbox }
    }

    /// Asks the command to end when its time is over, and kills it if it does not end. Returns true when it asks.
    fn enforce(&mut self) -> bool {
        if self.at.is_none_or(|at| Instant::now() < at) {
            return false;
        }
        kill(self.sandbox, self.signal).ok();
        let asks = self.signal == Signal::SIGTERM;
        self.at = asks.then(|| Instant::now() + GRACE);
        self.signal = Signal::SIGKILL;
        asks
    }
}

/// A watch that passes everything to an observer.
pub(super) struct Watch<'a> {
    /// The output of the command, unless it has the streams of this process, and that of its daemons. `None`: the end was reached.
    outputs: Vec<Option<File>>,
    /// True if nobody has the pseudo-terminal of the command open. It stays open here: a process may open it again, and closing it would
    /// send a signal.
    hung: bool,
    lines: Lines,
    observer: &'a mut dyn Observer,
}

impl<'a> Watch<'a> {
    /// Watches the outputs of a command and of its daemons. `terminal` means that the command writes to a pseudo-terminal.
    pub(super) fn new(
        command: Option<File>,
        daemons: Vec<OwnedFd>,
        terminal: bool,
        observer: &'a mut dyn Observer,
    ) -> Self {
        let daemons = daemons.into_iter().map(|output| Some(File::from(output)));
        let outputs = [command].into_iter().chain(daemons).collect();
        Self { outputs, hung: false, lines: Lines::of(terminal), observer }
    }

    /// Passes everything on until the process of the sandbox `end` has ended and every output is closed, which happens at the latest when
    /// PID 1 ends.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if an output cannot be read.
    pub(super) fn until(
        mut self,
        end: &OwnedFd,
        channel: &UnixStream,
        running: &mut Running,
        mut limit: Limit,
    ) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let (mut ticked, mut ended) = (Instant::now(), false);
        while !ended || self.open().next().is_some() {
            let (now_ended, readable) = self.ready(end, ended)?;
            if now_ended {
                (ended, self.hung) = (true, false);
            }
            if limit.enforce() && !ended {
                self.observer.timed_out();
            }
            if ticked.elapsed() >= TICK {
                self.observer.tick();
                running.take(channel, Some(self.observer));
                self.hung &= ended;
                ticked = Instant::now();
            }
            readable.into_iter().try_for_each(|index| self.read(index, &mut buffer))?;
        }
        self.lines.end(self.observer);
        self.observer.tick();
        running.take(channel, Some(self.observer));
        Ok(())
    }

    /// The outputs that can have more, and their positions.
    fn open(&self) -> impl Iterator<Item = (usize, &File)> {
        let open = self.outputs.iter().enumerate().filter_map(|(index, file)| Some((index, file.as_ref()?)));
        open.filter(|(index, _)| *index > 0 || !self.hung)
    }

    /// Waits until an output can be read or the process has ended, at most for [`TICK`]. Returns true for the end of the process, and the
    /// positions of the outputs.
    fn ready(&self, end: &OwnedFd, ended: bool) -> Result<(bool, Vec<usize>)> {
        let open: Vec<(usize, &File)> = self.open().collect();
        let process = (!ended).then(|| end.as_fd());
        let fds = open.iter().map(|(_, file)| file.as_fd()).chain(process);
        let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, Vec::new())),
            Err(errno) => return Err(Error::system("waiting for the command's output").with_source(errno)),
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let readable = open.iter().zip(&polled).filter(|(_, fd)| ready(fd)).map(|((index, _), _)| *index).collect();
        Ok((process.is_some() && polled.last().is_some_and(ready), readable))
    }

    /// Reads some of the output at `index`.
    fn read(&mut self, index: usize, buffer: &mut [u8]) -> Result<()> {
        let Some(output) = &mut self.outputs[index] else { return Ok(()) };
        let room = if index == 0 { LINE } else { CHUNK };
        let count = match output.read(&mut buffer[..room]) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) && index == 0 && self.lines.of_terminal() => {
                self.hung = true;
                return Ok(());
            }
            Err(error) => return Err(Error::system("reading the command's output").with_source(error)),
        };
        match index.checked_sub(1) {
            Some(daemon) => self.observer.daemon(daemon, &buffer[..count]),
            None if count > 0 => self.lines.take(&buffer[..count], self.observer),
            None => {}
        }
        if count == 0 {
            self.outputs[index] = None;
        }
        Ok(())
    }
}
