//! The kernel's interfaces: system calls (the only `unsafe`), child processes, user namespaces, free space.

pub mod process;
pub mod space;
pub(crate) mod sys;
pub mod userns;
