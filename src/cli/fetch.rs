//! `fetch`: a recipe's stage3 → the store.

use super::RecipeArgs;
use super::session::{self, Session};
use crate::error::Result;
use crate::pipeline;
use crate::source::Terms;
use crate::ui::Terminal;

/// Download and verify the stage3 of a recipe, and build nothing
///
/// An interrupted download goes on where it stopped. Prints the path of the tarball in the store.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Accept a signed list older than one seen before, this once
    #[arg(long)]
    pub allow_rollback: bool,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let terms = Terms { offline: false, allow_rollback: self.allow_rollback };
        session::with(&self.recipe, &[], ui, |Session { job, store, .. }| {
            let (_, verified) = pipeline::verified(job, store, terms, ui)?;
            ui.result(store.blob_path(verified.sha512())?);
            Ok(0)
        })
    }
}
