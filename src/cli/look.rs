//! Arguments of the commands that look into a builder tree without a build and print what they find: `plan`, `explain`, `audit`.

use serde::Serialize;

use super::lock::LockArgs;
use crate::base::error::{Context as _, Kind, Result};
use crate::base::text;
use crate::lockfile::Locked;
use crate::source::{ResolveOptions, Site};
use crate::store::Store;
use crate::ui::Terminal;

#[derive(Debug, Clone, clap::Args)]
pub struct LookArgs {
    /// Print a JSON document
    #[arg(long)]
    pub json: bool,
    /// Use only files that the store has, and ask no binary package host
    #[arg(long)]
    pub offline: bool,
    /// The lock file.
    #[command(flatten)]
    pub lock: LockArgs,
}

impl LookArgs {
    /// Returns the surroundings of the command. `locked` are the inputs of the lock file, if it is to be used.
    pub(super) fn site<'a>(&self, store: &'a Store, locked: Option<&'a Locked>, ui: &'a Terminal) -> Site<'a> {
        Site::new(store, ResolveOptions { offline: self.offline, locked, ..ResolveOptions::default() }, ui)
    }

    /// Prints the answer: `document` as JSON if that was asked for, otherwise `text`.
    ///
    /// # Errors
    /// [`Kind::System`] if the document cannot be written.
    pub(super) fn print(&self, document: &impl Serialize, text: impl FnOnce() -> String, ui: &Terminal) -> Result<i32> {
        let shown = match self.json {
            true => text::json(document).context(Kind::System, || "writing the document")?,
            false => text(),
        };
        ui.plan(&shown);
        Ok(0)
    }
}
