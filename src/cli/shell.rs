//! `shell`: a command where an image is built, or in the image.

use std::ffi::OsString;

use super::RecipeArgs;

/// Run a shell or a command in the tree that a recipe's image is built in
///
/// Enters the builder tree (the stage3 with what the last build of the recipe added) with the same mounts, caches and Portage
/// configuration as a build; with --image the image tree instead. Changes in the builder tree last until the next build. Exits with
/// the code of the command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder shell demo.toml
  quern-builder shell demo.toml -- emerge --pretend --verbose @profile
  quern-builder shell --image demo.toml -- /usr/bin/python3 --version")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Enter the image tree that the last build made
    #[arg(long)]
    pub image: bool,
    /// Ask no server: use what the store has, or fail
    #[arg(long)]
    pub offline: bool,
    /// The command; without one, a login shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
