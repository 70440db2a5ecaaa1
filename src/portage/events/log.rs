//! The lines of `emerge.log`, and how long each package took.

use std::collections::BTreeMap;

use super::snapshot::Built;
use super::{MAX_TASKS, target};
use crate::base::progress::{Merged, Packages, Target, Task};
use crate::base::text::plain;

/// The limit on the merged packages that are remembered.
const MAX_MERGED: usize = 100_000;

/// The state that the lines of `emerge.log` add up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Log {
    total: u64,
    /// Packages being worked on, by their number.
    running: BTreeMap<u64, Job>,
    merged: Vec<Merged>,
}

/// A package being worked on. All times are seconds since 1970.
#[derive(Debug, Clone, PartialEq)]
struct Job {
    task: Task,
    /// When emerge began it.
    began: u64,
    /// When its build ended and its wait for other packages began, as a snapshot tells.
    built: Option<f64>,
    /// When it was last seen to wait.
    waited: Option<f64>,
    /// When its merge began.
    merging: Option<u64>,
}

impl Job {
    /// Returns the seconds of work on the package that ends at `now`, without those that it waited for others to be merged.
    fn seconds(&self, now: u64) -> u64 {
        let whole = now.saturating_sub(self.began);
        let resumed = self.merging.map(|at| at as f64).or(self.waited);
        let waited = match (self.built, resumed) {
            (Some(built), Some(resumed)) => (resumed - built).max(0.0).round() as u64,
            _ => 0,
        };
        whole.saturating_sub(waited)
    }
}

impl Log {
    /// Takes one line. Returns true if it changed the state.
    pub fn line(&mut self, line: &str) -> bool {
        let Some((stamp, text)) = line.split_once(':') else { return false };
        let Some(stamp) = stamp.parse().ok().filter(|_| stamp.bytes().all(|b| b.is_ascii_digit())) else {
            return false;
        };
        let text = text.trim();
        if text.starts_with("Started emerge on") {
            *self = Self::default();
            true
        } else if let Some(rest) = text.strip_prefix(">>> emerge ") {
            self.begun(rest, stamp)
        } else if let Some(rest) = text.strip_prefix("::: completed emerge ") {
            self.completed(rest, stamp)
        } else if let Some(rest) = text.strip_prefix("=== ") {
            self.phase(rest, stamp)
        } else {
            false
        }
    }

    fn begun(&mut self, rest: &str, now: u64) -> bool {
        let Some((number, total, rest)) = counted(rest) else { return false };
        self.total = total;
        let task = Task { target: merged_into(rest), ..task(rest.split(' ').next().unwrap_or_default()) };
        self.set(number, task, now);
        true
    }

    fn completed(&mut self, rest: &str, now: u64) -> bool {
        let Some((number, total, rest)) = counted(rest) else { return false };
        self.total = total;
        let job = self.running.remove(&number).unwrap_or_else(|| {
            let task = task(rest.split(' ').next().unwrap_or_default());
            Job { task, began: now, built: None, waited: None, merging: None }
        });
        if self.merged.len() < MAX_MERGED {
            let seconds = job.seconds(now);
            self.merged.push(Merged { cpv: job.task.cpv, binary: job.task.binary, seconds, target: merged_into(rest) });
        }
        true
    }

    fn phase(&mut self, rest: &str, now: u64) -> bool {
        let Some((number, total, rest)) = counted(rest) else { return false };
        let Some((doing, rest)) = rest.split_once('(') else { return false };
        let doing = doing.trim();
        // `Updating world file (cpv)` and `Post-Build Cleaning (cpv::…)` come after the work.
        let phase = match doing {
            "Compiling/Merging" | "Compiling/Packaging" => "compile",
            "Cleaning" => "clean",
            "Merging" | "Merging Binary" | "Extracting" => "merge",
            _ => return false,
        };
        self.total = total;
        let cpv = rest.split("::").next().unwrap_or_default().trim_end_matches(')');
        let known = self.running.get(&number).map(|job| (job.task.binary, job.task.target));
        let (binary, target) = known.unwrap_or((false, Target::Image));
        let binary = binary || doing.contains("Binary");
        self.set(number, Task { phase: phase.to_owned(), binary, target, ..task(cpv) }, now);
        // Portage writes `Merging Binary` when it unpacks a binary package, and nothing when it merges it.
        if doing == "Merging"
            && let Some(job) = self.running.get_mut(&number)
        {
            job.merging = Some(now);
        }
        true
    }

    fn set(&mut self, number: u64, task: Task, now: u64) {
        if self.running.len() >= MAX_TASKS && !self.running.contains_key(&number) {
            return;
        }
        match self.running.get_mut(&number) {
            Some(job) => job.task = task,
            None => {
                self.running.insert(number, Job { task, began: now, built: None, waited: None, merging: None });
            }
        }
    }

    /// Notes which packages were built, and which of them wait to be merged, at the time `now` of a snapshot.
    pub(super) fn note(&mut self, built: &[Built], now: f64) {
        for job in self.running.values_mut() {
            let Some(found) = built.iter().find(|found| found.cpv == job.task.cpv) else { continue };
            job.built = Some(found.at.max(job.began as f64));
            if found.waits {
                job.waited = Some(now);
            }
        }
    }

    /// Returns the packages of the running emerge.
    pub fn packages(&self) -> Packages {
        let running = self.running.values().map(|job| job.task.clone()).collect();
        Packages { completed: self.merged.len() as u64, failed: 0, total: self.total, running, merged: self.merged() }
    }

    /// Returns the merged packages, in the order in which they ended.
    pub(super) fn merged(&self) -> Vec<Merged> {
        self.merged.clone()
    }
}

/// Returns a package of which only the name is known.
fn task(cpv: &str) -> Task {
    Task { cpv: plain(cpv, 120), phase: String::new(), binary: false, target: Target::Image }
}

/// Returns the tree in `category/package-version to /quern/image/`.
fn merged_into(text: &str) -> Target {
    text.rsplit_once(" to ").map_or(Target::Builder, |(_, root)| target(root))
}

/// Parses `(1 of 4) rest`.
fn counted(text: &str) -> Option<(u64, u64, &str)> {
    let (count, rest) = text.strip_prefix('(')?.split_once(')')?;
    let (number, total) = count.split_once(" of ")?;
    let (number, total) = (number.parse().ok()?, total.parse().ok()?);
    (number <= total).then_some((number, total, rest.trim_start()))
}
