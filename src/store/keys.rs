//! Imported certificates: a file for each, named by its primary fingerprint. The store does not interpret them.

use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use super::Store;
use crate::base::error::{Context, Error, Result};
use crate::fs::atomic;

/// Longest certificate that is stored, in bytes.
const MAX: u64 = 4 << 20;

impl Store {
    /// Returns every imported certificate with a name for messages.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when one cannot be read.
    pub fn certificates(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        for fingerprint in self.certificate_names()? {
            let path = self.certificate_path(&fingerprint)?;
            let mut bytes = Vec::new();
            fs_err::File::open(&path)
                .and_then(|file| file.take(MAX).read_to_end(&mut bytes))
                .system(|| format!("reading the imported certificate {}", path.display()))?;
            found.push((format!("the imported certificate {}", path.display()), bytes));
        }
        Ok(found)
    }

    /// Returns the sorted primary fingerprints of the imported certificates.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when the directory cannot be read.
    pub fn certificate_names(&self) -> Result<Vec<String>> {
        let directory = self.root().join("keys");
        let mut names = Vec::new();
        for entry in fs_err::read_dir(&directory).system(|| "listing the imported certificates")? {
            let name = entry.system(|| "listing the imported certificates")?.file_name();
            let fingerprint = name.to_str().and_then(|name| name.strip_suffix(".asc"));
            names.extend(fingerprint.filter(|name| is_fingerprint(name)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Stores a certificate and replaces an earlier version of it.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be written or is too large.
    pub fn write_certificate(&self, fingerprint: &str, bytes: &[u8]) -> Result<()> {
        let path = self.certificate_path(fingerprint)?;
        let writing = || format!("writing {}", path.display());
        if bytes.len() as u64 >= MAX {
            return Err(Error::system(format!("{}: it is larger than {} MiB", writing(), MAX >> 20)));
        }
        atomic::replace(&path, bytes, 0o600)
    }

    /// Removes a certificate. Returns false if the store does not have it.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be removed.
    pub fn remove_certificate(&self, fingerprint: &str) -> Result<bool> {
        let path = self.certificate_path(fingerprint)?;
        match fs_err::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).system(|| format!("removing {}", path.display())),
        }
    }

    fn certificate_path(&self, fingerprint: &str) -> Result<PathBuf> {
        if !is_fingerprint(fingerprint) {
            return Err(Error::usage(format!("{fingerprint:?} is not the fingerprint of a primary key"))
                .with_hint("a fingerprint has 40 or 64 upper-case hex digits"));
        }
        Ok(self.root().join("keys").join(format!("{fingerprint}.asc")))
    }
}

fn is_fingerprint(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_stored_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let name = "A".repeat(40);
        assert!(store.certificates().unwrap().is_empty());
        store.write_certificate(&name, b"one").unwrap();
        store.write_certificate(&name, b"two").unwrap();
        fs_err::write(dir.path().join("keys/README"), b"").unwrap();
        assert_eq!(store.certificate_names().unwrap(), [name.as_str()]);
        assert_eq!(store.certificates().unwrap()[0].1, b"two");
        assert!(store.remove_certificate(&name).unwrap() && !store.remove_certificate(&name).unwrap());
        for bad in ["", "../x", "a", &"a".repeat(40), &"A".repeat(41)] {
            assert!(store.write_certificate(bad, b"x").is_err());
        }
    }
}
