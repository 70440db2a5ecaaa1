//! What the stages tell of their work. The terminal is one implementation ([`crate::ui`]); [`Silent`] is another.

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A stage of the pipeline begins: a verb and its object (`unpacking stage3-….tar.xz`).
    Stage {
        /// What is done, in the present participle.
        what: &'a str,
    },
    /// Bytes of the present stage handled so far.
    Bytes {
        /// Bytes done.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// emerge's own account of its work.
    Packages(&'a Packages),
    /// A fact worth a line, in the normal verbosity.
    Note(&'a str),
    /// Something the user should look at; the work goes on.
    Warn(&'a str),
    /// A line of the output of a command inside the tree; shown with `-v`.
    Output(&'a str),
    /// The present stage is over.
    Done,
}

/// Where emerge stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    /// Packages merged so far.
    pub completed: u64,
    /// Packages that failed.
    pub failed: u64,
    /// Packages in all.
    pub total: u64,
    /// What runs now.
    pub running: Vec<Task>,
    /// What is through, in the order in which it came to its end.
    pub merged: Vec<Merged>,
}

/// A package that was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// `category/package-version`.
    pub cpv: String,
    /// Whether it came from a binary package.
    pub binary: bool,
    /// How long it took, in seconds.
    pub seconds: u64,
}

/// A package being worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// `category/package-version`.
    pub cpv: String,
    /// Portage's phase (`compile`, `install`, `merge`), or empty.
    pub phase: String,
    /// Whether it comes from a binary package.
    pub binary: bool,
}

/// Receives [`Event`]s; called from any thread.
pub trait Progress: Send + Sync {
    /// Takes one event. Must not block for long.
    fn emit(&self, event: Event<'_>);

    /// A stage begins.
    fn stage(&self, what: &str) {
        self.emit(Event::Stage { what });
    }

    /// The present stage is over.
    fn done(&self) {
        self.emit(Event::Done);
    }

    /// A fact worth a line.
    fn note(&self, text: &str) {
        self.emit(Event::Note(text));
    }

    /// Something the user should look at.
    fn warn(&self, text: &str) {
        self.emit(Event::Warn(text));
    }
}

/// Tells nobody.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn emit(&self, _event: Event<'_>) {}
}
