//! The archive engine, held to its promises: the same bytes always, exactly what was in the archive, nothing outside the tree, and
//! an error that says so when the system refuses something.

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
