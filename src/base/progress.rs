//! Progress events. The stages emit them; the terminal and [`Silent`] receive them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// An event of a running build.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A stage of the pipeline begins: a verb and its object (`unpacking stage3-….tar.xz`).
    Stage {
        /// The work, in the present participle.
        what: &'a str,
    },
    /// Bytes that the current stage has handled so far.
    Bytes {
        /// Bytes done.
        done: u64,
        /// All bytes, if known.
        total: Option<u64>,
    },
    /// The state of a running emerge.
    Packages(&'a Packages),
    /// A fact worth a line at normal verbosity.
    Note(&'a str),
    /// A problem that does not stop the work.
    Warn(&'a str),
    /// A line of the output of a command inside the tree; shown with `-v`.
    Output(&'a str),
    /// The current stage has ended.
    Done,
    /// The current stage has failed.
    Failed,
    /// An action of the build begins, in the one that began last and has not ended.
    Begin(Action<'a>),
    /// The step that began runs, because the store does not have its result.
    Runs {
        /// The reason.
        why: &'a str,
        /// Its variables.
        variables: &'a BTreeMap<String, String>,
    },
    /// The action that began last has ended. An error of the build ends all actions.
    End {
        outcome: Outcome<'a>,
        /// The file with the output of the step, perhaps compressed.
        log: Option<&'a Path>,
    },
}

/// An action of a build.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Portage's configuration is written.
    Configure,
    /// A step is looked for in the store, and perhaps runs.
    Step {
        name: &'a str,
        /// Its key, in hexadecimal digits; `None` for a step that the recipe leaves out.
        key: Option<&'a str>,
    },
    /// The results are packed and written to the outdir.
    Publish,
}

/// The outcome of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// An action that is not a step succeeded.
    Done,
    /// The store had the result of the step.
    Cached,
    /// The step ran.
    Run,
    /// Another build made the result of the step while this one waited.
    Waited,
    /// The recipe leaves the step out.
    Skipped,
    /// The step failed, for this reason.
    Failed(&'a str),
}

impl Outcome<'_> {
    /// Returns the word for the outcome of a step.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Done => None,
            Self::Cached => Some("cached"),
            Self::Run => Some("run"),
            Self::Waited => Some("waited"),
            Self::Skipped => Some("skipped"),
            Self::Failed(_) => Some("failed"),
        }
    }
}

/// Packages of one emerge command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    /// Packages merged so far.
    pub completed: u64,
    /// Packages that failed.
    pub failed: u64,
    /// All packages of the command.
    pub total: u64,
    /// Packages being worked on.
    pub running: Vec<Task>,
    /// Merged packages, in the order in which they ended.
    pub merged: Vec<Merged>,
}

/// A package that was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// `category/package-version`.
    pub cpv: String,
    /// True for a binary package, false for one built from source.
    pub binary: bool,
    /// Duration in seconds.
    pub seconds: u64,
    /// The tree that it was merged into.
    pub target: Target,
}

/// A tree that packages are merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The tree that the image is built in.
    Builder,
    /// The image.
    Image,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Builder => "builder",
            Self::Image => "image",
        })
    }
}

/// A package being worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// `category/package-version`.
    pub cpv: String,
    /// Portage's phase (`compile`, `install`, `merge`), or empty.
    pub phase: String,
    /// True for a binary package.
    pub binary: bool,
    /// The tree that it will be merged into.
    pub target: Target,
}

/// Receives [`Event`]s; called from any thread.
pub trait Progress: Send + Sync {
    /// Takes one event. Must not block for long.
    fn emit(&self, event: Event<'_>);

    /// Emits [`Event::Stage`].
    fn stage(&self, what: &str) {
        self.emit(Event::Stage { what });
    }

    /// Emits [`Event::Done`].
    fn done(&self) {
        self.emit(Event::Done);
    }

    /// Emits [`Event::End`].
    fn end(&self, outcome: Outcome<'_>, log: Option<&Path>) {
        self.emit(Event::End { outcome, log });
    }

    /// Emits [`Event::Note`].
    fn note(&self, text: &str) {
        self.emit(Event::Note(text));
    }

    /// Emits [`Event::Warn`].
    fn warn(&self, text: &str) {
        self.emit(Event::Warn(text));
    }
}

/// Passes events on and keeps the warnings.
pub struct Warnings<'a> {
    to: &'a dyn Progress,
    kept: Mutex<Vec<String>>,
}

impl<'a> Warnings<'a> {
    /// Passes events to `to`.
    pub fn of(to: &'a dyn Progress) -> Self {
        Self { to, kept: Mutex::default() }
    }

    /// Returns the warnings, in order.
    pub fn kept(self) -> Vec<String> {
        self.kept.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Warnings<'_> {
    fn emit(&self, event: Event<'_>) {
        if let Event::Warn(warning) = event {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(warning.to_owned());
        }
        self.to.emit(event);
    }
}

/// Drops every event.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn emit(&self, _event: Event<'_>) {}
}
