//! A reader that moves into the decoder's thread and leaves the digest of its bytes behind.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use crate::base::digest::{Algorithm, Hasher, Sums};

/// An input whose bytes are hashed while they are read. [`HashingReader`](crate::base::digest::HashingReader) cannot be used
/// here because the decoder never gives its input back.
#[derive(Debug)]
pub struct Hashed<R> {
    input: R,
    hasher: Option<Hasher>,
    sums: Arc<OnceLock<Sums>>,
}

impl<R> Hashed<R> {
    /// Hashes `input`. The second value holds the digest as soon as the end of `input` has been read.
    pub fn new(input: R, algorithm: Algorithm) -> (Self, Arc<OnceLock<Sums>>) {
        let sums = Arc::new(OnceLock::new());
        // The decoder's thread hashes: another thread would only add a copy of every byte.
        (Self { input, hasher: Some(Hasher::with(&[algorithm], false)), sums: sums.clone() }, sums)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(to)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&to[..count]);
        }
        if count == 0
            && !to.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            self.sums.get_or_init(|| hasher.finish());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Sha512;

    #[test]
    fn the_digest_appears_at_the_end_of_the_input() {
        let (mut input, sums) = Hashed::new(&b"abc"[..], Algorithm::Sha512);
        let mut buffer = [0; 2];
        assert_eq!(input.read(&mut buffer).unwrap(), 2);
        assert_eq!(input.read(&mut buffer).unwrap(), 1);
        assert_eq!(sums.get(), None);
        assert_eq!(input.read(&mut buffer).unwrap(), 0);
        assert_eq!(input.read(&mut buffer).unwrap(), 0);
        assert_eq!(sums.get().unwrap().sha512(), Some(Sha512::of(b"abc")));
    }
}
