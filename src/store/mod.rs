//! The store: what is kept between builds, below one directory.

use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

pub mod blobs;
pub mod refs;

/// The store below one directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `home`, making the directory where it is missing.
    pub fn open(home: &Path) -> Result<Self> {
        fs_err::create_dir_all(home).system(|| format!("making the store {}", home.display()))?;
        Ok(Self { root: home.to_owned() })
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
