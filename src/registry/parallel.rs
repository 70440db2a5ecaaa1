//! Several blobs at a time, in threads, with the progress of all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::upload::Stop;
use crate::base::progress::{Event, Progress};

/// Time between two reports of progress.
const TICK: Duration = Duration::from_millis(200);

/// A blob to transfer.
pub(super) struct Transfer<T> {
    pub(super) what: T,
    /// Bytes of it.
    pub(super) size: u64,
    /// Bytes that are transferred.
    pub(super) done: Arc<AtomicU64>,
}

impl<T> Transfer<T> {
    pub(super) fn new(what: T, size: u64) -> Self {
        Self { what, size, done: Arc::default() }
    }
}

/// Runs `work` for each transfer, `jobs` at the same time, and returns the results in any order. After a failure, no other transfer begins.
///
/// # Errors
/// The first failure.
pub(super) fn run<T: Send, R: Send>(
    transfers: Vec<Transfer<T>>,
    jobs: usize,
    ui: &dyn Progress,
    work: impl Fn(Transfer<T>) -> Result<R, Stop> + Sync,
) -> Result<Vec<R>, Stop> {
    let total = transfers.iter().fold(0, |sum: u64, transfer| sum.saturating_add(transfer.size));
    let counters: Vec<(Arc<AtomicU64>, u64)> =
        transfers.iter().map(|transfer| (Arc::clone(&transfer.done), transfer.size)).collect();
    let report = || {
        let done = counters.iter().map(|(done, size)| done.load(Ordering::Relaxed).min(*size)).sum();
        ui.emit(Event::Bytes { done, total: Some(total) });
    };
    let threads = jobs.clamp(1, transfers.len().max(1));
    let queue = Mutex::new(VecDeque::from(transfers));
    let failed = AtomicBool::new(false);
    let (sender, results) = channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, queue, failed, work) = (sender.clone(), &queue, &failed, &work);
            scope.spawn(move || {
                while !failed.load(Ordering::Relaxed) {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(transfer) = next else { break };
                    let (size, done) = (transfer.size, Arc::clone(&transfer.done));
                    let result = work(transfer);
                    match &result {
                        Ok(_) => done.store(size, Ordering::Relaxed),
                        Err(_) => failed.store(true, Ordering::Relaxed),
                    }
                    let _ = sender.send(result);
                }
            });
        }
        drop(sender);
        let (mut good, mut first) = (Vec::new(), None);
        loop {
            match results.recv_timeout(TICK) {
                Ok(Ok(result)) => good.push(result),
                Ok(Err(stop)) => first = first.or(Some(stop)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            report();
        }
        first.map_or(Ok(good), Err)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Error;
    use crate::base::progress::Silent;

    fn transfers(sizes: &[u64]) -> Vec<Transfer<u64>> {
        sizes.iter().map(|size| Transfer::new(*size, *size)).collect()
    }

    #[test]
    fn every_transfer_runs_once_and_progress_ends_with_the_total() {
        #[derive(Default)]
        struct Last(Mutex<(u64, Option<u64>)>);
        impl Progress for Last {
            fn emit(&self, event: Event<'_>) {
                if let Event::Bytes { done, total } = event {
                    *self.0.lock().unwrap() = (done, total);
                }
            }
        }
        let last = Last::default();
        let mut sizes = run(transfers(&[3, 1, 2, 0]), 3, &last, |transfer| Ok(transfer.what)).unwrap();
        sizes.sort_unstable();
        assert_eq!(sizes, [0, 1, 2, 3]);
        assert_eq!(last.0.into_inner().unwrap(), (6, Some(6)));
        assert!(run(transfers(&[]), 4, &Silent, |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn nothing_begins_after_a_failure() {
        let begun = AtomicU64::new(0);
        let stop = run(transfers(&[1; 50]), 1, &Silent, |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Stop::Local(Error::refused("x")))
        });
        assert!(matches!(stop, Err(Stop::Local(_))) && begun.into_inner() == 1);
    }
}
