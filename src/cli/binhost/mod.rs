//! The `binhost` commands: make a directory of binary packages for other machines, and serve it.

use clap::Subcommand;

use crate::base::error::Result;
use crate::ui::Terminal;

mod clean;
mod export;
mod serve;

/// Share binary packages with other machines
///
/// Other machines, with quern-builder or with Portage alone, install packages from a directory with an index. A recipe names such a
/// directory in `portage.binhost`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Export(export::Args),
    Serve(serve::Args),
    Clean(clean::Args),
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        match self.verb {
            Verb::Export(args) => args.run(ui),
            Verb::Serve(args) => args.run(ui),
            Verb::Clean(args) => args.run(ui),
        }
    }
}
