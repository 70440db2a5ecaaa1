//! The `volume` commands.

use std::path::PathBuf;

use clap::Subcommand;

use super::RecipeArgs;
use super::answers::AnswerArgs;
use super::session::{self, Session};
use crate::base::error::Result;
use crate::pipeline;
use crate::recipe::Secrets;
use crate::source::{ResolveOptions, Site};
use crate::ui::Terminal;

/// Copy the volumes of a recipe
///
/// A volume ([volume.NAME]) is a directory that steps share and that is kept with their results. No image contains it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Export(ExportArgs),
}

/// Copy the files of a volume into a new directory
///
/// The directory has the volume as the last build of the recipe left it, with owners, permissions and attributes. It appears when it is
/// complete. If an ordinary user runs this, files of root belong to that user, and those of other users to subordinate ids.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder volume export demo.toml entropy /srv/entropy")]
struct ExportArgs {
    /// The recipe
    #[arg(value_name = "RECIPE", value_parser = super::recipe_path())]
    file: PathBuf,
    /// The volume
    #[arg(value_name = "NAME")]
    volume: String,
    /// A directory that does not exist, or an empty one that is not a mount point
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Set a key of the recipe: portage.use='["ipv6"]'
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    set: Vec<String>,
    /// The answers to the questions of the recipe.
    #[command(flatten)]
    answers: AnswerArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let Verb::Export(args) = self.verb;
        let recipe = RecipeArgs {
            files: vec![args.file],
            set: args.set,
            answers: args.answers,
            secrets: Secrets::Leave,
            shared: false,
        };
        session::with(&recipe, &[], ui, |Session { job, origin, store }| {
            let at = Site::new(store, ResolveOptions { offline: true, ..ResolveOptions::default() }, ui);
            pipeline::export_volume(job, origin, &args.volume, &args.directory, &at)?;
            ui.result(&args.directory);
            Ok(0)
        })
    }
}
