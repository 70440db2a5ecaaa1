//! `raw`: single parts of the program, for scripts and for other people's tests.

use clap::Subcommand;

use crate::base::error::Result;
use crate::ui::Terminal;

mod ls;
mod pack;
mod stream;
mod unpack;
mod verify;
mod xzcat;

/// Single parts of the program, for scripts
///
/// They read no recipe, and say what they found on standard output and as exit code. Of the store, only the imported certificates are
/// read, by `verify`.
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
