//! The logs of one build: their names, their ends, and the error that each reports.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::refusal::is_cpv;
use crate::base::text::plain;
use crate::portage::dir::Dir;

/// The number of bytes at the end of a log that are searched.
const TAIL: u64 = 512 << 10;
/// The limit on the names that are looked at in one directory.
const MAX_NAMES: usize = 4_000;
/// The limit on the logs that are opened.
const MAX_LOGS: usize = 200;
/// The limit on the categories that are looked at.
const MAX_CATEGORIES: usize = 500;
/// The directory of logs with FEATURES=split-log: `build/<category>/<pf>:<time>.log`.
const BUILD: &str = "build";
/// The log of downloads ahead of their packages (FEATURES=parallel-fetch).
const PREFETCH: &str = "emerge-fetch.log";

/// A build log that was written since the build began. It is not held open: there may be more logs than descriptors.
pub(super) struct Found {
    pub(super) cpv: String,
    category: Option<OsString>,
    name: OsString,
    modified: SystemTime,
}

impl Found {
    pub(super) fn path(&self) -> PathBuf {
        self.category.iter().fold(PathBuf::new(), |_, category| Path::new(BUILD).join(category)).join(&self.name)
    }

    pub(super) fn tail(&self, top: &Dir) -> Option<Vec<u8>> {
        let mut file = match &self.category {
            Some(category) => top.dir(BUILD.as_ref())?.dir(category)?.file(&self.name)?,
            None => top.file(&self.name)?,
        };
        file.tail(TAIL)
    }
}

/// Lists the build logs, the newest first.
pub(super) fn of_builds(top: &Dir, began: SystemTime) -> Vec<Found> {
    let since = earlier(began);
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

/// Reads the end of the log of downloads that emerge made ahead of their packages.
pub(super) fn of_prefetch(top: &Dir, began: SystemTime) -> Vec<u8> {
    let file = top.file(PREFETCH.as_ref()).filter(|file| file.modified >= earlier(began));
    file.and_then(|mut file| file.tail(TAIL)).unwrap_or_default()
}

/// Allows for file systems with coarse clocks.
fn earlier(began: SystemTime) -> SystemTime {
    began.checked_sub(Duration::from_secs(2)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn take(dir: &Dir, category: Option<&OsString>, since: SystemTime) -> Vec<Found> {
    let category_name = match category.map(|category| category.to_str()) {
        Some(None) => return Vec::new(),
        Some(name) => name,
        None => None,
    };
    let named = |name: OsString| log_name(name.to_str()?, category_name).map(|cpv| (name, cpv));
    let mut names: Vec<(OsString, String)> = dir.names(MAX_NAMES).into_iter().filter_map(named).collect();
    // A name ends with the time. Of very many logs, only the newest are looked at.
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

/// Returns `category/pf` of a log named `<category>:<pf>:<YYYYMMDD-HHMMSS>.log`, or `<pf>:<time>.log` in its category's
/// directory.
pub(super) fn log_name(name: &str, category: Option<&str>) -> Option<String> {
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

/// The failure that a log reports about its own package.
#[derive(Default)]
pub(super) struct Report {
    pub(super) repo: Option<String>,
    pub(super) phase: Option<String>,
}

/// Finds the last ` * ERROR: <cpv>::<repo> failed (<phase> phase):`. Errors of other packages are ignored.
pub(super) fn report(bytes: &[u8], cpv: &str) -> Report {
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
