//! The key of the store, with which values are compared that must not be stored.

use std::io::{Read, Seek as _, Write};

use fs_err::os::unix::fs::OpenOptionsExt;
use sha2::Digest as _;

use super::Store;
use super::lock::{self, Mode};
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};

/// Bytes of the key.
const LENGTH: usize = 32;

/// The name of the file with the key.
const FILE: &str = "secret.key";

impl Store {
    /// Returns the HMAC-SHA-256 (RFC 2104) of a value under the store's random key, which is made on first use. Without the key, nobody
    /// can find out the value by trying.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the key cannot be read or made.
    pub fn seal(&self, value: &[u8]) -> Result<Sha256> {
        Ok(hmac(&self.key()?, value))
    }

    /// Returns the key. The file is locked meanwhile: a shorter one is that of a killed process, and its bytes were never used.
    fn key(&self) -> Result<[u8; LENGTH]> {
        let path = self.root().join(FILE);
        let reading = || "reading the key of the store";
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.system(reading)?.into_file();
        lock::hold(&file, &path, Mode::Exclusive, || {})?;
        let mut bytes = Vec::new();
        (&file).take(LENGTH as u64 + 1).read_to_end(&mut bytes).system(reading)?;
        if bytes.len() < LENGTH {
            let making = || "making the key of the store";
            bytes.resize(LENGTH, 0);
            fs_err::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).system(making)?;
            file.rewind().and_then(|()| file.write_all(&bytes)).and_then(|()| file.sync_all()).system(making)?;
        }
        let damaged = || Error::system(format!("{}: {} is damaged", reading(), path.display()));
        bytes.try_into().map_err(|_| damaged().with_hint("remove the file: steps with secrets then run again"))
    }
}

fn hmac(key: &[u8; LENGTH], value: &[u8]) -> Sha256 {
    const BLOCK: usize = 64;
    let mut padded = [0; BLOCK];
    padded[..LENGTH].copy_from_slice(key);
    let hash = |pad: u8, text: &[u8]| -> [u8; 32] {
        let key = padded.map(|byte| byte ^ pad);
        sha2::Sha256::new_with_prefix(key).chain_update(text).finalize().into()
    };
    hash(0x5c, &hash(0x36, value)).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_seal_is_an_hmac() {
        // Computed with another implementation.
        let seal = hmac(&[0x0b; LENGTH], b"Hi There");
        assert_eq!(seal.hex(), "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7");
    }

    #[test]
    fn the_key_is_made_once_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = store.seal(b"a").unwrap();
        assert_eq!(store.seal(b"a").unwrap(), first);
        assert_ne!(store.seal(b"b").unwrap(), first);
        let key = fs_err::metadata(dir.path().join(FILE)).unwrap();
        assert_eq!((key.len(), key.permissions().mode() & 0o777), (32, 0o600));
        let other = tempfile::tempdir().unwrap();
        let other_store = Store::open(other.path()).unwrap();
        assert_ne!(other_store.seal(b"a").unwrap(), first);
        // A process was killed while it made the key, or another program wrote to it.
        fs_err::write(other.path().join(FILE), "short").unwrap();
        let second = other_store.seal(b"a").unwrap();
        assert_eq!(other_store.seal(b"a").unwrap(), second);
        fs_err::write(other.path().join(FILE), [0; 33]).unwrap();
        assert!(other_store.seal(b"a").unwrap_err().hint().is_some());
    }
}
