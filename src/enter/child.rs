//! S1: one thread, started for one command. It enters new namespaces, waits for its id maps, forks PID 1 and then only waits.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sched::{CloneFlags, unshare};

use super::{MARK, Plan, Report, init};
use crate::error::{Context, Error, Kind, Result};
use crate::process::{self, Forward};
use crate::sys::{self, Fork};
use crate::userns;

/// Runs the sandbox and returns its exit code when this process was started to be one; else none. Must be the first thing
/// that `main` does.
pub fn run_if_child() -> Option<i32> {
    let mark = std::env::var(MARK).ok()?;
    let Some(channel) = mark.parse().ok().and_then(|fd| sys::inherited_fd(fd).ok()) else {
        return Some(Error::system("not started by quern-builder").exit_code());
    };
    let mut channel = UnixStream::from(channel);
    match sandbox(&mut channel) {
        Ok(code) => Some(code),
        Err(error) => {
            let code = error.exit_code();
            report(&mut channel, &Report::failed(&error, false));
            Some(code)
        }
    }
}

fn sandbox(channel: &mut UnixStream) -> Result<i32> {
    nix::sys::prctl::set_name(c"quern:S1").system(|| "naming the process")?;
    userns::die_with_parent()?;
    let mut lines = BufReader::new(channel.try_clone().system(|| "copying a socket")?);
    let mut line = String::new();
    lines.read_line(&mut line).system(|| "reading the plan")?;
    let plan: Plan = serde_json::from_str(&line).context(Kind::System, || "reading the plan")?;

    let namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(|errno| userns::refused("making the namespaces of the sandbox", errno))?;
    // Without this the builder, not being root of the host, may not write the maps of a process that gained capabilities.
    nix::sys::prctl::set_dumpable(true).system(|| "making the sandbox reachable for its parent")?;
    report(channel, &Report::Unshared);
    line.clear();
    lines.read_line(&mut line).system(|| "waiting for the maps of the sandbox")?;
    if line.is_empty() {
        return Err(Error::system("the builder gave no id maps"));
    }
    userns::take_root()?;
    // From here on no process of the sandbox may look into this one or reopen the program through /proc.
    nix::sys::prctl::set_dumpable(false).system(|| "closing the process to the sandbox")?;
    userns::die_with_parent()?;

    let signals = process::block_signals()?;
    match sys::fork().system(|| "forking the sandbox's first process")? {
        Fork::Child => Ok(init::run(&plan, channel, &signals)),
        Fork::Parent(child) => {
            process::supervise(child, &signals, Forward::All, Some(channel.as_fd())).map(|e| e.code())
        }
    }
}

/// Sends one report; a builder that is gone takes this process with it anyway.
pub(super) fn report(channel: &mut UnixStream, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        channel.write_all(&line).ok();
    }
}

impl Report {
    /// The report of an error.
    pub(super) fn failed(error: &Error, not_found: bool) -> Self {
        let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        Self::Failed {
            message: error.to_string(),
            causes: causes.map(ToString::to_string).collect(),
            hint: error.hint().map(str::to_owned),
            not_found,
        }
    }
}
