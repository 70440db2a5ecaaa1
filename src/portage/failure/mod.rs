//! The report of a failed emerge: the package, its phase, its log and the log's last lines, and hints.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::base::error::{Error, Kind};
use crate::base::text::{last_lines, plain};
use crate::portage::dir::Dir;

mod known;
mod logs;

use known::KNOWN;
pub(in crate::portage) use logs::is_cpv;

/// The number of log lines that are shown.
pub const LINES: usize = 40;
/// The number of characters of a line that are shown.
const WIDTH: usize = 240;
/// The limit on the missing files that are collected, and on those that are named.
const MAX_MISSING: usize = 1_000;
const MISSING_NAMED: usize = 20;

/// The facts about a failed emerge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// `category/package-version`.
    pub cpv: Option<String>,
    /// The repository of its ebuild.
    pub repo: Option<String>,
    /// The phase that failed.
    pub phase: Option<String>,
    /// Its build log, on the host.
    pub log: Option<PathBuf>,
    /// The last lines of the log, or of emerge's own output; safe to show.
    pub lines: Vec<String>,
    /// Next steps.
    pub hints: Vec<&'static str>,
    /// True if the system is to blame, not the package.
    pub system: bool,
    /// True if the build had no network ([`Failure::offline`]).
    offline: bool,
    /// True if emerge could not download something.
    fetch: bool,
    /// Distfiles of the failed packages that could not be downloaded.
    missing: Vec<String>,
    /// Distfiles that emerge could not download ahead of their packages.
    prefetch: Vec<String>,
}

/// Finds out what failed. `logs` is PORTAGE_LOGDIR on the host, `began` the start of the build, `output` the end of emerge's
/// own output.
pub fn find(logs: &Path, began: SystemTime, output: &[u8]) -> Failure {
    let named = failed_packages(output);
    let mut failure = Failure::default();
    missing_files(output, &mut failure.missing);
    // A package that emerge named is certain, one whose log reports an error less so. The newest log comes first.
    let mut best = None;
    let mut best_rank = (false, false);
    if let Some(top) = Dir::open(logs) {
        for found in logs::of_builds(&top, began) {
            let Some(bytes) = found.tail(&top) else { continue };
            let report = logs::report(&bytes, &found.cpv);
            missing_files(&bytes, &mut failure.missing);
            let rank = (named.contains(&found.cpv), report.phase.is_some());
            if rank > best_rank {
                best_rank = rank;
                best = Some((found, report, bytes));
            }
        }
        missing_files(&logs::of_prefetch(&top, began), &mut failure.prefetch);
    }
    if let Some((found, report, bytes)) = best {
        failure.lines = last_lines(&bytes, LINES, WIDTH);
        failure.log = Some(logs.join(found.path()));
        failure.cpv = Some(found.cpv);
        failure.repo = report.repo;
        failure.phase = report.phase;
    } else {
        failure.cpv = named.into_iter().next();
        failure.lines = last_lines(output, LINES, WIDTH);
    }
    failure.look_up(output);
    failure
}

impl Failure {
    /// Sets whether the build had no network, so that missing files get the right hint.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Collects the hints for known messages in emerge's output and in the lines of the log.
    fn look_up(&mut self, output: &[u8]) {
        let text = String::from_utf8_lossy(output);
        // Colour sequences would split the words that are looked for.
        let text: Vec<String> = text.lines().map(|line| plain(line, 1_000)).collect();
        for known in KNOWN {
            let shown = |line: &String| line.contains(known.needle);
            if text.iter().any(shown) || self.lines.iter().any(shown) {
                self.system |= known.system;
                self.fetch |= known.fetch;
                if !known.fetch && !self.hints.contains(&known.hint) {
                    self.hints.push(known.hint);
                }
            }
        }
        self.fetch |= !self.missing.is_empty();
    }

    /// Returns the error to report; `what` is the step that failed.
    pub fn into_error(self, what: &str) -> Error {
        let message = match (&self.cpv, &self.repo, &self.phase) {
            (Some(cpv), Some(repo), Some(phase)) => format!("{what}: {cpv}::{repo} failed in its {phase} phase"),
            (Some(cpv), None, Some(phase)) => format!("{what}: {cpv} failed in its {phase} phase"),
            (Some(cpv), ..) => format!("{what}: {cpv} failed"),
            _ => format!("{what}: emerge failed"),
        };
        let mut error = Error::new(if self.system { Kind::System } else { Kind::Build }, message);
        if !self.lines.is_empty() {
            error = error.with_details(self.lines.join("\n"));
        }
        let mut hints: Vec<String> = self.fetch_hints();
        hints.extend(self.hints.iter().map(|&hint| hint.to_owned()));
        if let Some(log) = &self.log {
            hints.push(format!("the whole log: {}", plain(&log.display().to_string(), 4_096)));
        }
        if hints.is_empty() { error } else { error.with_hint(hints.join("\n")) }
    }

    /// Names the files that could not be downloaded, and the next step.
    fn fetch_hints(&self) -> Vec<String> {
        if !self.fetch {
            return Vec::new();
        }
        let mut missing = self.missing.clone();
        // With a network, what could not be fetched ahead may well have been fetched later.
        missing.extend(self.prefetch.iter().filter(|name| self.offline && !self.missing.contains(name)).cloned());
        let mut hints = Vec::new();
        if !missing.is_empty() {
            let mut names = missing[..missing.len().min(MISSING_NAMED)].join(", ");
            if missing.len() > MISSING_NAMED {
                names += &format!(" and {} more", missing.len() - MISSING_NAMED);
            }
            hints.push(format!("missing in portage.distfiles: {names}"));
        }
        hints.push(if self.offline {
            "a build with --offline has no network: run it once without --offline to download the missing files".into()
        } else {
            "sources could not be downloaded: check source.mirrors, or put the files into portage.distfiles".into()
        });
        hints
    }
}

/// Returns the packages that emerge itself reports as failed, in its order.
fn failed_packages(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let mut failed: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| line.contains("Failed to ") || line.contains("Fetch failed for")) {
        let line = plain(line, 1_000);
        let cpv = if let Some((_, rest)) = line.split_once(">>> Failed to ") {
            rest.split_whitespace().nth(1)
        } else if let Some((_, rest)) = line.split_once("Fetch failed for '") {
            rest.split('\'').next()
        } else {
            None
        };
        if let Some(cpv) = cpv.map(|cpv| cpv.trim_end_matches(',')).filter(|cpv| logs::is_cpv(cpv))
            && !failed.iter().any(|known| known == cpv)
            && failed.len() < 100
        {
            failed.push(cpv.to_owned());
        }
    }
    failed
}

/// Adds the names of distfiles that a text reports as not downloaded.
fn missing_files(text: &[u8], missing: &mut Vec<String>) {
    for line in String::from_utf8_lossy(text).lines() {
        let name = ["Couldn't download '", "No mirrors available for file '"].iter().find_map(|said| {
            let (_, rest) = line.split_once(said)?;
            rest.rsplit_once('\'').map(|(name, _)| plain(name, 200))
        });
        // Portage also fetches the layout of each mirror.
        let Some(name) =
            name.filter(|name| !name.is_empty() && !name.contains('/') && !name.starts_with(".layout.conf"))
        else {
            continue;
        };
        if missing.len() < MAX_MISSING && !missing.contains(&name) {
            missing.push(name);
        }
    }
}

#[cfg(test)]
mod tests;
