//! The output of commands: split into lines, or kept in memory.

use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Observer;
use crate::base::error::{Error, Result};

/// Longest wait between two looks at the clock.
const TICK: Duration = Duration::from_millis(200);

/// Longest line of output in bytes. Longer ones are split.
pub const LINE: usize = 8192;

/// Splits the output of a command into lines. All output that an observer gets comes through here.
#[derive(Debug)]
pub(super) struct Lines {
    pending: Vec<u8>,
    /// True for output to a terminal, which ends lines with a carriage return, too.
    terminal: bool,
}

impl Lines {
    /// The lines of a pipe or of a pseudo-terminal.
    pub(super) fn of(terminal: bool) -> Self {
        Self { pending: Vec::new(), terminal }
    }

    /// Returns true for the output to a pseudo-terminal.
    pub(super) fn of_terminal(&self) -> bool {
        self.terminal
    }

    /// Takes output, and passes whole lines on.
    pub(super) fn take(&mut self, bytes: &[u8], observer: &mut dyn Observer) {
        observer.bytes(bytes, &mut self.pending);
        self.split(observer);
    }

    /// Passes whole lines on.
    fn split(&mut self, observer: &mut dyn Observer) {
        let mut rest = 0;
        while let Some(length) = self.pending[rest..].iter().position(|&byte| byte == b'\n') {
            self.pass(&self.pending[rest..rest + length], observer);
            rest += length + 1;
        }
        self.pending.drain(..rest);
        if self.pending.len() > LINE {
            observer.line(&self.pending);
            self.pending.clear();
        }
    }

    /// Passes on what the observer kept back, and the last line, which has no end.
    pub(super) fn end(mut self, observer: &mut dyn Observer) {
        observer.bytes(&[], &mut self.pending);
        self.split(observer);
        if !self.pending.is_empty() {
            self.pass(&self.pending, observer);
        }
    }

    fn pass(&self, line: &[u8], observer: &mut dyn Observer) {
        let end = if self.terminal {
            line.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1)
        } else {
            line.len()
        };
        observer.line(&line[..end]);
    }
}

/// The two output streams of a command, and the limits on them. A command that exceeds a limit is killed.
#[derive(Debug)]
pub struct Captured {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Most bytes of each stream.
    max: usize,
    /// Longest run.
    time: Duration,
}

impl Captured {
    /// Nothing yet, of a command that may run for `time` and write `max` bytes to each stream.
    pub fn new(max: usize, time: Duration) -> Self {
        Self { stdout: Vec::new(), stderr: Vec::new(), max, time }
    }

    /// Reads both streams to their ends.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) if the command exceeds a limit,
    /// [`Kind::System`](crate::base::error::Kind::System) if a stream cannot be read.
    pub(super) fn read(&mut self, [stdout, stderr]: &mut [PipeReader; 2]) -> Result<()> {
        let began = Instant::now();
        let mut open = [Some(stdout), Some(stderr)];
        let mut buffer = vec![0; 64 << 10];
        while open.iter().any(Option::is_some) {
            let left = self
                .time
                .checked_sub(began.elapsed())
                .ok_or_else(|| Error::build(format!("the command did not end within {} s", self.time.as_secs())))?;
            let ready: Vec<bool> = {
                let mut polled: Vec<_> =
                    open.iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
                let timeout = PollTimeout::try_from(left.min(TICK)).unwrap_or(PollTimeout::ZERO);
                match poll(&mut polled, timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Error::system("waiting for the command's output").with_source(errno)),
                }
                polled.iter().map(|fd| fd.any().unwrap_or(false)).collect()
            };
            let mut ready = ready.into_iter();
            for (pipe, stream) in open.iter_mut().zip([&mut self.stdout, &mut self.stderr]) {
                let Some(readable) = pipe else { continue };
                if !ready.next().unwrap_or(false) {
                    continue;
                }
                match readable.read(&mut buffer) {
                    Ok(0) => *pipe = None,
                    Ok(count) if stream.len() + count > self.max => {
                        return Err(Error::build(format!("the command wrote more than {} bytes", self.max)));
                    }
                    Ok(count) => stream.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Error::system("reading the command's output").with_source(error)),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::enter::Left;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Observer for Seen {
        fn line(&mut self, line: &[u8]) {
            self.0.push(String::from_utf8(line.to_vec()).unwrap());
        }

        fn tick(&mut self) {}

        fn left(&mut self, _: &Left) {}
    }

    #[test]
    fn a_terminal_ends_lines_with_a_carriage_return_and_a_pipe_does_not() {
        let seen = |terminal| {
            let (mut lines, mut seen) = (Lines::of(terminal), Seen::default());
            ["on", "e\r\n10%\r20%\r\n\r\nl", "ast"].iter().for_each(|part| lines.take(part.as_bytes(), &mut seen));
            lines.end(&mut seen);
            seen.0
        };
        assert_eq!(seen(true), ["one", "10%\r20%", "", "last"]);
        assert_eq!(seen(false), ["one\r", "10%\r20%\r", "\r", "last"]);
    }

    #[test]
    fn a_line_without_end_is_split() {
        let (mut lines, mut seen) = (Lines::of(false), Seen::default());
        (0..3).for_each(|_| lines.take(&[b'x'; LINE / 2 + 1], &mut seen));
        lines.end(&mut seen);
        assert_eq!(seen.0.iter().map(String::len).collect::<Vec<_>>(), [LINE + 2, LINE / 2 + 1]);
    }

    #[test]
    fn both_streams_are_read_to_their_ends() {
        let ((out, mut to_out), (err, mut to_err)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let writer = std::thread::spawn(move || {
            to_err.write_all(&[b'e'; 200_000]).unwrap();
            to_out.write_all(b"out").unwrap();
        });
        let mut captured = Captured::new(1 << 20, Duration::from_secs(60));
        captured.read(&mut [out, err]).unwrap();
        writer.join().unwrap();
        assert_eq!((captured.stdout.as_slice(), captured.stderr.len()), (b"out".as_slice(), 200_000));
    }

    #[test]
    fn a_command_that_exceeds_a_limit_is_an_error() {
        let ((out, mut to_out), (err, _to_err)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        to_out.write_all(b"four").unwrap();
        let error = Captured::new(3, Duration::from_secs(60)).read(&mut [out, err]).unwrap_err();
        assert!(error.to_string().contains("more than 3 bytes"), "{error}");
        let ((out, _to_out), (err, _to_err)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let error = Captured::new(3, Duration::from_millis(1)).read(&mut [out, err]).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }
}
