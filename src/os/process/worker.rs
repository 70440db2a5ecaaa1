//! This program, run again for a part of its work: with input of its own, and with its output read line by line.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::{Exit, Guard, Signals, wait};
use crate::base::error::{Context, Result};
use crate::os::{sys, userns};

/// The path of the running program.
const SELF: &str = "/proc/self/exe";

/// A part of what a worker writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A line of its standard output.
    Output(String),
    /// A line of its standard error.
    Note(String),
    /// One of the two has ended.
    End,
}

/// A running copy of this program, in a process group of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    guard: Option<Guard>,
    readers: Vec<JoinHandle<()>>,
}

impl Worker {
    /// Starts this program with `arguments`, the environment `env`, the privileges of this process and the standard input `input`. `said`
    /// gets its output, from two threads. The worker ends with the thread that calls this.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be started.
    pub(crate) fn start(
        arguments: &[OsString],
        env: impl IntoIterator<Item = (OsString, OsString)>,
        input: &Zeroizing<String>,
        said: impl Fn(Said) + Clone + Send + 'static,
    ) -> Result<Self> {
        #[allow(clippy::disallowed_methods, reason = "this is where workers are started")]
        let mut command = Command::new(SELF);
        command.args(arguments).env_clear().envs(env).envs(userns::mark_of_workers());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        sys::fresh_start(&mut command, || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL));
        let mut child = command.spawn().system(|| "starting a process for an image")?;
        let guard = Signals::guard(Pid::from_raw(child.id() as i32), false);
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(read(stdout, said.clone(), Said::Output));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(read(stderr, said, Said::Note));
        }
        if let Some(mut stdin) = child.stdin.take() {
            // A worker that ends before it reads says why on its standard error.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(Self { child, guard: Some(guard), readers })
    }

    /// Waits for its end, after both of its outputs have ended.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses.
    pub(crate) fn finish(mut self) -> Result<Exit> {
        self.readers.drain(..).for_each(|reader| _ = reader.join());
        let exit = wait(Pid::from_raw(self.child.id() as i32))?;
        drop(self.guard.take());
        Ok(exit)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.guard.is_some() {
            let pid = Pid::from_raw(self.child.id() as i32);
            kill(pid, Signal::SIGKILL).ok();
            wait(pid).ok();
        }
    }
}

/// Passes the lines of `stream` on in a thread.
fn read(
    stream: impl Read + Send + 'static,
    said: impl Fn(Said) + Send + 'static,
    of: fn(String) -> Said,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            said(of(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned()));
            line.clear();
        }
        said(Said::End);
    })
}
