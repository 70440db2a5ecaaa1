//! Refs: small JSON files by kind and name (`refs/<kind>/<name>.json`), which are replaced as a whole.

use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use crate::base::error::{Context, Error, Result};
use crate::fs::atomic;

/// Longest ref that is read, in bytes. Real ones have a few hundred.
const MAX: u64 = 64 * 1024;

impl Store {
    /// Reads a ref. Returns `None` if it is missing or has another form: another version may have written it, and its content can
    /// always be determined again.
    pub fn read_ref<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Result<Option<T>> {
        let path = self.ref_path(kind, name)?;
        let file = match fs_err::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).system(|| format!("reading {}", path.display())),
        };
        let mut bytes = Vec::new();
        file.take(MAX).read_to_end(&mut bytes).system(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Writes or replaces a ref.
    pub fn write_ref<T: Serialize>(&self, kind: &str, name: &str, value: &T) -> Result<()> {
        let path = self.ref_path(kind, name)?;
        let dir = path.parent().unwrap_or(self.root());
        fs_err::create_dir_all(dir).system(|| format!("creating {}", dir.display()))?;
        let mut bytes = serde_json::to_vec_pretty(value).system(|| format!("writing {}", path.display()))?;
        bytes.push(b'\n');
        atomic::replace(&path, &bytes, 0o600)
    }

    /// Removes a ref, if it is there.
    pub fn remove_ref(&self, kind: &str, name: &str) -> Result<()> {
        let path = self.ref_path(kind, name)?;
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).system(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the sorted names of all refs of a kind.
    pub fn ref_names(&self, kind: &str) -> Result<Vec<String>> {
        let dir = self.root().join("refs").join(kind);
        let entries = match fs_err::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).system(|| format!("listing {}", dir.display())),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.system(|| format!("listing {}", dir.display()))?;
            if let Some(name) = entry.file_name().to_str()
                && let Some(name) = name.strip_suffix(".json")
                && is_name(name)
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn ref_path(&self, kind: &str, name: &str) -> Result<PathBuf> {
        if !is_name(kind) || !is_name(name) {
            return Err(Error::system(format!("looking for the ref {kind:?}/{name:?}: not a file name")));
        }
        Ok(self.root().join("refs").join(kind).join(format!("{name}.json")))
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 240
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_read_back_listed_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.read_ref::<u32>("k", "a").unwrap(), None);
        store.write_ref("k", "b", &1u32).unwrap();
        store.write_ref("k", "a", &2u32).unwrap();
        store.write_ref("k", "a", &3u32).unwrap();
        assert_eq!(store.read_ref::<u32>("k", "a").unwrap(), Some(3));
        assert_eq!(store.ref_names("k").unwrap(), ["a", "b"]);
        assert_eq!(store.ref_names("none").unwrap(), [""; 0]);
    }

    #[test]
    fn a_damaged_ref_counts_as_missing_and_a_bad_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.write_ref("k", "a", &"text").unwrap();
        assert_eq!(store.read_ref::<u32>("k", "a").unwrap(), None);
        assert!(store.write_ref("k", "../a", &1u32).is_err());
        assert!(store.write_ref("k", ".a", &1u32).is_err());
    }
}
