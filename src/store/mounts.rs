//! Directories that steps keep from build to build, by the name of the cache.
//!
//! ```text
//! cache/mounts/NAME/N/       the content. 0 is that of all builds; a private cache has the first number that no other build uses
//! cache/mounts/NAME/N.lock   held while a step uses the content: exclusively, unless it is shared
//! ```

use std::io::ErrorKind;
use std::path::PathBuf;

use super::Store;
use super::lock::{self, Lock, Mode};
use crate::base::error::{Context, Error, Result};

/// Directory of the caches in the store.
pub(super) const DIRECTORY: &str = "cache/mounts";

/// The limit on builds that use one private cache at the same time.
const MAX_PRIVATE: usize = 1000;

/// A directory that a step may write to. It is not removed or used against its lock while this value exists.
#[derive(Debug)]
pub struct Kept {
    /// The directory.
    pub path: PathBuf,
    /// True if it was made just now.
    pub fresh: bool,
    _lock: Lock,
}

impl Store {
    /// Returns the directory of the cache `name`, a file name: that of all builds, locked with `mode`, or without a mode one that no
    /// other process uses. Calls `waiting` before it waits. The caller holds [`Store::use_caches`].
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be made or locked.
    pub fn kept(&self, name: &str, mode: Option<Mode>, waiting: impl FnOnce()) -> Result<Kept> {
        let top = self.root().join(DIRECTORY).join(name);
        let making = || format!("making the cache {name}");
        fs_err::create_dir_all(&top).system(making)?;
        let locked = |number: usize| top.join(format!("{number}.lock"));
        let (number, own) = match mode {
            Some(mode) => (0, lock::take(&locked(0), mode, waiting)?),
            None => {
                let mut free = (0..MAX_PRIVATE).filter_map(|number| {
                    let lock = lock::try_take(&locked(number), Mode::Exclusive).transpose()?;
                    Some(lock.map(|lock| (number, lock)))
                });
                free.next().unwrap_or_else(|| Err(Error::system(format!("{}: too many builds use it", making()))))?
            }
        };
        let path = top.join(number.to_string());
        let fresh = match fs_err::create_dir(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).system(making),
        };
        Ok(Kept { path, fresh, _lock: own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_cache_is_used_by_one_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = store.kept("c", None, || {}).unwrap();
        let second = store.kept("c", None, || {}).unwrap();
        assert!(first.fresh && second.fresh && first.path != second.path);
        drop(first);
        let shared = store.kept("c", Some(Mode::Shared), || {}).unwrap();
        assert!(!shared.fresh && shared.path.ends_with("c/0"));
        let beside = store.kept("c", Some(Mode::Shared), || panic!("it waits")).unwrap();
        assert_eq!(beside.path, shared.path);
        assert!(lock::try_take(&shared.path.with_extension("lock"), Mode::Exclusive).unwrap().is_none());
    }
}
