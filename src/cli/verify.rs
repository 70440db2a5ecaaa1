//! `verify`: judges the inputs of a recipe again.

use super::RecipeArgs;
use super::lock::LockArgs;
use super::session::{self, Session};
use crate::base::error::Result;
use crate::pipeline;
use crate::source::{ResolveOptions, Site};
use crate::ui::Terminal;

/// Verify the downloaded inputs of a recipe, and print their signers
///
/// The inputs are the stage3, the fetched repositories and the downloads of steps. Checks signed lists, digests and signatures against the
/// trusted certificates. Downloads missing files. Exits with 3 when a file is refused.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Ask no server: use what the store has, or fail
    #[arg(long)]
    pub offline: bool,
    /// Accept a signed list older than one seen before, for this run
    #[arg(long)]
    pub allow_rollback: bool,
    /// The lock file.
    #[command(flatten)]
    pub lock: LockArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        session::with(&self.recipe, &[], ui, |Session { job, store, .. }| {
            let locked = self.lock.entry(&self.recipe, job)?;
            let options =
                ResolveOptions { offline: self.offline, allow_rollback: self.allow_rollback, locked: locked.as_ref() };
            ui.plan(&pipeline::judge(job, &Site::new(store, options, ui))?.join("\n"));
            Ok(0)
        })
    }
}
