//! The JSON snapshots that emerge writes with `FEATURES=observability`.

use serde::Deserialize;

use super::{MAX_READ, MAX_TASKS, target};
use crate::base::progress::{Packages, Target, Task};
use crate::base::text::plain;

#[derive(Debug, Deserialize)]
struct Json {
    r#type: String,
    #[serde(default)]
    timestamp: f64,
    jobs: Jobs,
    #[serde(default)]
    tasks: Vec<JsonTask>,
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
struct JsonTask {
    cpv: String,
    #[serde(default)]
    phase: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    binary: bool,
    #[serde(default)]
    root: Option<String>,
    #[serde(default)]
    merge_wait: bool,
    #[serde(default)]
    start_time: Option<f64>,
    #[serde(default)]
    build_elapsed: Option<f64>,
}

/// A snapshot.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// When it was taken, in seconds since 1970.
    pub(super) time: f64,
    pub(super) packages: Packages,
    /// Packages whose build has ended.
    pub(super) built: Vec<Built>,
}

/// A package that was built, or unpacked from a binary package, and is not merged yet.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) cpv: String,
    /// When its build ended, in seconds since 1970.
    pub(super) at: f64,
    /// True while it waits for others to be merged.
    pub(super) waits: bool,
}

/// Returns the packages of a snapshot.
#[cfg(any(test, fuzzing))]
pub fn parse_snapshot(bytes: &[u8]) -> Option<Packages> {
    parse(bytes).map(|snapshot| snapshot.packages)
}

/// Parses a snapshot. Returns `None` for any other text. Unknown fields are ignored.
pub(super) fn parse(bytes: &[u8]) -> Option<Snapshot> {
    if bytes.len() as u64 > MAX_READ {
        return None;
    }
    let json: Json = serde_json::from_slice(bytes).ok()?;
    if json.r#type != "snapshot" {
        return None;
    }
    let mut built = Vec::new();
    let mut running = Vec::new();
    for task in json.tasks.into_iter().take(MAX_TASKS) {
        let cpv = plain(&task.cpv, 120);
        let merges = task.kind.as_deref() == Some("merge");
        if let (true, Some(start), Some(elapsed)) = (merges, task.start_time, task.build_elapsed) {
            built.push(Built { cpv: cpv.clone(), at: start + elapsed, waits: task.merge_wait });
        }
        let phase = task.phase.or_else(|| merges.then(|| "merge".to_owned())).unwrap_or_default();
        let target = task.root.as_deref().map_or(Target::Image, target);
        running.push(Task { cpv, phase: plain(&phase, 30), binary: task.binary, target });
    }
    let Jobs { completed, failed, total } = json.jobs;
    let packages = Packages { completed, failed, total, running, merged: Vec::new() };
    Some(Snapshot { time: json.timestamp, packages, built })
}
