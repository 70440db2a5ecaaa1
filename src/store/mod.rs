//! The store: everything that is kept between builds, in one directory that only its owner may enter.
//!
//! ```text
//! blobs/     downloaded tarballs by the SHA-512 of their content
//! keys/      imported certificates by primary fingerprint
//! refs/      small JSON files by name, such as the content of a signed pointer and its date
//! trees/     unpacked stage3s and ebuild repositories by the digest of their tarball, downloads of steps; read-only
//! layers/    results of steps by the key of the step; read-only
//! builds/    a work directory for each recipe: changes, image and logs of its last build
//! cache/     shared by all builds: binary packages by their key, metadata of ebuilds, settings that Portage reported, distfiles,
//!            compressed chunks of archives, git repositories, and what steps keep
//! secret.key  random bytes, with which secrets are compared that are not stored
//! ```
//!
//! Everything appears under its final name only when it is complete. The next run removes what a killed run left. No file needs
//! cleaning by hand.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Error, Result};

pub mod blobs;
pub mod clean;
pub mod export;
pub mod import;
pub mod keys;
pub mod layers;
pub mod lock;
pub mod mounts;
pub mod packages;
pub mod refs;
mod seal;
pub mod trees;
pub mod work;

/// A store in one directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `home` and creates missing directories. Their mode is 0700: the trees contain old setuid programs that
    /// other users of the host must not run.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when a directory cannot be created.
    pub fn open(home: &Path) -> Result<Self> {
        let doing = || format!("opening the store {}", home.display());
        let make = |path: &Path| match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                let making = format!("creating {}", path.display());
                Err(Error::system(making).with_source(error).with_hint("set QUERN_HOME to use another directory"))
            }
            _ => Ok(()),
        };
        fs_err::create_dir_all(home.parent().unwrap_or(home)).system(doing)?;
        make(home)?;
        // Its owner could misdirect root with symlinks, and could not remove root's files.
        if fs_err::metadata(home).system(doing)?.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::system(format!("{}: it belongs to another user", doing()))
                .with_hint("run as its owner, or set QUERN_HOME to a directory of your own"));
        }
        ["blobs", "keys", "refs", "trees", "layers", "builds", "cache"]
            .iter()
            .try_for_each(|name| make(&home.join(name)))?;
        Ok(Self { root: home.to_owned() })
    }

    /// Returns the default directory of the store: `QUERN_HOME`; otherwise `/var/cache/quern` for root and `$XDG_CACHE_HOME/quern`
    /// for other users.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) when neither these variables nor `HOME` are set.
    pub fn default_home(var: impl Fn(&str) -> Option<std::ffi::OsString>, root: bool) -> Result<PathBuf> {
        let set = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = match set("QUERN_HOME") {
            Some(home) => home,
            None if root => PathBuf::from("/var/cache/quern"),
            None => match set("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
                Some(cache) => cache.join("quern"),
                None => set("HOME").map(|home| home.join(".cache/quern")).ok_or_else(|| {
                    Error::usage("the directory of the store is unknown").with_hint("set QUERN_HOME or HOME")
                })?,
            },
        };
        std::path::absolute(&home).system(|| format!("finding the store {}", home.display()))
    }

    /// Returns the directory for trees of git branches in the store at `home`, which may not exist.
    pub fn branches(home: &Path) -> PathBuf {
        home.join("cache/branches")
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a directory that all builds share (`binpkgs`, `distfiles`, …), and creates it if it is missing.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be created.
    pub fn cache(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join("cache").join(name);
        fs_err::create_dir_all(&path).system(|| format!("creating the cache {}", path.display()))?;
        Ok(path)
    }

    /// Returns the directory of compressed chunks of archives, which may not exist.
    pub fn pieces(&self) -> PathBuf {
        self.root.join("cache/pieces")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_the_directory() {
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
    fn other_users_cannot_enter_the_store() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(fs_err::metadata(store.root()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
