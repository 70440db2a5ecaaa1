//! `audit`: lists the security advisories that affect an image.

use super::RecipeArgs;
use super::look::LookArgs;
use super::session::{self, Session};
use crate::base::error::Result;
use crate::pipeline;
use crate::recipe::Secrets;
use crate::ui::Terminal;

/// List the security advisories that affect an image
///
/// Compares the packages of the image with the Gentoo Linux Security Advisories in the directory metadata/glsa of the repositories. Names
/// each advisory, its severity, the affected packages and the versions that are not affected. The packages are those of the last build,
/// if it succeeded and the image has Portage's records; otherwise those that a build would merge. The exit code is 0 also if packages are
/// affected; `build --deny glsa` fails then.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder audit demo.toml
  quern-builder audit demo.toml --planned --json
  quern-builder build demo.toml --deny glsa")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Look at the packages that a build would merge
    #[arg(long)]
    pub planned: bool,
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
            let audit = pipeline::audit(job, origin, self.planned, &self.look.site(store, locked.as_ref(), ui))?;
            self.look.print(&audit, || audit.to_string(), ui)
        })
    }
}
