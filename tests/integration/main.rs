//! Integration tests: one binary, a module for each area. Tests that need a privilege are named `root_…` or `userns_…`.

// Tests start programs and prepare files with what is at hand.
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

mod architecture;
mod archives;
mod cli;
mod e2e;
mod env;
mod exact;
mod keys;
mod lock;
mod man;
mod names;
mod oci;
mod prose;
mod publish;
mod raw;
mod recipe;
mod resume;
mod sandbox;
mod source;
mod standard;
mod tls;
mod tripwire;
mod voice;
