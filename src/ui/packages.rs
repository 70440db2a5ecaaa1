//! Lines about the packages of an emerge command: one for each merged package, and one for the running packages. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::fit;
use crate::base::progress::{Merged, Packages, Target, Task};
use crate::base::text;

/// The packages of one emerge command, as far as events have shown them.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    now: Packages,
    /// The time at which a package was first seen to run.
    since: BTreeMap<String, Instant>,
}

impl Tracker {
    /// Takes the state of emerge; returns the packages that were merged since the last call, with their numbers.
    pub(super) fn update(&mut self, packages: &Packages, at: Instant) -> Vec<(usize, Merged)> {
        if packages.merged.len() < self.now.merged.len() {
            // Another emerge command begins to count.
            *self = Self::default();
        }
        for task in &packages.running {
            self.since.entry(task.cpv.clone()).or_insert(at);
        }
        let new = packages.merged.iter().enumerate().skip(self.now.merged.len());
        let new = new.map(|(index, merged)| (index + 1, merged.clone())).collect();
        self.now = packages.clone();
        new
    }

    /// Returns the line of a merged package: `[3/12] dev-lang/python-3.11.2 (1m02s)`.
    pub(super) fn line(&self, number: usize, merged: &Merged) -> String {
        let mut line = format!("[{number}/{}] {}", self.now.total, text::line(&merged.cpv));
        let binary = if merged.binary { ", binary" } else { "" };
        let took = duration(Duration::from_secs(merged.seconds));
        let _ = write!(line, " ({took}{binary}{})", builder(merged.target));
        line
    }

    /// Returns the running packages in at most `width` columns, `[3/12] dev-lang/python-3.11.2 compile (1m02s)`; `None` before the
    /// first package. Packages that do not fit are counted.
    pub(super) fn summary(&self, at: Instant, width: usize) -> Option<String> {
        if self.now.total == 0 {
            return None;
        }
        let running = &self.now.running;
        let failed = if self.now.failed > 0 { format!(" {} failed", self.now.failed) } else { String::new() };
        let number = (self.now.completed + u64::from(!running.is_empty())).min(self.now.total);
        let head = format!("[{number}/{}]{failed}", self.now.total);
        let tasks: Vec<String> = running.iter().map(|task| self.task(task, at)).collect();
        let with = |count: usize| {
            let more = match tasks.len() - count {
                0 => String::new(),
                more => format!(", {more} more"),
            };
            format!("{head} {}{more}", tasks[..count].join(", "))
        };
        let most = (1..=tasks.len()).rev().find(|count| with(*count).chars().count() <= width);
        Some(fit(&with(most.unwrap_or(tasks.len().min(1))), width))
    }

    fn task(&self, task: &Task, at: Instant) -> String {
        let since = self.since.get(&task.cpv).copied().unwrap_or(at);
        let mut words = vec![text::line(&task.cpv)];
        if !task.phase.is_empty() {
            words.push(text::line(&task.phase));
        }
        words.push(format!("({}{})", duration(at.saturating_duration_since(since)), builder(task.target)));
        words.join(" ")
    }
}

/// Marks a package that is not for the image.
fn builder(target: Target) -> &'static str {
    if target == Target::Builder { ", for the builder" } else { "" }
}

/// Formats a duration: `3s`, `1m02s`, `2h05m`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packages of the category `tool` are for the builder.
    fn tree(cpv: &str) -> Target {
        if cpv.starts_with("tool/") { Target::Builder } else { Target::Image }
    }

    fn snapshot(merged: &[(&str, u64)], running: &[(&str, &str)]) -> Packages {
        let running = running
            .iter()
            .map(|(cpv, phase)| Task {
                cpv: (*cpv).to_owned(),
                phase: (*phase).to_owned(),
                binary: false,
                target: tree(cpv),
            })
            .collect();
        let merged: Vec<_> = merged
            .iter()
            .map(|(cpv, seconds)| Merged {
                cpv: (*cpv).to_owned(),
                binary: *cpv == "a/b-1",
                seconds: *seconds,
                target: tree(cpv),
            })
            .collect();
        Packages { completed: merged.len() as u64, failed: 0, total: 3, running, merged }
    }

    fn lines(tracker: &mut Tracker, packages: &Packages, at: Instant) -> Vec<String> {
        let new = tracker.update(packages, at);
        new.iter().map(|(number, merged)| tracker.line(*number, merged)).collect()
    }

    #[test]
    fn every_merged_package_has_a_line() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tracker = Tracker::default();
        assert!(tracker.summary(start, 80).is_none());
        assert!(lines(&mut tracker, &snapshot(&[], &[("a/b-1", "unpack"), ("c/d-2", "compile")]), at(0)).is_empty());
        assert_eq!(tracker.summary(at(62), 80).unwrap(), "[1/3] a/b-1 unpack (1m02s), c/d-2 compile (1m02s)");
        let one = [("a/b-1", 64)];
        let second = snapshot(&one, &[("c/d-2", "compile")]);
        assert_eq!(lines(&mut tracker, &second, at(64)), ["[1/3] a/b-1 (1m04s, binary)"]);
        assert!(lines(&mut tracker, &snapshot(&one, &[]), at(65)).is_empty());
        // A package that ran between two snapshots, and the same package for another tree.
        let all = [one[0], ("tool/f-3", 0), ("a/b-1", 2)];
        let last = lines(&mut tracker, &snapshot(&all, &[]), at(70));
        assert_eq!(last, ["[2/3] tool/f-3 (0s, for the builder)", "[3/3] a/b-1 (2s, binary)"]);
        // The next emerge command.
        assert!(lines(&mut tracker, &snapshot(&[], &[("tool/h-4", "")]), at(80)).is_empty());
        assert_eq!(tracker.summary(at(81), 80).unwrap(), "[1/3] tool/h-4 (1s, for the builder)");
    }

    #[test]
    fn running_packages_that_do_not_fit_are_counted() {
        let start = Instant::now();
        let mut tracker = Tracker::default();
        tracker
            .update(&snapshot(&[], &[("a/first-1", "compile"), ("a/second-1", "install"), ("a/third-1", "")]), start);
        let at = |width| tracker.summary(start, width).unwrap();
        let whole = "[1/3] a/first-1 compile (0s), a/second-1 install (0s), a/third-1 (0s)";
        assert_eq!(at(whole.len()), whole);
        assert_eq!(at(whole.len() - 1), "[1/3] a/first-1 compile (0s), a/second-1 install (0s), 1 more");
        assert_eq!(at(40), "[1/3] a/first-1 compile (0s), 2 more");
        assert_eq!(at(30), "[1/3] a/first-1 compile (0s)…");
    }

    #[test]
    fn durations_are_short() {
        let text = [5, 60, 3599, 3600, 7500].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(text, ["5s", "1m00s", "59m59s", "1h00m", "2h05m"]);
    }
}
