//! Guarantees of the archive engine: reproducible bytes, exactly the content of the archive, no writes outside the tree, and an error
//! for every failed system call.

mod faults;
mod kernels;
mod mounted;
pub(crate) mod readers;
mod same;
mod scale;
mod space;
mod suites;
pub(crate) mod trace;
mod trees;
