//! The `oci` commands: check, unpack, archive and join image layouts.

use clap::Subcommand;

use crate::base::error::Result;
use crate::ui::Terminal;

mod archive;
mod index;
mod unpack;
mod validate;

/// Check, unpack, archive and join OCI image layouts
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
    Archive(archive::Args),
    Index(index::Args),
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        match self.verb {
            Verb::Validate(args) => args.run(ui),
            Verb::Unpack(args) => args.run(ui),
            Verb::Archive(args) => args.run(ui),
            Verb::Index(args) => args.run(ui),
        }
    }
}
