//! quern-builder turns one TOML recipe into an operating-system image made of Gentoo packages: no daemon, no Docker, no root.

pub mod builder;
pub mod enter;
pub mod error;
pub mod pack;
pub mod pipeline;
pub mod portage;
pub mod process;
pub mod progress;
pub mod publish;
pub mod recipe;
pub mod rootfs;
pub mod source;
pub mod store;
pub mod strip;
mod sys;
pub mod ui;
pub mod unpack;
pub mod userns;
pub mod verify;
