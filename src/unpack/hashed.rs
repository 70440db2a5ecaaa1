//! Bytes that are hashed while they are read, in the decoder's thread: beside decoding and writing, not before.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha512};

/// An input with the SHA-512 of all of it.
pub struct Hashed<R> {
    input: R,
    digest: Sha512,
    whole: Arc<OnceLock<String>>,
}

impl<R> std::fmt::Debug for Hashed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashed")
    }
}

impl<R: Read> Hashed<R> {
    /// Hashes what is read of `input`. The digest, in lower-case hex, is there once its end was met.
    pub fn new(input: R) -> (Self, Arc<OnceLock<String>>) {
        let whole = Arc::new(OnceLock::new());
        (Self { input, digest: Sha512::new(), whole: whole.clone() }, whole)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(to)?;
        self.digest.update(&to[..count]);
        if count == 0 && !to.is_empty() {
            self.whole
                .get_or_init(|| self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_there_at_the_end_and_not_before() {
        let (mut input, whole) = Hashed::new(&b"abc"[..]);
        let mut buffer = [0; 2];
        assert_eq!(input.read(&mut buffer).unwrap(), 2);
        assert_eq!(input.read(&mut buffer).unwrap(), 1);
        assert_eq!(whole.get(), None);
        assert_eq!(input.read(&mut buffer).unwrap(), 0);
        assert!(whole.get().unwrap().starts_with("ddaf35a193617abacc417349ae204131"));
    }
}
