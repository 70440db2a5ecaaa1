//! `completions`: a script for the shell, from the definition of the command line.

use std::io::Write as _;

use clap_complete::Shell;

use crate::base::error::Result;

/// Print a completion script for a shell
///
/// Bash: quern-builder completions bash > ~/.local/share/bash-completion/completions/quern-builder
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

impl Args {
    pub(super) fn run(self) -> Result<i32> {
        // Composed first: the generator panics where standard output is closed.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "quern-builder", &mut script);
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&script).and_then(|()| out.flush());
        Ok(0)
    }
}
