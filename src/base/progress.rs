//! Progress events. The stages emit them; the terminal and [`Silent`] receive them.

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

    /// Emits [`Event::Note`].
    fn note(&self, text: &str) {
        self.emit(Event::Note(text));
    }

    /// Emits [`Event::Warn`].
    fn warn(&self, text: &str) {
        self.emit(Event::Warn(text));
    }
}

/// Drops every event.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn emit(&self, _event: Event<'_>) {}
}
