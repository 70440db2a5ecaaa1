//! The question which of some atoms no installed package matches.

/// The program. Its arguments are atoms; it prints those that no package in ROOT matches.
pub const PROGRAM: &str = include_str!("missing.py");
