//! The kernel's interfaces: system calls (the only `unsafe`), child processes, user namespaces, facts about the machine, free space.

pub mod probe;
pub mod process;
pub mod space;
pub(crate) mod sys;
pub mod userns;
