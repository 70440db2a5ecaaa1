//! `fetch`: a recipe's stage3 → the store.

use super::RecipeArgs;
use super::session::{self, Begun};
use crate::error::Result;
use crate::source::Terms;
use crate::ui::Terminal;
use crate::{source, verify};

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
        let session = match session::begin(&self.recipe, &[], ui)? {
            Begun::Here(session) => session,
            Begun::Done(code) => return Ok(code),
        };
        let terms = Terms { offline: false, allow_rollback: self.allow_rollback };
        let located = source::locate(&session.job, &session.store, terms, ui)?;
        let verified = verify::verify(source::fetch(&located, &session.store, ui)?)?;
        ui.result(session.store.blob_path(verified.sha512())?);
        Ok(0)
    }
}
