//! quern-builder turns one TOML recipe into an operating-system image made of Gentoo packages: no daemon, no Docker, no root.

pub mod enter;
pub mod error;
pub mod process;
pub mod progress;
pub mod recipe;
mod sys;
pub mod userns;
