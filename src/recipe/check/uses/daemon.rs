//! Daemons: processes that live while steps run.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::recipe::check::steps::flag;
use crate::recipe::check::{Checker, Word};
use crate::recipe::diagnostic::Problem;
use crate::recipe::parse::Table;
use crate::recipe::words::Checked;
use crate::recipe::{Daemon, Ready, words};

/// The default of `timeout`, in seconds.
const TIMEOUT: u64 = 30;

impl Checker<'_> {
    pub(super) fn daemon(&mut self, name: &Word, table: &Table) -> Option<Daemon> {
        let run = self.texts_in(table, "run", "argument");
        if run.first().is_none_or(String::is_empty) && !self.misspelt {
            let problem = Problem::new("no program").help("for example run = [\"/usr/sbin/sshd\", \"-D\"]");
            self.texts.problem(&name.at, "a daemon needs `run`", problem);
            return None;
        }
        let timeout = match Word::in_table(table, "timeout") {
            Some(word) => self.follow(&word, "timeout", words::duration),
            None => Some(TIMEOUT),
        };
        let sign = self.texts_in(table, "ready", "argument");
        let ready = match (&sign[..], table.get("ready").map(|item| item.value.at.clone())) {
            (_, None) => None,
            ([], Some(at)) => {
                self.texts.problem(
                    &at,
                    "a daemon is ready without a sign",
                    Problem::new("empty").help("remove `ready`"),
                );
                None
            }
            ([one], Some(at)) => self.follow(&Word { text: one.clone(), at }, "sign of a daemon", ready),
            _ => Some(Ready::Command(sign)),
        };
        Some(Daemon { name: name.text.clone(), run, ready, timeout: timeout?, network: flag(table, "network") })
    }
}

/// Parses `tcp:HOST:PORT` or `path:PATH`; anything else is a program.
fn ready(text: &str) -> Checked<Ready> {
    let help = "for example \"tcp:127.0.0.1:3632\", \"path:/run/ready\", or a command as a list";
    if let Some(address) = text.strip_prefix("tcp:") {
        let local = address.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
        let port = local.or_else(|| address.parse::<SocketAddr>().ok().map(|address| address.port()));
        return match (port, address.rsplit_once(':')) {
            (Some(1..), _) => Ok(Ready::Tcp(address.to_owned())),
            (None, Some((host, port))) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Err(Problem::new("not an IP address or localhost").help(help))
            }
            _ => Err(Problem::new("not HOST:PORT").help(help)),
        };
    }
    if let Some(path) = text.strip_prefix("path:") {
        return words::image_path(path).map(|path| Ready::Path(PathBuf::from(path)));
    }
    match text.starts_with('/') {
        true => Ok(Ready::Command(vec![text.to_owned()])),
        false => Err(Problem::new("not a sign of a daemon").help(help)),
    }
}
