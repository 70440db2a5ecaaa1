//! A reader whose bytes are hashed on the way.

use std::io::{self, BufRead, Read};

use super::{Algorithm, Hasher, Sums};

/// Hashes what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    input: R,
    hasher: Hasher,
    count: u64,
}

impl<R> HashingReader<R> {
    /// Computes these digests of `input`.
    pub fn new(input: R, algorithms: &[Algorithm]) -> Self {
        Self { input, hasher: Hasher::new(algorithms), count: 0 }
    }

    /// Bytes read so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The digests of everything that was read.
    pub fn finish(self) -> Sums {
        self.hasher.finish()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(to)?;
        self.hasher.update(&to[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for HashingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // The bytes were filled before, so asking for them again does no I/O and cannot fail.
        if let Ok(bytes) = self.input.fill_buf() {
            self.hasher.update(&bytes[..count]);
        }
        self.input.consume(count);
        self.count += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::{Sha256, Sha512};

    #[test]
    fn consumed_and_read_bytes_are_hashed_once() {
        let mut reader = HashingReader::new(&b"abcdef"[..], &[Algorithm::Sha256, Algorithm::Sha512]);
        assert_eq!(reader.fill_buf().unwrap(), b"abcdef");
        reader.consume(2);
        reader.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(reader.count(), 6);
        let sums = reader.finish();
        assert_eq!((sums.sha256(), sums.sha512()), (Some(Sha256::of(b"abcdef")), Some(Sha512::of(b"abcdef"))));
        assert_eq!(sums.blake2b(), None);
    }
}
