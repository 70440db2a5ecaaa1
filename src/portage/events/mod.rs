//! The progress of a running emerge, read from the JSON snapshots of `FEATURES=observability` or else from `emerge.log`.
//!
//! The build may write to both directories, so their content is trusted only as far as a progress display needs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::base::progress::{Packages, Target};
use crate::portage::ROOT;
use crate::portage::dir::Dir;

mod log;
mod snapshot;

pub use log::Log;
use snapshot::Snapshot;
#[cfg(any(test, fuzzing))]
pub use snapshot::parse_snapshot;

/// The size limit of a snapshot and of one read of the log, in bytes.
const MAX_READ: u64 = 1 << 20;
/// The limit on the tasks that are shown.
const MAX_TASKS: usize = 64;
/// The limit on the names that are looked at in the directory of snapshots.
const MAX_NAMES: usize = 64;

/// Returns the tree that is the root directory `root` for emerge (`/quern/image/`).
fn target(root: &str) -> Target {
    if root.trim_end_matches('/') == ROOT { Target::Image } else { Target::Builder }
}

/// Follows a running emerge each time it is polled.
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
    /// Watches the snapshots in the directory `snapshots` and the file `log` from its current end. Make one before each step.
    /// Both directories belong to the caller; the build may write to them.
    pub fn new(snapshots: &Path, log: &Path) -> Self {
        let logs = log.parent().unwrap_or(Path::new(".")).to_owned();
        let name = log.file_name().unwrap_or_default().to_owned();
        let offset = Dir::open(&logs).and_then(|dir| dir.file(&name)).map_or(0, |file| file.size);
        let (partial, log) = (Vec::new(), Log::default());
        Self { snapshots: snapshots.to_owned(), logs, name, offset, partial, log, last: None }
    }

    /// Returns the packages of the running emerge if they changed since the last call.
    pub fn poll(&mut self) -> Option<Packages> {
        // The log has every merged package but little about running ones; a snapshot is the opposite.
        let snapshot = self.newest_snapshot();
        if let Some(snapshot) = &snapshot {
            self.log.note(&snapshot.built, snapshot.time);
        }
        let logged = self.follow_log();
        let found = match snapshot {
            Some(snapshot) => Packages { merged: self.log.merged(), ..snapshot.packages },
            None => logged?,
        };
        let nothing = found.total == 0 && found.running.is_empty();
        if nothing || self.last.as_ref() == Some(&found) {
            return None;
        }
        self.last = Some(found.clone());
        Some(found)
    }

    fn newest_snapshot(&self) -> Option<Snapshot> {
        let dir = Dir::open(&self.snapshots)?;
        let named = |name: &OsString| name.to_str().is_some_and(|n| n.starts_with("emerge-") && n.ends_with(".json"));
        dir.names(MAX_NAMES)
            .iter()
            .filter(|name| named(name))
            .filter_map(|name| snapshot::parse(&dir.file(name)?.read(0, MAX_READ + 1)?))
            .max_by(|a, b| a.time.total_cmp(&b.time))
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
        let mut changed = false;
        let whole = self.partial.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        for line in String::from_utf8_lossy(&lines).lines() {
            changed |= self.log.line(line);
        }
        if self.partial.len() as u64 > MAX_READ {
            self.partial.clear();
        }
        changed.then(|| self.log.packages())
    }
}

#[cfg(test)]
mod tests;
