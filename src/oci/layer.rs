//! A layer's content, with the digest of its plain archive taken on the way.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt as _;

use sha2::{Digest as _, Sha256, Sha512};

use super::layout::Algorithm;
use super::whiteout::{self, Mark};
use crate::archive::unpack::decode::{Decoder, Format};
use crate::archive::unpack::entry::Entry;
use crate::archive::unpack::limits::{Limits, Spent};
use crate::archive::unpack::reader::Reader;
use crate::archive::unpack::refusal::{ReadError, Refusal};
use crate::base::digest::hex;
use crate::base::refusal::Reason;

/// What a layer was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Hex of the plain archive's digest.
    pub digest: String,
    /// What was spent of the limits with it.
    pub spent: Spent,
}

/// Reads a layer to its end and gives each entry, and what it means, to `each`, which may refuse it.
pub fn read(
    file: File,
    format: Format,
    algorithm: Algorithm,
    limits: &Limits,
    each: &mut dyn FnMut(Entry, Mark) -> Result<(), Reason>,
) -> Result<Read, ReadError> {
    let plain = match algorithm {
        Algorithm::Sha256 => Hash::Sha256(Box::default()),
        Algorithm::Sha512 => Hash::Sha512(Box::default()),
    };
    let decoder = Decoder::of(format, file).map_err(|error| ReadError::of(error, &[], 0))?;
    let mut plain = Digested { input: decoder, hash: plain };
    let mut reader = Reader::new(&mut plain, limits.clone());
    while let Some(entry) = reader.next_entry()? {
        let (name, offset) = (entry.path.as_os_str().as_bytes().to_vec(), entry.offset);
        let taken = whiteout::mark(&entry).and_then(|mark| each(entry, mark));
        taken.map_err(|reason| Refusal { reason, name, offset })?;
    }
    reader.finish()?;
    let spent = reader.spent();
    Ok(Read { digest: plain.hash.finish(), spent })
}

enum Hash {
    Sha256(Box<Sha256>),
    Sha512(Box<Sha512>),
}

impl Hash {
    fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::Sha512(hash) => hex(&hash.finalize()),
        }
    }
}

/// What is consumed of the input is hashed.
struct Digested<R> {
    input: R,
    hash: Hash,
}

impl<R: BufRead> BufRead for Digested<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What was filled is still there: asking for it again cannot fail.
        if let Ok(bytes) = self.input.fill_buf() {
            match &mut self.hash {
                Hash::Sha256(hash) => hash.update(&bytes[..count]),
                Hash::Sha512(hash) => hash.update(&bytes[..count]),
            }
        }
        self.input.consume(count);
    }
}

impl<R: BufRead> io::Read for Digested<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(to.len());
        to[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}
