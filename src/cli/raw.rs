//! `raw`: single parts of the program, for scripts and for other people's tests.

use clap::Subcommand;

use crate::error::Result;
use crate::ui::Terminal;

mod verify;

/// Single parts of the program, for scripts
///
/// They read no recipe, and say what they found as JSON on standard output and as exit code.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Verify(verify::Args),
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        match self.verb {
            Verb::Verify(args) => args.run(ui),
        }
    }
}
