//! After a failed emerge: which package, which phase, where its log is, its last lines, and what may help.

use crate::base::text::{last_lines, plain};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::base::error::{Error, Kind};
use crate::portage::dir::Dir;

/// Lines of a log that are shown.
pub const LINES: usize = 40;
/// Characters of a line that are shown.
const WIDTH: usize = 240;
/// How much of the end of a log is searched.
const TAIL: u64 = 512 << 10;
/// Most names looked at in one directory, and most logs opened.
const MAX_NAMES: usize = 4_000;
const MAX_LOGS: usize = 200;
const MAX_CATEGORIES: usize = 500;
/// FEATURES=split-log has `build/<category>/<pf>:<time>.log`.
const BUILD: &str = "build";

/// What is known of a failed emerge.
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
    /// Whether the system, not the package, is to blame.
    pub system: bool,
}

/// Finds what failed. `logs` is PORTAGE_LOGDIR on the host, `began` when the build began, `output` the end of what emerge
/// wrote.
pub fn find(logs: &Path, began: SystemTime, output: &[u8]) -> Failure {
    let told = Told::parse(output);
    let mut failure = Failure::default();
    // What emerge named is surest, then what says of itself that it failed; logs come newest first.
    let mut best = None;
    let mut best_rank = (false, false);
    if let Some(top) = Dir::open(logs) {
        for found in build_logs(&top, began) {
            let Some(bytes) = found.tail(&top) else { continue };
            let report = report(&bytes, &found.cpv);
            let rank = (told.failed.contains(&found.cpv), report.phase.is_some());
            if rank > best_rank {
                best_rank = rank;
                best = Some((found, report, bytes));
            }
        }
    }
    if let Some((found, report, bytes)) = best {
        failure.lines = last_lines(&bytes, LINES, WIDTH);
        failure.log = Some(logs.join(found.path()));
        failure.cpv = Some(found.cpv);
        failure.repo = report.repo;
        failure.phase = report.phase;
    } else {
        failure.cpv = told.failed.first().cloned();
        failure.lines = last_lines(output, LINES, WIDTH);
    }
    let text = String::from_utf8_lossy(output);
    // Without the escapes that a coloured output puts between its words.
    let text: Vec<String> = text.lines().map(|line| plain(line, 1_000)).collect();
    for known in KNOWN {
        let needle = known.needle;
        if text.iter().any(|line| line.contains(needle)) || failure.lines.iter().any(|line| line.contains(needle)) {
            failure.system |= known.system;
            if !failure.hints.contains(&known.hint) {
                failure.hints.push(known.hint);
            }
        }
    }
    failure
}

impl Failure {
    /// The error to report; `what` is the step that failed.
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
        let mut hints: Vec<String> = self.hints.iter().map(|&hint| hint.to_owned()).collect();
        if let Some(log) = &self.log {
            hints.push(format!("the whole log: {}", plain(&log.display().to_string(), 4_096)));
        }
        if hints.is_empty() { error } else { error.with_hint(hints.join("\n")) }
    }
}

/// A build log that was written since the build began. Not held open: there may be more than descriptors.
struct Found {
    cpv: String,
    category: Option<OsString>,
    name: OsString,
    modified: SystemTime,
}

impl Found {
    fn path(&self) -> PathBuf {
        self.category.iter().fold(PathBuf::new(), |_, category| Path::new(BUILD).join(category)).join(&self.name)
    }

    fn tail(&self, top: &Dir) -> Option<Vec<u8>> {
        let mut file = match &self.category {
            Some(category) => top.dir(BUILD.as_ref())?.dir(category)?.file(&self.name)?,
            None => top.file(&self.name)?,
        };
        file.tail(TAIL)
    }
}

/// Newest first.
fn build_logs(top: &Dir, began: SystemTime) -> Vec<Found> {
    // File systems' clocks are coarse.
    let since = began.checked_sub(Duration::from_secs(2)).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut found = take(top, None, since);
    if let Some(build) = top.dir(BUILD.as_ref()) {
        for category in build.names(MAX_CATEGORIES) {
            if let Some(dir) = build.dir(&category) {
                found.extend(take(&dir, Some(&category), since));
            }
        }
    }
    found.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| b.name.cmp(&a.name)));
    found.truncate(MAX_LOGS);
    found
}

fn take(dir: &Dir, category: Option<&OsString>, since: SystemTime) -> Vec<Found> {
    let category_name = match category.map(|category| category.to_str()) {
        Some(None) => return Vec::new(),
        Some(name) => name,
        None => None,
    };
    let named = |name: OsString| log_name(name.to_str()?, category_name).map(|cpv| (name, cpv));
    let mut names: Vec<(OsString, String)> = dir.names(MAX_NAMES).into_iter().filter_map(named).collect();
    // The name ends with the time: with very many logs, only the youngest are looked at.
    names.sort_by(|(a, _), (b, _)| time_of(b).cmp(time_of(a)));
    names
        .into_iter()
        .take(MAX_LOGS)
        .filter_map(|(name, cpv)| {
            let modified = dir.file(&name)?.modified;
            (modified >= since).then(|| Found { cpv, category: category.cloned(), name, modified })
        })
        .collect()
}

fn time_of(name: &OsStr) -> &str {
    name.to_str().and_then(|name| name.rsplit(':').next()).unwrap_or_default()
}

/// `category/pf` of `<category>:<pf>:<YYYYMMDD-HHMMSS>.log`, or without the category inside its directory.
fn log_name(name: &str, category: Option<&str>) -> Option<String> {
    let (rest, time) = name.strip_suffix(".log")?.rsplit_once(':')?;
    let stamp =
        time.len() == 15 && time.bytes().enumerate().all(|(i, b)| if i == 8 { b == b'-' } else { b.is_ascii_digit() });
    let (category, pf) = match category {
        Some(category) => (category, rest),
        None => rest.split_once(':')?,
    };
    let cpv = format!("{category}/{pf}");
    (stamp && is_cpv(&cpv)).then_some(cpv)
}

fn is_cpv(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"+_.-".contains(&b)) && part.len() < 200
    };
    text.split_once('/').is_some_and(|(category, pf)| word(category) && word(pf))
}

/// What a log says of itself.
#[derive(Default)]
struct Report {
    repo: Option<String>,
    phase: Option<String>,
}

/// Finds ` * ERROR: <cpv>::<repo> failed (<phase> phase):`, the last one. A log that speaks of another package says nothing.
fn report(bytes: &[u8], cpv: &str) -> Report {
    let text = String::from_utf8_lossy(bytes);
    let word =
        |text: &str| text.len() < 60 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let found = text.lines().rev().filter(|line| line.contains("ERROR:")).find_map(|line| {
        let line = plain(line, 1_000);
        let rest = line.trim_start().strip_prefix("* ERROR: ")?.strip_prefix(cpv)?;
        let (repo, rest) = rest.split_once(" failed")?;
        let repo = match repo.strip_prefix("::") {
            Some(repo) => Some(repo).filter(|repo| word(repo)).map(str::to_owned),
            None if repo.is_empty() => None,
            None => return None,
        };
        let phase = rest.trim().strip_prefix('(').and_then(|rest| rest.split_once(" phase)")).map(|(phase, _)| phase);
        let phase = phase.filter(|phase| word(phase)).unwrap_or("unknown").to_owned();
        Some(Report { repo, phase: Some(phase) })
    });
    found.unwrap_or_default()
}

/// What emerge itself said.
struct Told {
    failed: Vec<String>,
}

impl Told {
    fn parse(output: &[u8]) -> Self {
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
            if let Some(cpv) = cpv.map(|cpv| cpv.trim_end_matches(',')).filter(|cpv| is_cpv(cpv))
                && !failed.iter().any(|known| known == cpv)
                && failed.len() < 100
            {
                failed.push(cpv.to_owned());
            }
        }
        Self { failed }
    }
}

struct Known {
    needle: &'static str,
    hint: &'static str,
    system: bool,
}

const fn known(needle: &'static str, hint: &'static str) -> Known {
    Known { needle, hint, system: false }
}

/// What emerge and the kernel say, and what helps.
const KNOWN: &[Known] = &[
    Known {
        needle: "No space left on device",
        hint: "no space is left: free some where the store is (`clean`), or raise build.workdir-storage",
        system: true,
    },
    Known {
        needle: "Unable to unshare",
        hint: "the kernel refuses Portage its own sandbox: see the limits in /proc/sys/user, or set FEATURES = \
               \"-network-sandbox -ipc-sandbox\" in portage.make-conf to go without",
        system: true,
    },
    Known {
        needle: "out of pty devices",
        hint: "the sandbox has no pseudo-terminals: see /proc/sys/kernel/pty/max",
        system: true,
    },
    known(
        "there are no ebuilds to satisfy",
        "no repository has such a package: check the atom, or add its overlay to portage.repositories",
    ),
    known("there are no binary packages to satisfy", "only binary packages were allowed and none fits: build it first"),
    known(
        "keyword changes are necessary",
        "accept the keyword: a line in portage.package-accept-keywords, or ACCEPT_KEYWORDS in portage.make-conf",
    ),
    known("USE changes are necessary", "set the USE flags that emerge names in portage.package-use"),
    known("license changes are necessary", "accept the licence: a line in portage.package-license, or ACCEPT_LICENSE"),
    known("mask changes are necessary", "a profile or package.mask masks it: add a line to portage.package-unmask"),
    known(
        "have been masked",
        "every version is masked: emerge says by what; portage.package-accept-keywords, -license or -unmask can allow one",
    ),
    known(
        "Your current profile is invalid",
        "Portage cannot use the builder's or the target's profile: check build.profile and build.unblocker-profile",
    ),
    known(
        "Read-only file system",
        "something wrote where the build may not: a cache that is read-only, or an ebuild that leaves its tree",
    ),
    known("unmet requirements", "REQUIRED_USE is not met: set the flags that emerge names in portage.package-use"),
    known(
        "circular dependencies",
        "packages need each other to be built: turn off a USE flag, or merge one first with it off",
    ),
    known(
        "Fetch failed for",
        "its source could not be downloaded: check source.mirrors, or put the file in portage.distfiles",
    ),
    known(
        "Couldn't download",
        "its source could not be downloaded: check source.mirrors, or put the file in portage.distfiles",
    ),
    known(
        "Digest verification failed",
        "a downloaded file or an ebuild is not what its Manifest says: renew the Manifest, or remove the file",
    ),
    known(
        "Killed signal terminated program",
        "a compiler was killed, as when memory runs out: fewer emerge.jobs, or a smaller MAKEOPTS",
    ),
];

#[cfg(test)]
mod tests;
