//! emerge's own account of its work: the JSON snapshots of `FEATURES=observability`, else its log.
//!
//! Both lie in directories that the build may write, so neither is believed further than a progress bar needs.

use crate::base::text::plain;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::base::progress::{Merged, Packages, Task};
use crate::portage::dir::Dir;

/// Longest snapshot, and most that is read of the log at once.
const MAX_READ: u64 = 1 << 20;
/// Most tasks shown.
const MAX_TASKS: usize = 64;
/// Most names looked at in the directory of snapshots.
const MAX_NAMES: usize = 64;

#[derive(Debug, Deserialize)]
struct Snapshot {
    r#type: String,
    #[serde(default)]
    timestamp: f64,
    jobs: Jobs,
    #[serde(default)]
    tasks: Vec<SnapshotTask>,
}

#[derive(Debug, Deserialize)]
struct Jobs {
    #[serde(default)]
    completed: u64,
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    total: u64,
}

#[derive(Debug, Deserialize)]
struct SnapshotTask {
    cpv: String,
    #[serde(default)]
    phase: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    binary: bool,
}

/// Reads one snapshot; none when it is not one. Fields that are not known are passed over.
pub fn parse_snapshot(bytes: &[u8]) -> Option<Packages> {
    snapshot(bytes).map(|(_, packages)| packages)
}

fn snapshot(bytes: &[u8]) -> Option<(f64, Packages)> {
    if bytes.len() as u64 > MAX_READ {
        return None;
    }
    let snapshot: Snapshot = serde_json::from_slice(bytes).ok()?;
    if snapshot.r#type != "snapshot" {
        return None;
    }
    let task = |task: SnapshotTask| Task {
        cpv: plain(&task.cpv, 120),
        phase: plain(&task.phase.or(task.kind.filter(|kind| kind == "merge")).unwrap_or_default(), 30),
        binary: task.binary,
    };
    let packages = Packages {
        completed: snapshot.jobs.completed,
        failed: snapshot.jobs.failed,
        total: snapshot.jobs.total,
        running: snapshot.tasks.into_iter().take(MAX_TASKS).map(task).collect(),
        merged: Vec::new(),
    };
    Some((snapshot.timestamp, packages))
}

/// Follows the lines of `emerge.log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    total: u64,
    /// What runs, by its number, with the second that it began in.
    running: BTreeMap<u64, (Task, u64)>,
    merged: Vec<Merged>,
}

impl Log {
    /// Takes one line; whether it told something.
    pub fn line(&mut self, line: &str) -> bool {
        let Some((stamp, text)) = line.split_once(':') else { return false };
        let Some(stamp) = stamp.parse().ok().filter(|_| stamp.bytes().all(|b| b.is_ascii_digit())) else {
            return false;
        };
        let text = text.trim();
        if text.starts_with("Started emerge on") {
            *self = Self::default();
            return true;
        }
        if let Some(rest) = text.strip_prefix(">>> emerge ") {
            let Some((number, total, rest)) = counted(rest) else { return false };
            self.total = total;
            self.set(number, rest.split(' ').next().unwrap_or_default(), "", false, stamp);
        } else if let Some(rest) = text.strip_prefix("::: completed emerge ") {
            let Some((number, total, rest)) = counted(rest) else { return false };
            self.total = total;
            let cpv = plain(rest.split(' ').next().unwrap_or_default(), 120);
            let (task, began) =
                self.running.remove(&number).unwrap_or((Task { cpv, phase: String::new(), binary: false }, stamp));
            if self.merged.len() < 100_000 {
                self.merged.push(Merged { cpv: task.cpv, binary: task.binary, seconds: stamp.saturating_sub(began) });
            }
        } else if let Some(rest) = text.strip_prefix("=== ") {
            let Some((number, total, rest)) = counted(rest) else { return false };
            let Some((doing, rest)) = rest.split_once('(') else { return false };
            // `Updating world file (cpv)` and `Post-Build Cleaning (cpv::…)` come when the work is over.
            let phase = match doing.trim() {
                "Compiling/Merging" | "Compiling/Packaging" => "compile",
                "Cleaning" => "clean",
                "Merging" | "Merging Binary" | "Extracting" => "merge",
                _ => return false,
            };
            self.total = total;
            let cpv = rest.split("::").next().unwrap_or_default().trim_end_matches(')');
            self.set(number, cpv, phase, doing.contains("Binary"), stamp);
        } else {
            return false;
        }
        true
    }

    fn set(&mut self, number: u64, cpv: &str, phase: &str, binary: bool, now: u64) {
        if self.running.len() < MAX_TASKS || self.running.contains_key(&number) {
            let (was_binary, began) =
                self.running.get(&number).map_or((false, now), |(task, began)| (task.binary, *began));
            let task = Task { cpv: plain(cpv, 120), phase: phase.to_owned(), binary: binary || was_binary };
            self.running.insert(number, (task, began));
        }
    }

    /// Where emerge stands.
    pub fn packages(&self) -> Packages {
        let running = self.running.values().map(|(task, _)| task.clone()).collect();
        let merged = self.merged.clone();
        Packages { completed: merged.len() as u64, failed: 0, total: self.total, running, merged }
    }
}

/// `(1 of 4) rest`.
fn counted(text: &str) -> Option<(u64, u64, &str)> {
    let (count, rest) = text.strip_prefix('(')?.split_once(')')?;
    let (number, total) = count.split_once(" of ")?;
    let (number, total) = (number.parse().ok()?, total.parse().ok()?);
    (number <= total).then_some((number, total, rest.trim_start()))
}

/// Tells where emerge stands, each time it is polled.
#[derive(Debug)]
pub struct Watcher {
    snapshots: PathBuf,
    logs: PathBuf,
    name: OsString,
    offset: u64,
    partial: Vec<u8>,
    log: Log,
    last: Option<Packages>,
}

impl Watcher {
    /// Watches the snapshots in the directory `snapshots` and the file `log`, from its present end on. Make one for each
    /// step, before it starts. Both directories are the caller's own on the host; what is in them may be the build's.
    pub fn new(snapshots: &Path, log: &Path) -> Self {
        let logs = log.parent().unwrap_or(Path::new(".")).to_owned();
        let name = log.file_name().unwrap_or_default().to_owned();
        let offset = Dir::open(&logs).and_then(|dir| dir.file(&name)).map_or(0, |file| file.size);
        Self {
            snapshots: snapshots.to_owned(),
            logs,
            name,
            offset,
            partial: Vec::new(),
            log: Log::default(),
            last: None,
        }
    }

    /// Where emerge stands, when that has changed since the last call.
    pub fn poll(&mut self) -> Option<Packages> {
        // The log misses nothing but says little of what runs; a snapshot is the other way round.
        let told = self.follow_log();
        let found = match self.newest_snapshot() {
            Some(snapshot) => Packages { merged: self.log.merged.clone(), ..snapshot },
            None => told?,
        };
        let nothing = found.total == 0 && found.running.is_empty();
        if nothing || self.last.as_ref() == Some(&found) {
            return None;
        }
        self.last = Some(found.clone());
        Some(found)
    }

    fn newest_snapshot(&self) -> Option<Packages> {
        let dir = Dir::open(&self.snapshots)?;
        let named = |name: &OsString| name.to_str().is_some_and(|n| n.starts_with("emerge-") && n.ends_with(".json"));
        dir.names(MAX_NAMES)
            .iter()
            .filter(|name| named(name))
            .filter_map(|name| snapshot(&dir.file(name)?.read(0, MAX_READ + 1)?))
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, packages)| packages)
    }

    fn follow_log(&mut self) -> Option<Packages> {
        let mut file = Dir::open(&self.logs)?.file(&self.name)?;
        if file.size < self.offset {
            self.offset = 0;
            self.partial.clear();
        }
        let bytes = file.read(self.offset, MAX_READ)?;
        self.offset += bytes.len() as u64;
        self.partial.extend_from_slice(&bytes);
        let mut told = false;
        let whole = self.partial.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        for line in String::from_utf8_lossy(&lines).lines() {
            told |= self.log.line(line);
        }
        if self.partial.len() as u64 > MAX_READ {
            self.partial.clear();
        }
        told.then(|| self.log.packages())
    }
}

#[cfg(test)]
mod tests;
