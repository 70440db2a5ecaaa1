//! `raw`: commands that run single parts of the program, for scripts and test suites.

use clap::Subcommand;

use crate::base::error::Result;
use crate::ui::Terminal;

mod ls;
mod pack;
mod stream;
mod unpack;
mod verify;
mod xzcat;

/// Run single parts of the program, for scripts
///
/// These commands do not read recipes. They report on standard output and with their exit code. Only `verify` reads the store: the
/// imported certificates.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Unpack(unpack::Args),
    Pack(pack::Args),
    Ls(ls::Args),
    Xzcat(xzcat::Args),
    Verify(verify::Args),
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        match self.verb {
            Verb::Unpack(args) => args.run(ui),
            Verb::Pack(args) => args.run(ui),
            Verb::Ls(args) => args.run(ui),
            Verb::Xzcat(args) => args.run(),
            Verb::Verify(args) => args.run(ui),
        }
    }
}
