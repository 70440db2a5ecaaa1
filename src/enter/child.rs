//! S1, started for one command, with one thread. It forks the first process of a new pid namespace and then only waits.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use zeroize::Zeroizing;

use super::{MARK, NAME, Plan, Report, init, wire};
use crate::base::error::{Context, Error, Kind, Result};
use crate::os::process::{self, Forward};
use crate::os::sys::{self, Fork};
use crate::os::userns;

/// Runs the sandbox and returns its exit code, if this process was started for one. `main` must call it first.
pub fn run_if_child() -> Option<i32> {
    // Both must match: the variable alone may be in a user's environment by accident.
    if std::env::args_os().next()? != NAME {
        return None;
    }
    let channel = sys::inherited_fd(std::env::var(MARK).ok()?.parse().ok()?).ok()?;
    let mut channel = UnixStream::from(channel);
    match sandbox(&mut channel) {
        Ok(code) => Some(code),
        Err(error) => {
            let code = error.exit_code();
            wire::send(&channel, &Report::failed(&error), None);
            Some(code)
        }
    }
}

fn sandbox(channel: &mut UnixStream) -> Result<i32> {
    nix::sys::prctl::set_name(c"quern:S1").system(|| "naming the process")?;
    userns::die_with_parent()?;
    let mut lines = BufReader::new(channel.try_clone().system(|| "copying a socket")?);
    let mut line = Zeroizing::new(String::new());
    lines.read_line(&mut line).system(|| "reading the plan")?;
    let plan: Plan = serde_json::from_str(&line).context(Kind::System, || "reading the plan")?;

    // This acts on children only: the first one becomes PID 1.
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| userns::refused("making a pid namespace", errno))?;
    let signals = process::block_signals()?;
    let this = pidfd_open(getpid(), PidfdFlags::empty()).system(|| "opening a descriptor of this process")?;
    match sys::fork().system(|| "forking the sandbox's first process")? {
        Fork::Child => Ok(init::run(&plan, channel, &mut lines, this.as_fd(), &signals)),
        // In the foreground of a terminal, signals from the terminal reach the command directly.
        Fork::Parent(child) => {
            process::supervise(child, &signals, Forward::Sent, Some(channel.as_fd()), None).map(|exit| exit.code())
        }
    }
}

impl Report {
    /// Makes the report of an error.
    pub(super) fn failed(error: &Error) -> Self {
        let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        Self::Failed {
            message: error.to_string(),
            causes: causes.map(ToString::to_string).collect(),
            hint: error.hint().map(str::to_owned),
            usage: error.kind() == Kind::Usage,
        }
    }
}
