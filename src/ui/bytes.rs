//! The bar of a stage that handles bytes: share, rate and time left. Pure.

use std::time::{Duration, Instant};

use indicatif::BinaryBytes;

use super::packages::duration;

/// Width of the bar in characters.
const WIDTH: u64 = 10;

/// A rate is shown after this time; before, it is noise.
const SETTLE: Duration = Duration::from_millis(500);

/// The bytes of one stage.
#[derive(Debug)]
pub(super) struct Counter {
    done: u64,
    total: Option<u64>,
    /// Bytes done at the beginning, as in a resumed download, and the time. They do not count for the rate.
    first: (u64, Instant),
}

impl Counter {
    /// Starts counting at `done` bytes.
    pub(super) fn new(done: u64, at: Instant) -> Self {
        Self { done, total: None, first: (done, at) }
    }

    /// Sets the bytes done and the total.
    pub(super) fn update(&mut self, done: u64, total: Option<u64>) {
        (self.done, self.total) = (done, total);
    }

    /// Returns `[####------] 40% 12.5 MiB/s 3s`, or without a total `14.2 MiB 12.5 MiB/s`.
    pub(super) fn summary(&self, at: Instant) -> String {
        let elapsed = at.saturating_duration_since(self.first.1);
        let rate = (elapsed >= SETTLE).then(|| {
            let gained = self.done.saturating_sub(self.first.0) as f64;
            gained / elapsed.as_secs_f64()
        });
        let mut text = match self.total.filter(|total| *total > 0) {
            None => BinaryBytes(self.done).to_string(),
            Some(total) => {
                let share = |of: u64| (u128::from(self.done.min(total)) * u128::from(of) / u128::from(total)) as usize;
                let bar = share(WIDTH);
                format!("[{}{}] {:2}%", "#".repeat(bar), "-".repeat(WIDTH as usize - bar), share(100))
            }
        };
        if let Some(rate) = rate {
            text.push_str(&format!(" {}/s", BinaryBytes(rate as u64)));
            if let Some(total) = self.total.filter(|_| rate >= 1.0) {
                let left = total.saturating_sub(self.done) as f64 / rate;
                text.push_str(&format!(" {}", duration(Duration::from_secs(left as u64))));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_count_this_run_only() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // A resumed download: 40 of 100 MiB are done.
        let mut counter = Counter::new(40 << 20, start);
        counter.update(40 << 20, Some(100 << 20));
        assert_eq!(counter.summary(start), "[####------] 40%");
        counter.update(60 << 20, Some(100 << 20));
        assert_eq!(counter.summary(at(10)), "[######----] 60% 2.00 MiB/s 20s");
        counter.update(200 << 20, Some(100 << 20));
        assert_eq!(counter.summary(at(10)), "[##########] 100% 16.00 MiB/s 0s");
        counter.update(50 << 20, None);
        assert_eq!(counter.summary(at(10)), "50.00 MiB 1.00 MiB/s");
        counter.update(u64::MAX, Some(u64::MAX));
        assert!(counter.summary(at(1)).starts_with("[##########] 100%"));
        counter.update(0, Some(0));
        assert_eq!(counter.summary(at(0)), "0 B");
    }
}
