//! emerge's snapshots → a line for every package that is through, and one for those that run. Pure.

use std::time::{Duration, Instant};

use super::text;
use crate::progress::{Packages, Task};

/// What was seen of the packages of one emerge.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    now: Packages,
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    cpv: String,
    since: Instant,
    binary: bool,
}

impl Tracker {
    /// Takes a snapshot; returns a line for every package that it shows to be through.
    pub(super) fn update(&mut self, snapshot: &Packages, at: Instant) -> Vec<String> {
        if snapshot.completed < self.now.completed || snapshot.total < self.now.completed {
            // Another emerge counts from the beginning.
            *self = Self::default();
        }
        for task in &snapshot.running {
            if !self.seen.iter().any(|seen| seen.cpv == task.cpv) {
                self.seen.push(Seen { cpv: task.cpv.clone(), since: at, binary: task.binary });
            }
        }
        let mut lines = Vec::new();
        for number in self.now.completed + 1..=snapshot.completed {
            // A package between two phases is not in the snapshot either, so the oldest of the missing ones is taken.
            let through = self.seen.iter().position(|seen| !snapshot.running.iter().any(|task| task.cpv == seen.cpv));
            let Some(index) = through else { break };
            let seen = self.seen.remove(index);
            let binary = if seen.binary { ", binary" } else { "" };
            let took = duration(at.saturating_duration_since(seen.since));
            lines.push(format!("[{number}/{}] {} ({took}{binary})", snapshot.total, text::line(&seen.cpv)));
        }
        self.now = snapshot.clone();
        lines
    }

    /// What runs now, `[3/12] dev-lang/python-3.11.2 compile (1m02s)`; none when nothing was seen.
    pub(super) fn summary(&self, at: Instant) -> Option<String> {
        if self.now.total == 0 {
            return None;
        }
        let show = |task: &Task| {
            let since = self.seen.iter().find(|seen| seen.cpv == task.cpv).map_or(at, |seen| seen.since);
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

    fn snapshot(completed: u64, running: &[(&str, &str)]) -> Packages {
        let running = running
            .iter()
            .map(|(cpv, phase)| Task { cpv: (*cpv).to_owned(), phase: (*phase).to_owned(), binary: *cpv == "a/b-1" })
            .collect();
        Packages { completed, failed: 0, total: 3, running }
    }

    #[test]
    fn every_package_has_its_line_when_it_is_through() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tracker = Tracker::default();
        assert!(tracker.summary(start).is_none());
        assert!(tracker.update(&snapshot(0, &[("a/b-1", "unpack"), ("c/d-2", "compile")]), at(0)).is_empty());
        assert_eq!(tracker.summary(at(62)).unwrap(), "[1/3] a/b-1 unpack (1m02s), c/d-2 compile (1m02s)");
        // Between two phases: gone, yet not through.
        assert!(tracker.update(&snapshot(0, &[("c/d-2", "compile")]), at(63)).is_empty());
        assert_eq!(tracker.update(&snapshot(1, &[("c/d-2", "compile")]), at(64)), ["[1/3] a/b-1 (1m04s, binary)"]);
        let last = tracker.update(&snapshot(3, &[]), at(70));
        assert_eq!(last, ["[2/3] c/d-2 (1m10s)"], "of the third nobody heard");
        // The next emerge.
        assert!(tracker.update(&snapshot(0, &[("e/f-3", "")]), at(80)).is_empty());
        assert_eq!(tracker.summary(at(81)).unwrap(), "[1/3] e/f-3 (1s)");
    }

    #[test]
    fn durations_are_short() {
        let text = [5, 60, 3599, 3600, 7500].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(text, ["5s", "1m00s", "59m59s", "1h00m", "2h05m"]);
    }
}
