//! Several images of a tree at the same time, each in a process of its own. They share the store, whose locks keep two of them from
//! making the same layer.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use zeroize::Zeroizing;

use super::images::{self, Done, State};
use super::session::Session;
use crate::base::error::{Error, Result};
use crate::base::progress::Progress as _;
use crate::os::process::Exit;
use crate::os::process::Signals;
use crate::os::process::worker::{Said, Worker};
use crate::ui::record::{Part, Recorder};

/// The processes that build images.
pub(super) struct Processes<'a> {
    /// The greatest number of processes at the same time.
    pub(super) most: usize,
    /// The arguments of the process for the image of a session.
    pub(super) arguments: &'a dyn Fn(&Session) -> Vec<OsString>,
    /// The receiver of the events that the processes write to their standard output, and of their messages.
    pub(super) recorder: &'a Recorder<'a>,
    /// The environment.
    pub(super) env: Vec<(OsString, OsString)>,
    /// The answers to questions, for the standard input.
    pub(super) answers: Zeroizing<String>,
}

/// A process that builds an image.
struct Running {
    image: (String, PathBuf),
    worker: Worker,
    /// The lines of its standard output that are not events: the results and, at the end, the state.
    output: Vec<String>,
    events: Part,
    /// The number of its outputs that have ended.
    ended: u8,
}

impl Processes<'_> {
    /// Builds the images of `sessions`, each when those are done that it starts from or needs. A failure stops only the images that need
    /// the failed one. Returns the exit code: that of the first failure.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a process cannot be started,
    /// [`Kind::Killed`](crate::base::error::Kind::Killed) if a signal asked this program to stop.
    pub(super) fn build(&self, sessions: Vec<Session>) -> Result<i32> {
        // Among those that are ready, an image for which many others wait comes first: a long chain must not begin last.
        let mut others: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for path in sessions.iter().flat_map(|session| images::others(&session.job)) {
            *others.entry(path.to_owned()).or_default() += 1;
        }
        // For an image wait all those that wait for one that it stops, so it comes before that one.
        let mut waiting = sessions;
        waiting.sort_by_key(|session| Reverse(others.get(&session.origin).copied()));
        let (send, receive) = channel();
        let mut running: BTreeMap<usize, Running> = BTreeMap::new();
        let (mut done, mut started) = (Done::default(), 0);
        loop {
            let mut ready = Vec::new();
            for session in std::mem::take(&mut waiting) {
                if done.stops(&session.job) {
                    done.add((session.job.path.clone(), session.origin), State::Skipped);
                } else {
                    ready.push(session);
                }
            }
            for session in ready {
                let is_free = running.len() < self.most && Signals::interrupted().is_none();
                let others = images::others(&session.job);
                let is_ready = !waiting.iter().any(|one: &Session| others.contains(one.origin.as_path()))
                    && !running.values().any(|one| others.contains(one.image.1.as_path()));
                if is_free && is_ready {
                    running.insert(started, self.start(&session, started, &send)?);
                    started += 1;
                } else {
                    waiting.push(session);
                }
            }
            if running.is_empty() {
                break;
            }
            self.listen(&receive, &mut running, &mut done)?;
        }
        match Signals::interrupted() {
            Some(error) => Err(error),
            None => Ok(done.end(self.recorder.terminal())),
        }
    }

    fn start(&self, session: &Session, number: usize, send: &Sender<(usize, Said)>) -> Result<Running> {
        let send = send.clone();
        // The receiver lives as long as the worker.
        let said = move |said| _ = send.send((number, said));
        let worker = Worker::start(&(self.arguments)(session), self.env.clone(), &self.answers, said)?;
        let image = (session.job.path.clone(), session.origin.clone());
        Ok(Running { image, worker, output: Vec::new(), events: Part::default(), ended: 0 })
    }

    /// Waits for a line of one of the processes, or for its end.
    fn listen(
        &self,
        receive: &Receiver<(usize, Said)>,
        running: &mut BTreeMap<usize, Running>,
        done: &mut Done,
    ) -> Result<()> {
        let ui = self.recorder.terminal();
        let Ok((number, said)) = receive.recv() else { return Err(Error::system("the processes of images are gone")) };
        let Some(process) = running.get_mut(&number) else { return Ok(()) };
        match said {
            Said::Note(line) => ui.output(&format!("{}: {line}", process.image.0)),
            Said::Output(line) if self.recorder.adopt(&mut process.events, &line) => {}
            Said::Output(line) => process.output.push(line),
            Said::End => process.ended += 1,
        }
        if process.ended < 2 {
            return Ok(());
        }
        let Some(Running { image, worker, mut output, events, .. }) = running.remove(&number) else { return Ok(()) };
        let exit = worker.finish()?;
        self.recorder.part_ended(events, "the process that built the image ended before this action");
        let state =
            output.pop().and_then(|word| [State::Built, State::Cached].into_iter().find(|state| state.word() == word));
        match state {
            Some(state) if exit.success() => {
                output.iter().for_each(|path| ui.result(path));
                done.add(image, state);
            }
            // An image whose process was killed is not whole either. Other failures were told by the process.
            _ => {
                if let Exit::Signal(signal) = exit {
                    ui.warn(&format!("signal {signal} ended the process that built {}: build it again", image.0));
                }
                done.fail(image, if exit.success() { 1 } else { exit.code() });
            }
        }
        Ok(())
    }
}
