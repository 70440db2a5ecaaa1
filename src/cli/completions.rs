//! `completions`: completion scripts, generated from the definition of the command line.

use std::io::Write as _;

use clap_complete::Shell;

use crate::base::error::Result;

/// Print a completion script for a shell
///
/// The shell loads the script at its start from a directory of its own; see the examples.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder completions bash > ~/.local/share/bash-completion/completions/quern-builder
  quern-builder completions fish > ~/.config/fish/completions/quern-builder.fish")]
pub struct Args {
    /// Name of the shell
    shell: Shell,
}

impl Args {
    pub(super) fn run(self) -> Result<i32> {
        // The generator panics if it writes to a closed standard output, so it writes to memory.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "quern-builder", &mut script);
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&script).and_then(|()| out.flush());
        Ok(0)
    }
}
