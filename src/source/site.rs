//! The store, the options and the surroundings of a run.

use crate::base::progress::Progress;
use crate::base::time::{SourceDate, now};
use crate::lockfile::Locked;
use crate::os::probe;
use crate::store::Store;

/// Restrictions on the search for inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResolveOptions<'a> {
    /// Ask no server and use only what the store has.
    pub offline: bool,
    /// Accept a signed list that is older than one seen before.
    pub allow_rollback: bool,
    /// Use exactly these inputs, and ask for no list.
    pub locked: Option<&'a Locked>,
}

/// Everything that a run needs beside its recipe.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The store.
    pub store: &'a Store,
    /// Restrictions on the search for inputs.
    pub options: ResolveOptions<'a>,
    /// The receiver of progress and warnings.
    pub ui: &'a dyn Progress,
    /// Number of processors that may be used.
    pub cpus: u32,
    /// The date that results carry.
    pub date: SourceDate,
}

impl<'a> Site<'a> {
    /// Uses all processors of this probe, and dates results now.
    pub fn new(store: &'a Store, options: ResolveOptions<'a>, ui: &'a dyn Progress) -> Self {
        let cpus = u32::try_from(probe::processors()).unwrap_or(u32::MAX);
        Self { store, options, ui, cpus, date: SourceDate::new(now()) }
    }
}
