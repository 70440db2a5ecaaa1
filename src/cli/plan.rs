//! `plan`: lists the packages that a build would merge.

use super::RecipeArgs;
use super::look::LookArgs;
use super::session::{self, Session};
use crate::base::error::Result;
use crate::pipeline;
use crate::recipe::Secrets;
use crate::ui::Terminal;

/// List the packages that a build would merge
///
/// Runs the stage3's emerge with the recipe's configuration, and merges nothing. Each package has its version, slot, repository, USE
/// flags and the size of the files to fetch. A package is built from source or reused as a binary package; for each that is built, a
/// line names the reason, such as USE flags in which the binary package differs. Inputs that the store lacks are downloaded and verified.
/// All steps of the build are resolved together, as though the image were still empty or, if it starts from another one, on the layers of
/// that one. If the store lacks these layers, a warning says so, and the packages of that image are left out of account.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder plan demo.toml
  quern-builder plan demo.toml --set emerge.packages='[\"dev-lang/python\"]'
  quern-builder plan demo.toml --json | jq '.packages[] | select(.from == \"source\") | .package'

The JSON document has Portage's own names of USE flags, such as python_targets_python3_13; the table groups them by their variables:
PYTHON_TARGETS=\"python3_13\". `why` is a sentence for people.

If emerge refuses the packages, the error is that of `build`.")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The form of the answer, and the inputs.
    #[command(flatten)]
    pub look: LookArgs,
}

impl Args {
    pub(super) fn run(mut self, ui: &Terminal) -> Result<i32> {
        // The layers of the image that this one starts from may depend on secrets.
        self.recipe.secrets = Secrets::Known { run: false };
        session::with(&self.recipe, &[], ui, |Session { job, origin, store }| {
            let locked = self.look.lock.entry(&self.recipe, job)?;
            let packages = pipeline::packages(job, origin, &self.look.site(store, locked.as_ref(), ui))?;
            self.look.print(&packages.document(), || packages.to_string(), ui)
        })
    }
}
