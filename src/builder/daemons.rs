//! The daemons of a step: their plans, their logs, their failures.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::layer::open_log;
use crate::archive::leak::Mask;
use crate::base::error::{Context, Error, Result};
use crate::base::text::plain;
use crate::enter::{DaemonFailure, DaemonFate, DaemonPlan, Sign};
use crate::os::process::Exit;
use crate::recipe::{Daemon, Ready, Secret};
use crate::store::work::WorkPaths;

/// The longest log of a daemon that is kept, in bytes. More is read and dropped.
const MAX_LOG: u64 = 16 << 20;

/// The bytes at the end of a log that an error may show.
const TAIL: usize = 32 << 10;

/// The lines of output that an error shows.
pub(super) const SHOWN: usize = 40;

/// The longest line that an error shows, in characters.
pub(super) const WIDTH: usize = 400;

/// Returns the plans of daemons. A command that needs them does not run if one fails.
pub(super) fn plans(daemons: &[Daemon], needed: bool) -> Vec<DaemonPlan> {
    let words = |words: &[String]| words.iter().map(Into::into).collect();
    let plan = |daemon: &Daemon| {
        let sign = match &daemon.ready {
            None => Sign::None,
            Some(Ready::Tcp(address)) => Sign::Tcp(addresses(address)),
            Some(Ready::Path(path)) => Sign::Path(path.clone()),
            Some(Ready::Command(argv)) => Sign::Command(words(argv)),
        };
        DaemonPlan { argv: words(&daemon.run), sign, timeout: daemon.timeout, needed }
    };
    daemons.iter().map(plan).collect()
}

/// Returns the addresses of `HOST:PORT`. No name but `localhost` is looked up: the libraries for that would come from the tree.
fn addresses(text: &str) -> Vec<SocketAddr> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
    match local {
        Some(port) => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
        None => text.parse().into_iter().collect(),
    }
}

/// The output of the daemons of a step, and the first failure.
#[derive(Debug)]
pub(super) struct Daemons<'a> {
    step: &'a str,
    daemons: &'a [Daemon],
    logs: Vec<Log>,
    failed: Option<DaemonFailure>,
}

#[derive(Debug)]
struct Log {
    file: File,
    mask: Mask,
    shown: Vec<u8>,
    written: u64,
    dropped: u64,
    tail: VecDeque<u8>,
}

impl<'a> Daemons<'a> {
    /// Makes the logs of the daemons of the step `step`, whose changes are in `paths`. The values of secrets are masked in them.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a log cannot be made.
    pub(super) fn new(step: &'a str, daemons: &'a [Daemon], secrets: &[Secret], paths: &WorkPaths) -> Result<Self> {
        let open = |daemon: &Daemon| {
            let path = paths.daemon_log(&daemon.name);
            fs_err::create_dir_all(path.parent().unwrap_or(&path)).system(|| "making the log of a daemon")?;
            let known = secrets.iter().filter(|secret| !secret.value.is_absent());
            let mask = Mask::new(known.map(|secret| (secret.name.as_str(), secret.value.expose())))?;
            let file = open_log(&path)?;
            Ok(Log { file, mask, shown: Vec::new(), written: 0, dropped: 0, tail: VecDeque::new() })
        };
        Ok(Self { step, daemons, logs: daemons.iter().map(open).collect::<Result<_>>()?, failed: None })
    }

    /// Takes the next bytes of the output of the daemon at `index`, or none at its end.
    pub(super) fn take(&mut self, index: usize, bytes: &[u8]) {
        if let Some(log) = self.logs.get_mut(index) {
            log.take(bytes);
        }
    }

    /// Takes a failure.
    pub(super) fn fail(&mut self, failure: DaemonFailure) {
        self.failed.get_or_insert(failure);
    }

    /// Returns the error about the failure so far, once.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        let error = self.error();
        self.failed = None;
        error
    }

    /// Returns the error of the step, if one of its daemons failed.
    pub(super) fn error(&self) -> Option<Error> {
        let DaemonFailure { index, fate } = self.failed.as_ref()?;
        let (daemon, log) = (self.daemons.get(*index)?, self.logs.get(*index)?);
        let how = match fate {
            DaemonFate::NotStarted(why) => format!("could not be started: {}", plain(why, WIDTH)),
            DaemonFate::NotReady => format!("was not ready within {} s", daemon.timeout),
            DaemonFate::Ended(Exit::Code(code)) => format!("exited with code {code}"),
            DaemonFate::Ended(Exit::Signal(signal)) => format!("was ended by signal {signal}"),
        };
        let tail: Vec<u8> = log.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&tail).into_owned();
        let lines: Vec<String> = text.lines().map(|line| plain(line, WIDTH)).collect();
        let end = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        let error = Error::build(format!("the step {} failed: its daemon {} {how}", self.step, daemon.name));
        let error = error.with_details(end);
        Some(match fate {
            DaemonFate::Ended(Exit::Code(0)) => error
                .with_hint("a daemon must stay in the foreground: many programs have an option for that, such as -D"),
            _ => error,
        })
    }
}

impl Log {
    fn take(&mut self, bytes: &[u8]) {
        match bytes.is_empty() {
            false => self.mask.push(bytes, &mut self.shown),
            true => self.mask.end(&mut self.shown),
        }
        let shown = std::mem::take(&mut self.shown);
        let room = usize::try_from(MAX_LOG - self.written).unwrap_or(usize::MAX).min(shown.len());
        // On a full disk the bytes in memory still tell why it failed.
        self.file.write_all(&shown[..room]).ok();
        self.written += room as u64;
        self.dropped += (shown.len() - room) as u64;
        self.tail.extend(&shown[shown.len().saturating_sub(TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        if bytes.is_empty() && self.dropped > 0 {
            let _ = writeln!(self.file, "\n(quern-builder left out {} bytes after this)", self.dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::SecretValue;

    fn daemon() -> Daemon {
        let run = vec!["/bin/d".to_owned()];
        Daemon { name: "d".to_owned(), run, ready: None, timeout: 30, network: false }
    }

    #[test]
    fn addresses_are_numbers_or_localhost() {
        assert_eq!(addresses("127.0.0.1:80"), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(addresses("localhost:9").len(), 2);
        assert_eq!(addresses("[::1]:9"), ["[::1]:9".parse().unwrap()]);
    }

    #[test]
    fn a_log_has_a_limit_and_an_error_its_end() {
        let place = tempfile::tempdir().unwrap();
        let paths = WorkPaths::new(place.path());
        let list = [daemon()];
        let mut daemons = Daemons::new("s", &list, &[], &paths).unwrap();
        for _ in 0..20 {
            daemons.take(0, &vec![b'x'; 1 << 20]);
        }
        daemons.take(0, b"\nthe end\n");
        daemons.take(0, b"");
        assert!(daemons.error().is_none() && daemons.logs[0].tail.len() == TAIL);
        daemons.fail(DaemonFailure { index: 0, fate: DaemonFate::Ended(Exit::Code(3)) });
        daemons.fail(DaemonFailure { index: 0, fate: DaemonFate::NotReady });
        let error = daemons.error().unwrap();
        assert_eq!(error.to_string(), "the step s failed: its daemon d exited with code 3");
        assert!(error.details().unwrap().ends_with("\nthe end"), "{:?}", error.details());
        let written = fs_err::read(paths.daemon_log("d")).unwrap();
        assert!(written.len() < (16 << 20) + 100 && written.ends_with(b"left out 4194313 bytes after this)\n"));
    }

    #[test]
    fn a_value_of_a_secret_is_masked_across_two_reads() {
        let place = tempfile::tempdir().unwrap();
        let paths = WorkPaths::new(place.path());
        let secret = |name: &str, value| Secret { name: name.to_owned(), rebuild: true, value };
        let secrets = [secret("s", SecretValue::new(b"hunter2-hunter2".to_vec())), secret("t", SecretValue::absent())];
        let list = [daemon()];
        let mut daemons = Daemons::new("s", &list, &secrets, &paths).unwrap();
        ["begin hunter2-", "hunter2 end", ""].iter().for_each(|part| daemons.take(0, part.as_bytes()));
        assert_eq!(fs_err::read_to_string(paths.daemon_log("d")).unwrap(), "begin *** end");
    }
}
