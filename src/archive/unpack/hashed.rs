//! Bytes that are hashed while they are read, in the decoder's thread: beside decoding and writing, not before.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha512};

use crate::base::digest::hex;

/// An input with the digest of all of it.
pub struct Hashed<R, D = Sha512> {
    input: R,
    digest: D,
    whole: Arc<OnceLock<String>>,
}

impl<R, D> std::fmt::Debug for Hashed<R, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashed")
    }
}

impl<R: Read, D: Digest> Hashed<R, D> {
    /// Hashes what is read of `input`. The digest, in lower-case hex, is there once its end was met.
    pub fn new(input: R) -> (Self, Arc<OnceLock<String>>) {
        let whole = Arc::new(OnceLock::new());
        (Self { input, digest: D::new(), whole: whole.clone() }, whole)
    }
}

impl<R: Read, D: Digest + Clone> Read for Hashed<R, D> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(to)?;
        self.digest.update(&to[..count]);
        if count == 0 && !to.is_empty() {
            self.whole.get_or_init(|| hex(&self.digest.clone().finalize()));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_there_at_the_end_and_not_before() {
        let (mut input, whole) = Hashed::<_, Sha512>::new(&b"abc"[..]);
        let mut buffer = [0; 2];
        assert_eq!(input.read(&mut buffer).unwrap(), 2);
        assert_eq!(input.read(&mut buffer).unwrap(), 1);
        assert_eq!(whole.get(), None);
        assert_eq!(input.read(&mut buffer).unwrap(), 0);
        assert!(whole.get().unwrap().starts_with("ddaf35a193617abacc417349ae204131"));
    }
}
