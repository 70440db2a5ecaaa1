//! Standard input and output as files, for archives. Terminals and closed streams are refused before any work.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, BorrowedFd};

use crate::base::error::{Context, Error, Result};
use crate::os::sys;

/// Opens standard input without a buffer. A terminal is refused.
pub(super) fn input() -> Result<File> {
    if io::stdin().is_terminal() {
        return Err(Error::usage("standard input is a terminal, not an archive")
            .with_hint("redirect standard input from a file"));
    }
    duplicate(io::stdin().as_fd(), "standard input")
}

/// Opens standard output.
pub(super) fn output() -> Result<File> {
    duplicate(io::stdout().as_fd(), "standard output")
}

/// Opens standard output for an archive. A terminal is refused.
pub(super) fn archive() -> Result<File> {
    if io::stdout().is_terminal() {
        return Err(Error::usage("standard output is a terminal, which cannot show an archive")
            .with_hint("redirect standard output to a file"));
    }
    output()
}

fn duplicate(fd: BorrowedFd<'_>, name: &str) -> Result<File> {
    if sys::was_closed(fd) {
        return Err(Error::usage(format!("{name} is closed")).with_hint("redirect it to a file or a pipe"));
    }
    fd.try_clone_to_owned().map(File::from).system(|| format!("opening {name}"))
}
