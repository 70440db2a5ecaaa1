//! emerge's snapshots → a line for every package that is through, and one for those that run. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::progress::{Merged, Packages, Target, Task};
use crate::base::text;

/// What was seen of the packages of one emerge.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    now: Packages,
    /// When a package was first seen to run.
    since: BTreeMap<String, Instant>,
}

impl Tracker {
    /// Takes a snapshot; returns a line for every package that it shows to be through.
    pub(super) fn update(&mut self, snapshot: &Packages, at: Instant) -> Vec<String> {
        if snapshot.merged.len() < self.now.merged.len() {
            // Another emerge counts from the beginning.
            *self = Self::default();
        }
        for task in &snapshot.running {
            self.since.entry(task.cpv.clone()).or_insert(at);
        }
        let line = |(number, merged): (usize, &Merged)| {
            let binary = if merged.binary { ", binary" } else { "" };
            let target = if merged.target == Target::Builder { ", for the builder" } else { "" };
            let took = duration(Duration::from_secs(merged.seconds));
            format!("[{}/{}] {} ({took}{binary}{target})", number + 1, snapshot.total, text::line(&merged.cpv))
        };
        let lines = snapshot.merged.iter().enumerate().skip(self.now.merged.len()).map(line).collect();
        self.now = snapshot.clone();
        lines
    }

    /// What runs now, `[3/12] dev-lang/python-3.11.2 compile (1m02s)`; none when nothing was seen.
    pub(super) fn summary(&self, at: Instant) -> Option<String> {
        if self.now.total == 0 {
            return None;
        }
        let show = |task: &Task| {
            let since = self.since.get(&task.cpv).copied().unwrap_or(at);
            let phase = if task.phase.is_empty() { String::new() } else { format!(" {}", text::line(&task.phase)) };
            format!("{}{phase} ({})", text::line(&task.cpv), duration(at.saturating_duration_since(since)))
        };
        let running: Vec<_> = self.now.running.iter().map(show).collect();
        let failed = if self.now.failed > 0 { format!(" {} failed", self.now.failed) } else { String::new() };
        let number = (self.now.completed + u64::from(!running.is_empty())).min(self.now.total);
        Some(format!("[{number}/{}]{failed} {}", self.now.total, running.join(", ")))
    }
}

/// `3s`, `1m02s`, `2h05m`.
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

    fn snapshot(merged: &[(&str, u64)], running: &[(&str, &str)]) -> Packages {
        let running = running
            .iter()
            .map(|(cpv, phase)| Task { cpv: (*cpv).to_owned(), phase: (*phase).to_owned(), binary: false })
            .collect();
        let merged: Vec<_> = merged
            .iter()
            .map(|(cpv, seconds)| Merged {
                cpv: (*cpv).to_owned(),
                binary: *cpv == "a/b-1",
                seconds: *seconds,
                target: if *cpv == "e/f-3" { Target::Builder } else { Target::Image },
            })
            .collect();
        Packages { completed: merged.len() as u64, failed: 0, total: 3, running, merged }
    }

    #[test]
    fn every_package_has_its_line_when_it_is_through() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tracker = Tracker::default();
        assert!(tracker.summary(start).is_none());
        assert!(tracker.update(&snapshot(&[], &[("a/b-1", "unpack"), ("c/d-2", "compile")]), at(0)).is_empty());
        assert_eq!(tracker.summary(at(62)).unwrap(), "[1/3] a/b-1 unpack (1m02s), c/d-2 compile (1m02s)");
        let one = [("a/b-1", 64)];
        assert_eq!(tracker.update(&snapshot(&one, &[("c/d-2", "compile")]), at(64)), ["[1/3] a/b-1 (1m04s, binary)"]);
        assert!(tracker.update(&snapshot(&one, &[]), at(65)).is_empty());
        // One that came and went between two looks, and the same package for another tree.
        let all = [one[0], ("e/f-3", 0), ("a/b-1", 2)];
        let last = tracker.update(&snapshot(&all, &[]), at(70));
        assert_eq!(last, ["[2/3] e/f-3 (0s, for the builder)", "[3/3] a/b-1 (2s, binary)"]);
        // The next emerge.
        assert!(tracker.update(&snapshot(&[], &[("g/h-4", "")]), at(80)).is_empty());
        assert_eq!(tracker.summary(at(81)).unwrap(), "[1/3] g/h-4 (1s)");
    }

    #[test]
    fn durations_are_short() {
        let text = [5, 60, 3599, 3600, 7500].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(text, ["5s", "1m00s", "59m59s", "1h00m", "2h05m"]);
    }
}
