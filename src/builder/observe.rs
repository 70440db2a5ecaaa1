//! Observes emerge: writes its output to a file, keeps the last lines in memory, and reports its progress.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;

use super::daemons::Daemons;
use super::layer::open_log;
use crate::base::error::Result;
use crate::base::progress::{Event, Packages, Progress, Target};
use crate::base::text::plain;
use crate::enter::{DaemonFailure, Fate, Left, Observer};
use crate::portage::events::Watcher;
use crate::portage::{failure, left};
use crate::store::work::WorkPaths;

/// The number of lines of output that are kept for the failure report.
const TAIL: usize = 2_000;

/// The number of characters of a line that are looked at.
const WIDTH: usize = 200;

/// The observer of one emerge command.
pub(super) struct Emerge<'a> {
    ui: &'a dyn Progress,
    /// The output of all emerge commands of the build, and that of this one.
    logs: [File; 2],
    tail: VecDeque<Vec<u8>>,
    /// True if emerge has resolved all dependencies.
    began: bool,
    watcher: Watcher,
    last: Packages,
    /// True if it did not end in time.
    pub(super) timed_out: bool,
    /// True if the builder tree is the image.
    in_place: bool,
    pub(super) daemons: Daemons<'a>,
}

impl<'a> Emerge<'a> {
    pub(super) fn new(work: &WorkPaths, in_place: bool, daemons: Daemons<'a>, ui: &'a dyn Progress) -> Result<Self> {
        let logs = [open_log(&work.emerge_output())?, open_log(&work.log())?];
        let watcher = Watcher::new(&work.run().join("portage"), &work.logs().join("emerge.log"));
        Ok(Self {
            ui,
            logs,
            tail: VecDeque::new(),
            began: false,
            watcher,
            last: Packages::default(),
            timed_out: false,
            in_place,
            daemons,
        })
    }

    /// Returns true if emerge began to merge packages: it has not refused to.
    pub(super) fn began_to_merge(&self) -> bool {
        self.began
    }

    /// The last lines, oldest first.
    pub(super) fn tail(&self) -> Vec<u8> {
        self.tail.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect()
    }
}

impl Observer for Emerge<'_> {
    fn line(&mut self, line: &[u8]) {
        // On a full disk the lines in memory still tell why emerge failed.
        for log in &mut self.logs {
            log.write_all(line).and_then(|()| log.write_all(b"\n")).ok();
        }
        let text = String::from_utf8_lossy(line);
        self.ui.emit(Event::Output(&text));
        let text = plain(&text, WIDTH);
        self.began |= failure::begins_to_merge(&text);
        if failure::is_chatter(&text) {
            return;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_vec());
    }

    fn left(&mut self, process: &Left) {
        match left::sentence(&process.command, &process.variables, process.fate) {
            Some(sentence) if process.fate == Fate::Awaited => self.ui.note(&sentence),
            Some(sentence) => self.ui.warn(&sentence),
            None => {}
        }
    }

    fn timed_out(&mut self) {
        self.timed_out = true;
    }

    fn daemon(&mut self, index: usize, bytes: &[u8]) {
        self.daemons.take(index, bytes);
    }

    fn daemon_failed(&mut self, failure: DaemonFailure) {
        self.daemons.fail(failure);
    }

    fn tick(&mut self) {
        if let Some(mut packages) = self.watcher.poll() {
            if self.in_place {
                packages.merged.iter_mut().for_each(|merged| merged.target = Target::Image);
                packages.running.iter_mut().for_each(|task| task.target = Target::Image);
            }
            if packages == self.last {
                return;
            }
            self.ui.emit(Event::Packages(&packages));
            self.last = packages;
        }
    }
}
