//! The `oci` commands: check and unpack image layouts.

use clap::Subcommand;

use crate::base::error::Result;
use crate::ui::Terminal;

mod unpack;
mod validate;

/// Check and unpack OCI image layouts
///
/// The layout may come from any program.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Validate(validate::Args),
    Unpack(unpack::Args),
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        match self.verb {
            Verb::Validate(args) => args.run(ui),
            Verb::Unpack(args) => args.run(ui),
        }
    }
}
