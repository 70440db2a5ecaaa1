//! Programs of the host that this program runs (git): in a process group of their own, with a given environment. What they write to
//! standard error is bounded, and they end when this program ends.

use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Exit, Guard, Signals, wait, wait_for_end};
use crate::base::error::{Context, Error, Result};
use crate::os::sys;

/// Limit on the standard error that is kept, in bytes.
const COMPLAINTS: u64 = 64 << 10;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    guard: Option<Guard>,
    complaints: Option<JoinHandle<Vec<u8>>>,
}

impl Helper {
    /// Starts `program`, which is looked up in PATH. It cannot write files longer than `largest` bytes.
    pub(crate) fn start(
        program: &str,
        arguments: &[String],
        env: &[(OsString, OsString)],
        largest: u64,
    ) -> Result<Self> {
        Self::spawn(program, arguments, env, largest, Stdio::null())
    }

    /// Starts a program like [`Helper::start`], with `input` as its standard input, which fits into a pipe (4096 bytes).
    pub(crate) fn start_with(
        program: &str,
        arguments: &[String],
        env: &[(OsString, OsString)],
        largest: u64,
        input: &[u8],
    ) -> Result<Self> {
        let feeding = || format!("writing to {program}");
        let (reader, mut writer) = std::io::pipe().system(feeding)?;
        writer.write_all(input).system(feeding)?;
        Self::spawn(program, arguments, env, largest, reader.into())
    }

    fn spawn(
        program: &str,
        arguments: &[String],
        env: &[(OsString, OsString)],
        largest: u64,
        input: Stdio,
    ) -> Result<Self> {
        #[allow(clippy::disallowed_methods, reason = "this is where helpers are started")]
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        sys::fresh_start(&mut command, move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // A process without privileges cannot raise a limit that it was given.
            if largest == u64::MAX {
                return Ok(());
            }
            let limit = rustix::process::Rlimit { current: Some(largest), maximum: Some(largest) };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, limit)
                .map_err(|errno| nix::errno::Errno::from_raw(errno.raw_os_error()))
        });
        let mut child = command.spawn().map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let error = Error::system(format!("starting {program}")).with_source(error);
            if missing { error.with_hint(format!("install {program} on this machine")) } else { error }
        })?;
        // The negative id names the process group.
        let guard = Signals::guard(Pid::from_raw(-(child.id() as i32)), false);
        let complaints = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                // The rest is read as well, or the program would block.
                let _ = stderr.by_ref().take(COMPLAINTS).read_to_end(&mut bytes);
                let _ = std::io::copy(&mut stderr, &mut std::io::sink());
                bytes
            })
        });
        Ok(Self { child, guard: Some(guard), complaints })
    }

    /// Takes its standard output. Works once.
    pub(crate) fn output(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().ok_or_else(|| Error::system("reading a program's output: it was taken already"))
    }

    /// Waits for its end. Returns how it ended, and its standard error.
    ///
    /// # Errors
    /// [`Kind::Killed`](crate::base::error::Kind::Killed) if a signal asked this program to stop.
    pub(crate) fn finish(mut self) -> Result<(Exit, String)> {
        self.child.stdout = None;
        let exit = self.reap()?;
        if let Some(error) = Signals::interrupted() {
            return Err(error);
        }
        let complaints = self.complaints.take().map(|thread| thread.join().unwrap_or_default()).unwrap_or_default();
        Ok((exit, String::from_utf8_lossy(&complaints).into_owned()))
    }

    fn reap(&mut self) -> Result<Exit> {
        let pid = Pid::from_raw(self.child.id() as i32);
        wait_for_end(pid)?;
        // No process of its group may stay. Its id cannot be reused before it is reaped.
        kill(Pid::from_raw(-pid.as_raw()), Signal::SIGKILL).ok();
        drop(self.guard.take());
        wait(pid)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.guard.is_some() {
            kill(Pid::from_raw(-(self.child.id() as i32)), Signal::SIGKILL).ok();
            self.reap().ok();
        }
    }
}

/// Runs a program whose standard output has at most `most` bytes. Returns how it ended, its output and its standard error.
pub(crate) fn ask(mut helper: Helper, most: u64) -> Result<(Exit, Vec<u8>, String)> {
    let mut bytes = Vec::new();
    helper.output()?.take(most + 1).read_to_end(&mut bytes).system(|| "reading a program's output")?;
    if bytes.len() as u64 > most {
        return Err(Error::refused(format!("a program's output is longer than {most} bytes")));
    }
    let (exit, complaints) = helper.finish()?;
    Ok((exit, bytes, complaints))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Helper {
        let env = [("PATH".into(), std::env::var_os("PATH").unwrap())];
        Helper::start("sh", &["-c".to_owned(), script.to_owned()], &env, 4096).unwrap()
    }

    #[test]
    fn output_standard_error_and_exit_are_returned() {
        let (exit, output, complaints) = ask(sh("echo out; echo why >&2; exit 3"), 100).unwrap();
        assert_eq!((exit, output.as_slice(), complaints.as_str()), (Exit::Code(3), b"out\n".as_slice(), "why\n"));
        assert!(ask(sh("echo too long"), 4).is_err());
        let (exit, _, complaints) = ask(sh("head -c 1000000 /dev/zero | tr '\\0' x >&2"), 4).unwrap();
        assert!(exit.success() && complaints.len() as u64 == COMPLAINTS);
    }

    #[test]
    fn a_helper_cannot_write_long_files() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        let (exit, ..) = ask(sh(&format!("head -c 8192 /dev/zero >'{}'", file.display())), 100).unwrap();
        assert!(!exit.success());
        assert_eq!(fs_err::metadata(&file).unwrap().len(), 4096);
    }

    #[test]
    fn a_missing_program_is_an_error_with_a_hint() {
        let env = [("PATH".into(), "/nonexistent".into())];
        let error = Helper::start("git", &[], &env, 1).unwrap_err();
        assert!(
            error.kind() == crate::base::error::Kind::System && error.hint().unwrap().contains("install git"),
            "{error}"
        );
    }
}
