//! Integration tests: one binary, with a module for each area. The names of tests that need a privilege begin with `root_` or `userns_`.

// Tests start programs and prepare files directly.
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

mod architecture;
mod archives;
mod cli;
mod e2e;
mod env;
mod exact;
mod keys;
mod layers;
mod lock;
mod man;
mod names;
mod oci;
mod overlay;
mod prose;
mod publish;
mod raw;
mod recipe;
mod registry;
mod resume;
mod sandbox;
mod source;
mod stages;
mod standard;
mod strict;
mod tls;
mod tripwire;
mod voice;
