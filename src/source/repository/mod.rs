//! Ebuild repositories. [`snapshot`] (with `squashfs` for images) and [`git`] find and fetch them, [`tree`] decides which archives may
//! become a tree. [`checkout`] and [`content`] describe directories of this machine. [`meta_repo`] lists the kits of a Funtoo release.

pub mod checkout;
pub mod content;
pub mod git;
pub mod meta_repo;
pub mod snapshot;
mod squashfs;
pub mod tree;
