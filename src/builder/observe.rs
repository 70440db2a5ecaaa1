//! Watching emerge: its output into a log and, bounded, into memory; its own account of its progress to the user.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;

use crate::base::error::{Context, Result};
use crate::base::progress::{Event, Packages, Progress};
use crate::enter::Observer;
use crate::portage::events::Watcher;
use crate::store::work::Work;

/// Lines of output kept for the failure report.
const TAIL: usize = 400;

/// The log of emerge's own output, in the work directory, out of the build's reach.
pub(super) const LOG: &str = "emerge.out";

/// Receives what emerge writes and looks at its snapshots.
pub(super) struct Emerge<'a> {
    ui: &'a dyn Progress,
    log: File,
    tail: VecDeque<Vec<u8>>,
    watcher: Watcher,
    last: Packages,
}

impl<'a> Emerge<'a> {
    pub(super) fn new(work: &Work, ui: &'a dyn Progress) -> Result<Self> {
        let path = work.part(LOG);
        let log = fs_err::OpenOptions::new().append(true).create(true).open(&path);
        let log = log.system(|| "opening the log of emerge's output")?.into_file();
        let watcher = Watcher::new(&work.part("run").join("portage"), &work.part("logs").join("emerge.log"));
        Ok(Self { ui, log, tail: VecDeque::new(), watcher, last: Packages::default() })
    }

    /// The last lines, oldest first.
    pub(super) fn tail(&self) -> Vec<u8> {
        self.tail.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect()
    }
}

impl Observer for Emerge<'_> {
    fn line(&mut self, line: &[u8]) {
        // A full disk must not stop emerge from telling why; the tail in memory still has it.
        self.log.write_all(line).and_then(|()| self.log.write_all(b"\n")).ok();
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_vec());
        self.ui.emit(Event::Output(&String::from_utf8_lossy(line)));
    }

    fn tick(&mut self) {
        if let Some(packages) = self.watcher.poll()
            && packages != self.last
        {
            self.ui.emit(Event::Packages(&packages));
            self.last = packages;
        }
    }
}
