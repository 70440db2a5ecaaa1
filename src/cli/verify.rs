//! `verify`: the stage3 of a recipe, judged again.

use super::RecipeArgs;

/// Verify the stage3 of a recipe and say who signed it
///
/// Checks the pointer that names it, the digests and the signature of the tarball against the pinned keys, downloading what is
/// missing. Exits with 3 when anything is refused.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Ask no server: use what the store has, or fail
    #[arg(long)]
    pub offline: bool,
}
