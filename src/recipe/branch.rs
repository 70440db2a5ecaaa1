//! Branches of git repositories as values of an axis. A room above reads them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::Error;

/// A reader of the branches of git repositories on this machine.
pub trait Branches: fmt::Debug {
    /// Returns the newest commit of the branch `name` of the repository in `directory`, with its tree.
    ///
    /// # Errors
    /// The reason why the branch cannot be used.
    fn tree(&self, directory: &Path, name: &str) -> Result<BranchTree, BranchFailure>;
}

/// The tree of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchTree {
    /// The id of the commit.
    pub commit: String,
    /// A directory with the files of the commit.
    pub path: PathBuf,
}

/// The reason why a branch cannot be used.
#[derive(Debug)]
pub enum BranchFailure {
    /// The directory is not a repository that can be read: the caption and the advice.
    Repository { why: String, help: String },
    /// The repository has no such branch, with advice about those that it has.
    Missing { help: String },
    /// The tree of the commit cannot be used.
    Tree(Error),
}
