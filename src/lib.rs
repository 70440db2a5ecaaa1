//! quern-builder turns one TOML recipe into an operating-system image made of Gentoo packages: no daemon, no Docker, no root.

pub mod error;
pub mod progress;
pub mod recipe;
pub mod source;
pub mod store;
pub mod verify;
