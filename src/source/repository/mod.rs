//! Ebuild repositories. [`snapshot`] (with `squashfs` for images) and [`git`] find and fetch them, [`tree`] decides which archives may
//! become a tree. [`checkout`] and [`content`] describe directories of this machine.

pub mod checkout;
pub mod content;
pub mod git;
pub mod snapshot;
mod squashfs;
pub mod tree;
