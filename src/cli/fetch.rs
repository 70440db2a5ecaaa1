//! `fetch`: a recipe's stage3 → the store.

use super::RecipeArgs;

/// Download and verify the stage3 of a recipe, and build nothing
///
/// An interrupted download goes on where it stopped. Prints the path of the tarball in the store.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
}
