//! The report of a failed emerge: the failed packages and their logs, the words of the cause, what emerge refuses and why, and the lines
//! of the recipe that help.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::portage::dir::Dir;
use crate::portage::emerge::Root;

mod fix;
mod known;
mod logs;
mod packages;
mod refusal;
mod report;
mod text;

pub use fix::{Fix, PackageFiles};
use known::KNOWN;
pub use packages::sources;
use refusal::Refusal;
pub(in crate::portage) use refusal::is_cpv;
pub use text::{begins_to_merge, is_chatter};

/// The number of log lines that are shown.
pub const LINES: usize = 40;
/// The number of characters of a line that are shown.
const WIDTH: usize = 240;

/// The facts about a failed emerge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// The packages that failed. The first is the one whose log is shown.
    pub packages: Vec<Package>,
    /// The words of the cause, from the log or from emerge's own output; safe to show.
    pub lines: Vec<String>,
    /// Refusals that are known by their messages, the cause first.
    refusals: Vec<Refusal>,
    /// Changes of the recipe that emerge itself proposes.
    proposed: Vec<Fix>,
    /// Next steps for messages of the system.
    hints: Vec<&'static str>,
    /// True if the system is to blame, not the package.
    system: bool,
    /// True if the build had no network ([`Failure::offline`]).
    offline: bool,
    /// True if emerge acts on an image beside the builder ([`Failure::on`]).
    image: bool,
    /// True if emerge could not download something.
    fetch: bool,
    /// Distfiles of the failed packages that could not be downloaded.
    missing: Vec<String>,
    /// Distfiles that emerge could not download ahead of their packages.
    prefetch: Vec<String>,
}

/// A failed package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    /// `category/package-version`.
    pub cpv: String,
    /// The repository of its ebuild.
    pub repo: Option<String>,
    /// The phase that failed.
    pub phase: Option<String>,
    /// Its build log, on the host.
    pub log: Option<PathBuf>,
}

/// Finds out what failed. `logs` is PORTAGE_LOGDIR on the host, `began` the start of the build, `output` the end of emerge's
/// own output.
pub fn find(logs: &Path, began: SystemTime, output: &[u8]) -> Failure {
    let said = text::lines(output);
    let named = packages::failed(&said);
    let mut failure = Failure::default();
    packages::missing_files(output, &mut failure.missing);
    // A package that emerge named is certain, one whose log reports an error less so. The newest log comes first.
    let mut found: Vec<((bool, bool), Package, Vec<String>)> = Vec::new();
    if let Some(top) = Dir::open(logs) {
        for log in logs::of_builds(&top, began) {
            let Some(bytes) = log.tail(&top) else { continue };
            packages::missing_files(&bytes, &mut failure.missing);
            let report = logs::report(&bytes, &log.cpv);
            let rank = (named.contains(&log.cpv), report.phase.is_some());
            if rank != (false, false) && !found.iter().any(|(_, known, _)| known.cpv == log.cpv) {
                let path = Some(logs.join(log.path()));
                let package = Package { cpv: log.cpv, repo: report.repo, phase: report.phase, log: path };
                found.push((rank, package, text::lines(&bytes)));
            }
        }
        packages::missing_files(&logs::of_prefetch(&top, began), &mut failure.prefetch);
    }
    found.sort_by_key(|(rank, ..)| std::cmp::Reverse(*rank));
    // With a name from emerge, another log's error is that of an earlier attempt.
    found.retain(|((is_named, _), ..)| *is_named || named.is_empty());
    failure.lines = match found.first() {
        Some((_, _, lines)) => text::cause(lines, LINES),
        None if named.is_empty() => text::last(text::without_chatter(&said), LINES),
        None => text::cause(&said, LINES),
    };
    failure.lines.iter_mut().for_each(|line| *line = crate::base::text::plain(line, WIDTH));
    failure.proposed = fix::proposed(&said);
    failure.add(refusal::parse(&said));
    for (_, package, lines) in found {
        failure.add(refusal::parse(&lines));
        failure.packages.push(package);
    }
    for cpv in named {
        if !failure.packages.iter().any(|known| known.cpv == cpv) {
            let report = logs::report(output, &cpv);
            failure.packages.push(Package { cpv, repo: report.repo, phase: report.phase, log: None });
        }
    }
    failure.look_up(&said);
    failure
}

/// Returns the packages whose build logs since `began` contain `text` near their ends.
pub fn mentioning(logs: &Path, began: SystemTime, text: &str) -> Vec<String> {
    let Some(top) = Dir::open(logs) else { return Vec::new() };
    let contains = |log: &logs::Found| {
        log.tail(&top).is_some_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    let mut found: Vec<String> = logs::of_builds(&top, began).into_iter().filter(contains).map(|log| log.cpv).collect();
    found.sort();
    found.dedup();
    found
}

impl Failure {
    /// Sets whether the build had no network, so that missing files get the right hint.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Sets the tree that emerge acts on, so that refusals for another one can be told apart.
    pub fn on(mut self, root: Root) -> Self {
        self.image = root == Root::Target;
        self
    }

    /// Takes over what a pretending emerge says about the same packages: the changes that it proposes, and refusals behind the first.
    pub fn learn(&mut self, output: &[u8]) {
        let said = text::lines(output);
        for fix in fix::proposed(&said) {
            if !self.proposed.iter().any(|known| (known.file, &known.line) == (fix.file, &fix.line)) {
                self.proposed.push(fix);
            }
        }
        self.add(refusal::parse(&said));
    }

    /// Returns the packages whose sources must be downloaded by hand, as `category/package-version`.
    pub fn fetch_restricted(&self) -> impl Iterator<Item = &str> {
        self.refusals.iter().filter_map(Refusal::fetch_restricted)
    }

    /// Names the files of a package whose sources must be downloaded by hand.
    pub fn name_sources(&mut self, cpv: &str, files: &[String]) {
        self.refusals.iter_mut().for_each(|refusal| refusal.name_sources(cpv, files));
    }

    fn add(&mut self, refusals: Vec<Refusal>) {
        for refusal in refusals {
            if !self.refusals.iter().any(|known| known.is_same(&refusal)) {
                self.refusals.push(refusal);
            }
        }
        self.refusals.sort_by_key(Refusal::is_aside);
    }

    /// Collects the hints for known messages in emerge's output and in the lines of the log.
    fn look_up(&mut self, said: &[String]) {
        for known in KNOWN {
            if said.iter().chain(&self.lines).any(|line| line.contains(known.needle)) {
                self.system |= known.system;
                self.fetch |= known.fetch;
                if !known.fetch && !self.hints.contains(&known.hint) {
                    self.hints.push(known.hint);
                }
            }
        }
        self.fetch |= !self.missing.is_empty();
    }
}

#[cfg(test)]
mod tests;
