//! `build`: a recipe → an image.

use std::path::PathBuf;

use super::RecipeArgs;

/// Build the image that a recipe describes
///
/// Downloads and verifies the stage3 unless the store has it, merges the recipe's packages with emerge, strips the result and writes
/// it to the outdir: NAME-YYYY-MM-DD.tar.gz with .sha256, .CONTENTS.gz and a .json that says where it came from, and an OCI layout
/// NAME-YYYY-MM-DD.oci if the recipe has an [oci] table. Nothing appears there before it is whole. Packages that were built before
/// come from the cache.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder build musl-python3.toml
  quern-builder build musl-python3.toml --outdir /srv/images --set emerge.jobs=4
  quern-builder build musl-python3.toml --dry-run
  SOURCE_DATE_EPOCH=1700000000 quern-builder build musl-python3.toml

A failed build prints which package failed in which phase and where its log is; the packages built before it stay in the cache.")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Where the results go [recipe: build.outdir]
    #[arg(short, long, value_name = "DIR")]
    pub outdir: Option<PathBuf>,
    /// Print what would be done: URLs, mounts, emerge commands, removals
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Ask no server: use what the store has, or fail
    #[arg(long)]
    pub offline: bool,
}
