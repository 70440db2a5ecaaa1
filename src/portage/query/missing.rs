//! The question which of some atoms no installed package matches.

/// The program. Its arguments are atoms and, after `--`, atoms of packages that may be missing; it prints those of the others that no
/// package in ROOT matches.
pub const PROGRAM: &str = include_str!("missing.py");
