//! `explain`: says why packages are built although there are binary packages.

use serde::Serialize;

use super::RecipeArgs;
use super::lock::LockArgs;
use super::session::{self, Session};
use crate::base::error::{Context as _, Kind, Result};
use crate::base::text;
use crate::pipeline;
use crate::plan::misses::Miss;
use crate::source::{ResolveOptions, Site};
use crate::ui::Terminal;

/// Explain why packages are built although there are binary packages
///
/// For each package that a build would compile, prints the wanted USE flags, CHOST and compiler flags, those of the nearest binary
/// package, and the differences. The compiler flags of a binary package are read from the package itself. With `emerge.binary-only`,
/// the packages that only other packages need while they are compiled are left out. Merges nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder explain demo.toml
  quern-builder explain demo.toml dev-lang/python
  quern-builder explain demo.toml --json | jq '.misses[].differences'")]
pub struct Args {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    pub file: std::path::PathBuf,
    /// Packages to explain, with their dependencies [default: those of the recipe]
    #[arg(value_name = "ATOM")]
    pub atoms: Vec<String>,
    /// Set a key of the recipe: portage.use='["ipv6"]'
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub set: Vec<String>,
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

#[derive(Serialize)]
struct Document<T> {
    version: u32,
    misses: Vec<T>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let recipe = RecipeArgs { files: vec![self.file.clone()], set: self.set.clone() };
        session::with(&recipe, &[], ui, |Session { job, origin, store }| {
            let locked = self.lock.entry(&recipe, job)?;
            let options =
                ResolveOptions { offline: self.offline, locked: locked.as_ref(), ..ResolveOptions::default() };
            let misses = pipeline::explain(job, origin, &self.atoms, &Site::new(store, options, ui))?;
            let shown = if self.json {
                let document = Document { version: 1, misses: misses.iter().map(Miss::document).collect() };
                text::json(&document).context(Kind::System, || "writing the document")?
            } else if misses.is_empty() {
                "every package is there as a binary package".to_owned()
            } else {
                misses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            };
            ui.plan(&shown);
            Ok(0)
        })
    }
}
