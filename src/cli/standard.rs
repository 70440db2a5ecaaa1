//! Standard input and output as files, for archives. What cannot be one is said before anything is done.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, BorrowedFd};

use crate::base::error::{Context, Error, Result};
use crate::os::sys;

/// Standard input, without a buffer between. A person at a terminal types no archive.
pub(super) fn input() -> Result<File> {
    if io::stdin().is_terminal() {
        return Err(Error::usage("an archive does not come from a terminal").with_hint("redirect standard input"));
    }
    duplicate(io::stdin().as_fd(), "standard input")
}

/// Standard output.
pub(super) fn output() -> Result<File> {
    duplicate(io::stdout().as_fd(), "standard output")
}

/// Standard output, for bytes that no terminal shows.
pub(super) fn archive() -> Result<File> {
    if io::stdout().is_terminal() {
        return Err(Error::usage("an archive is not for a terminal").with_hint("redirect standard output to a file"));
    }
    output()
}

fn duplicate(fd: BorrowedFd<'_>, name: &str) -> Result<File> {
    if sys::was_closed(fd) {
        return Err(Error::usage(format!("{name} is closed")).with_hint("redirect it"));
    }
    fd.try_clone_to_owned().map(File::from).system(|| format!("opening {name}"))
}
