//! The store: what is kept between builds, below one directory that only its owner may enter.
//!
//! ```text
//! blobs/     downloaded tarballs, by the SHA-512 of their content
//! keys/      certificates that the user imported, by primary fingerprint
//! refs/      small facts with a name: what a signed pointer said, and when
//! trees/     unpacked stage3s and ebuild repositories, by the digest of their tarball; read-only once there
//! builds/    a work directory for each recipe: the last build's changes, image and logs
//! cache/     what all builds share: binary packages, distfiles, compressed pieces of archives, and the git repositories that commits
//!            are fetched into
//! ```
//!
//! Everything appears under its final name only when it is whole; what a killed run leaves behind is found by the next one
//! under its lock and removed. No file here needs cleaning by hand.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Error, Result};

pub mod blobs;
pub mod clean;
pub mod export;
pub mod import;
pub mod keys;
pub mod lock;
pub mod refs;
pub mod trees;
pub mod work;

/// The store below one directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `home`, making what is missing. Mode 0700: the trees hold setuid programs of any age, which other
    /// users of the host must not reach.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when a directory cannot be made.
    pub fn open(home: &Path) -> Result<Self> {
        let doing = || format!("opening the store {}", home.display());
        let make = |path: &Path| match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                let making = format!("making {}", path.display());
                Err(Error::system(making).with_source(error).with_hint("QUERN_HOME moves the store elsewhere"))
            }
            _ => Ok(()),
        };
        fs_err::create_dir_all(home.parent().unwrap_or(home)).system(doing)?;
        make(home)?;
        // Whoever owns it could lead root astray with links, and would find files there that he cannot remove.
        if fs_err::metadata(home).system(doing)?.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::system(format!("{}: it belongs to somebody else", doing()))
                .with_hint("run as its owner, or set QUERN_HOME to a directory of your own"));
        }
        ["blobs", "keys", "refs", "trees", "builds", "cache"].iter().try_for_each(|name| make(&home.join(name)))?;
        Ok(Self { root: home.to_owned() })
    }

    /// Where the store is by default: `QUERN_HOME`; else `/var/cache/quern` for root and `$XDG_CACHE_HOME/quern` for others.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) when neither variable nor `HOME` tells.
    pub fn default_home(var: impl Fn(&str) -> Option<std::ffi::OsString>, root: bool) -> Result<PathBuf> {
        let set = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = match set("QUERN_HOME") {
            Some(home) => home,
            None if root => PathBuf::from("/var/cache/quern"),
            None => match set("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
                Some(cache) => cache.join("quern"),
                None => set("HOME").map(|home| home.join(".cache/quern")).ok_or_else(|| {
                    Error::usage("nothing says where the store is").with_hint("set QUERN_HOME or HOME")
                })?,
            },
        };
        std::path::absolute(&home).system(|| format!("finding the store {}", home.display()))
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory shared by all builds (`binpkgs`, `distfiles`, …), made when missing.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be made.
    pub fn cache(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join("cache").join(name);
        fs_err::create_dir_all(&path).system(|| format!("making the cache {}", path.display()))?;
        Ok(path)
    }

    /// Where compressed pieces of archives are kept. Whoever uses it makes it.
    pub fn pieces(&self) -> PathBuf {
        self.root.join("cache/pieces")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_follows_the_environment() {
        let home = |vars: &[(&str, &str)], root| {
            let vars: std::collections::BTreeMap<String, String> =
                vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            Store::default_home(|name| vars.get(name).map(Into::into), root).ok()
        };
        assert_eq!(home(&[("QUERN_HOME", "/q"), ("HOME", "/h")], true), Some("/q".into()));
        assert_eq!(home(&[("HOME", "/root")], true), Some("/var/cache/quern".into()));
        assert_eq!(home(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], false), Some("/x/quern".into()));
        assert_eq!(home(&[("HOME", "/h")], false), Some("/h/.cache/quern".into()));
        assert_eq!(home(&[], false), None);
    }

    #[test]
    fn nobody_else_enters() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(fs_err::metadata(store.root()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
